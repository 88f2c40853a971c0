"""An arc gives as many MU per degree as the machine can hold to."""

from __future__ import annotations

import math
from dataclasses import replace

from rtplan.domain.context import Delivery, PlanContext
from rtplan.domain.example_arc import example_arc_context, with_arc_point
from rtplan.domain.motion import intervals
from rtplan.domain.verdict import CheckResult

_ROUNDING = 1e-6


class ArcMuPerDegree:
    """In every interval of an arc, MU / turn lies between the machine's limits: no sector without radiation, no standing."""

    kind = "ARC_MU_PER_DEGREE"

    def check(self, context: Delivery) -> CheckResult:
        """First interval beyond the limits, or the range of all."""
        found: list[float] = []
        for beam in context.plan.beams:
            if not beam.is_arc:
                continue
            limits = context.machine.arc
            if limits is None:
                return CheckResult(self.kind, False, f"{context.machine.machine_id} delivers no arcs")
            for i, interval in enumerate(intervals(beam)):
                density = interval.mu / interval.turn_deg if interval.turn_deg > 0 else math.inf
                if not limits.min_mu_per_deg * (1 - _ROUNDING) <= density <= limits.max_mu_per_deg * (1 + _ROUNDING):
                    where = f"beam {beam.number}, control points {i} to {i + 1}: {density:.3f} MU per degree"
                    allowed = f"allowed {limits.min_mu_per_deg:g} to {limits.max_mu_per_deg:g}"
                    return CheckResult(self.kind, False, f"{where}, {allowed}")
                found.append(density)
        message = f"{min(found):.2f} to {max(found):.2f} MU per degree" if found else "no arcs"
        return CheckResult(self.kind, True, message)

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the last 4 degrees are turned without radiation."""
        good = example_arc_context()
        before, last = good.plan.beams[0].control_points[-2:]
        return good, with_arc_point(good, 10, replace(last, cumulative_mu=before.cumulative_mu))


PLUGIN = ArcMuPerDegree()
