"""The machine can give the MU of an arc as slowly, and as fast, as its gantry and leaves go."""

from __future__ import annotations

from dataclasses import replace

from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_arc import example_arc_context, with_arc_point
from rtplan.domain.example_context import example_aperture
from rtplan.domain.motion import dose_rate_mu_min, intervals
from rtplan.domain.verdict import CheckResult

_ROUNDING = 1e-6


class ArcDoseRate:
    """In every interval of an arc, t = max(turn / gantry speed, leaf / leaf speed, jaw / jaw speed, MU / highest dose rate);
    the dose rate MU / t that this leaves is at least the machine's lowest.

    It is never above the highest, because then the MU themselves are the slowest.
    """

    kind = "ARC_DOSE_RATE"

    def check(self, context: Delivery) -> CheckResult:
        """Lowest dose rate over all intervals of all arcs."""
        machine = context.machine
        rates = [
            (dose_rate_mu_min(interval, machine), f"beam {beam.number}, control points {i} to {i + 1}")
            for beam in context.plan.beams
            if beam.is_arc
            for i, interval in enumerate(intervals(beam))
        ]
        if not rates:
            return CheckResult(self.kind, True, "no arcs")
        if machine.arc is None:
            return CheckResult(self.kind, False, f"{machine.machine_id} delivers no arcs")
        (lowest, where), needed = min(rates), machine.arc.min_dose_rate_mu_min
        message = f"lowest dose rate {lowest:.1f} MU/min ({where}); at least {needed:g} MU/min"
        return CheckResult(self.kind, lowest >= needed * (1 - _ROUNDING), message)

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: leaves travel 150 mm, for 6 s, while 2 MU are given."""
        good = example_arc_context()
        last = good.plan.beams[0].control_points[-1]
        return good, with_arc_point(good, 10, replace(last, aperture=example_aperture(-152.0, 38.0)))


PLUGIN = ArcDoseRate()
