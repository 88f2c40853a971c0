"""Fields narrower than the dose engine has been compared with."""

from __future__ import annotations

from collections.abc import Sequence

from rtplan.checks._opening import PIXEL_MM, beam_opening, opening, spans, swept
from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_beam
from rtplan.domain.plan import PlanBeam, Segment, step_and_shoot_beam
from rtplan.domain.validity import COLLAPSED_CONE, ValidatedRange
from rtplan.domain.verdict import CheckResult, Finding


class SmallField:
    """In each beam's whole opening, of all its segments together, fits a disc as wide as the smallest validated field.

    A plan passes all the same: its dose is an extrapolation, not a fault. One finding (SMALL_FIELD, flag) names the beams
    below the range. Segments of a modulated beam are small by nature, so one finding counts them (SMALL_SEGMENTS, info).
    """

    kind = "SMALL_FIELD"

    def check(self, context: Delivery) -> CheckResult:
        """Widths of the openings of all beams and segments."""
        valid, mlc = COLLAPSED_CONE, context.machine.mlc
        widths = [(b, o.width_mm()) for b in context.plan.beams if (o := beam_opening(b, mlc)) is not None]
        narrow = _beam_finding([(b, w) for b, w in widths if _below(w, valid)], valid)
        smallest = min((w for _, w in widths), default=0.0)
        message = f"narrowest beam {smallest:.1f} mm wide; validated from {valid.smallest_field_side_mm:g} mm"
        return CheckResult(self.kind, True, message, (*narrow, *_segment_finding(context, valid)))

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: a beam whose segments all lie in a slit of 12 mm."""
        good = example_context()
        beam = good.plan.beams[0]
        segments = (Segment(0, example_aperture(-6.0, 4.0), 60.0), Segment(0, example_aperture(-4.0, 6.0), 40.0))
        return good, with_beam(good, 0, step_and_shoot_beam(beam.number, beam.beam, segments))


def _below(width_mm: float, valid: ValidatedRange) -> bool:
    return width_mm < valid.smallest_field_side_mm - PIXEL_MM


def _beam_finding(narrow: Sequence[tuple[PlanBeam, float]], valid: ValidatedRange) -> tuple[Finding, ...]:
    if not narrow:
        return ()
    named = ", ".join(f"{beam.number} ({beam.beam.name}, {width_mm:.1f} mm wide)" for beam, width_mm in narrow)
    limit = valid.smallest_field_side_mm
    message = f"whole opening narrower than {limit:g} mm: beam {named}; the dose engine was {valid.provenance}"
    return (Finding("SMALL_FIELD", "flag", message),)


def _segment_finding(context: Delivery, valid: ValidatedRange) -> tuple[Finding, ...]:
    """How many spans with radiation, and what share of all MU, go through openings below the range."""
    found = [
        (opening([swept(a, b, context.machine.mlc)], context.machine.mlc).width_mm(), mu)
        for beam in context.plan.beams
        for a, b, mu in spans(beam)
    ]
    small = [(w, mu) for w, mu in found if _below(w, valid)]
    if not small:
        return ()
    share = 100.0 * sum(mu for _, mu in small) / sum(mu for _, mu in found)
    message = (
        f"{len(small)} of {len(found)} segments, {share:.0f} % of the MU, have openings less than "
        f"{valid.smallest_field_side_mm:g} mm wide (the narrowest {min(w for w, _ in small):.1f} mm); the dose engine was "
        f"{valid.provenance}"
    )
    return (Finding("SMALL_SEGMENTS", "info", message),)


PLUGIN = SmallField()
