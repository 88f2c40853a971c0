"""Fields larger than the dose engine has been compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rtplan.checks._opening import PIXEL_MM, beam_opening
from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_first_segment
from rtplan.domain.plan import PlanBeam
from rtplan.domain.validity import COLLAPSED_CONE
from rtplan.domain.verdict import CheckResult, Finding


class LargeField:
    """The box around each beam's whole opening is no longer than the largest validated field.

    A plan passes all the same; one finding (LARGE_FIELD, flag) names the beams beyond.
    """

    kind = "LARGE_FIELD"

    def check(self, context: Delivery) -> CheckResult:
        """Longest side of the openings of all beams."""
        mlc, valid = context.machine.mlc, COLLAPSED_CONE
        sides = [(b, o.longest_side_mm()) for b in context.plan.beams if (o := beam_opening(b, mlc)) is not None]
        beyond = [(b, side) for b, side in sides if side > valid.largest_field_side_mm + PIXEL_MM]
        longest = max((side for _, side in sides), default=0.0)
        message = f"longest opening {longest:.1f} mm; validated up to {valid.largest_field_side_mm:g} mm"
        return CheckResult(self.kind, True, message, _finding(beyond))

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: an opening of 210 mm."""
        good = example_context()
        wide = example_aperture(-105.0, 105.0)
        return good, with_first_segment(good, replace(wide, jaw_x1_mm=-110.0, jaw_x2_mm=110.0))


def _finding(beyond: Sequence[tuple[PlanBeam, float]]) -> tuple[Finding, ...]:
    if not beyond:
        return ()
    named = ", ".join(f"{beam.number} ({beam.beam.name}, {side_mm:.0f} mm)" for beam, side_mm in beyond)
    limit = COLLAPSED_CONE.largest_field_side_mm
    message = f"openings longer than {limit:g} mm: beam {named}; the dose engine was {COLLAPSED_CONE.provenance}"
    return (Finding("LARGE_FIELD", "flag", message),)


PLUGIN = LargeField()
