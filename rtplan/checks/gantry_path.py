"""The gantry stands where the beam says (I-31)."""

from __future__ import annotations

import math
from dataclasses import replace

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_context, with_control_point
from rtplan.domain.verdict import CheckResult


class GantryPath:
    """Gantry, collimator and couch angles are finite and in [0, 360); the gantry does not move within a static beam."""

    kind = "GANTRY_PATH"

    def check(self, context: PlanContext) -> CheckResult:
        """First beam at fault."""
        for plan_beam in context.plan.beams:
            beam = plan_beam.beam
            for name in ("gantry", "collimator", "couch"):
                angle = getattr(beam, f"{name}_angle_deg")
                if not math.isfinite(angle) or not 0 <= angle < 360:
                    return CheckResult(self.kind, False, f"beam {plan_beam.number}: {name} at {angle} deg, not in [0, 360)")
            for i, point in enumerate(plan_beam.control_points):
                if point.gantry_angle_deg != beam.gantry_angle_deg:
                    found = f"gantry at {point.gantry_angle_deg} deg, the beam at {beam.gantry_angle_deg} deg"
                    return CheckResult(self.kind, False, f"beam {plan_beam.number}, control point {i}: {found}")
        return CheckResult(self.kind, True, "angles in range, gantry still within each beam")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the gantry turns by 180 degrees within a static beam."""
        good = example_context()
        point = good.plan.beams[0].control_points[1]
        return good, with_control_point(good, 1, replace(point, gantry_angle_deg=180.0))


PLUGIN = GantryPath()
