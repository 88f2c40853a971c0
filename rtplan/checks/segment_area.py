"""Segments are large enough for the beam model to be trusted."""

from __future__ import annotations

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_first_segment
from rtplan.domain.openings import exposed_apertures, open_area_cm2, static_segments
from rtplan.domain.plan import Aperture, PlanBeam
from rtplan.domain.verdict import CheckResult


class SegmentArea:
    """Every static segment, and an arc at every control point, leaves the machine's smallest area or more open inside the
    jaws."""

    kind = "SEGMENT_AREA"

    def check(self, context: PlanContext) -> CheckResult:
        """Smallest open area over all static segments and all control points of arcs."""
        machine = context.machine
        areas = [
            (open_area_cm2(aperture, machine.mlc), f"beam {beam.number}, {where}")
            for beam in context.plan.beams
            for where, aperture in _judged(beam)
        ]
        if not areas:
            return CheckResult(self.kind, True, "no static segments")
        smallest, where = min(areas)
        passed = smallest >= machine.min_segment_area_cm2 - 1e-6
        message = f"smallest segment {smallest:.2f} cm² ({where}); at least {machine.min_segment_area_cm2:g} cm²"
        return CheckResult(self.kind, passed, message)

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: a slit of 1 mm over 50 mm."""
        good = example_context()
        return good, with_first_segment(good, example_aperture(0.0, 1.0))


def _judged(beam: PlanBeam) -> tuple[tuple[str, Aperture], ...]:
    if beam.is_arc:
        return tuple((f"control point {i}", aperture) for i, aperture in exposed_apertures(beam))
    return tuple((f"segment {i + 1}", aperture) for i, (aperture, _) in enumerate(static_segments(beam)))


PLUGIN = SegmentArea()
