"""No beam delivers behind closed leaves, nor through leaves that never move (I-36)."""

from __future__ import annotations

from dataclasses import replace

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_beam, with_first_segment
from rtplan.domain.openings import equal_apertures, open_area_cm2
from rtplan.domain.plan import PlanBeam
from rtplan.domain.verdict import CheckResult


class ApertureOpen:
    """Wherever MU are given some leaf pair is open inside the jaws, and a beam of several segments has several apertures.

    The second half is the sentinel for lost control points: a modulated beam or an arc whose leaves stand still is wrong.
    """

    kind = "APERTURE_OPEN"

    def check(self, context: PlanContext) -> CheckResult:
        """First beam at fault."""
        mlc = context.machine.mlc
        for beam in context.plan.beams:
            pairs = list(zip(beam.control_points[:-1], beam.control_points[1:], strict=True))
            for i, (start, end) in enumerate(pairs):
                area = max(open_area_cm2(start.aperture, mlc), open_area_cm2(end.aperture, mlc))
                if end.cumulative_mu != start.cumulative_mu and area <= 0:
                    return CheckResult(self.kind, False, f"beam {beam.number}, control points {i} to {i + 1}: no leaf open")
            if _frozen(beam):
                message = f"beam {beam.number}: {len(beam.control_points)} control points, all with the same aperture"
                return CheckResult(self.kind, False, message)
        return CheckResult(self.kind, True, "every segment is open and every modulated beam changes its aperture")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the first segment is closed."""
        good = example_context()
        return good, with_first_segment(good, example_aperture(0.0, 0.5))

    def frozen_example(self) -> PlanContext:
        """Also bad: all control points carry the first segment's aperture."""
        good = example_context()
        beam = good.plan.beams[0]
        stuck = beam.control_points[0].aperture
        return with_beam(
            good, 0, replace(beam, control_points=tuple(replace(p, aperture=stuck) for p in beam.control_points))
        )


def _frozen(beam: PlanBeam) -> bool:
    first = beam.control_points[0].aperture
    return len(beam.control_points) > 2 and all(equal_apertures(first, p.aperture) for p in beam.control_points)


PLUGIN = ApertureOpen()
