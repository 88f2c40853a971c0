"""Leaves stay within their travel (MC-01)."""

from __future__ import annotations

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_first_segment
from rtplan.domain.openings import POSITION_TOLERANCE_MM
from rtplan.domain.verdict import CheckResult


class MlcTravel:
    """No leaf is further from the axis than it may extend, nor further across it than its overtravel."""

    kind = "MLC_TRAVEL"

    def check(self, context: PlanContext) -> CheckResult:
        """Largest excess over all control points."""
        mlc = context.machine.mlc
        worst, where = -np.inf, "no control points"
        for beam in context.plan.beams:
            for i, point in enumerate(beam.control_points):
                x1, x2 = point.aperture.leaf_x1_mm, point.aperture.leaf_x2_mm
                across = max(float(x1.max()), float(-x2.min())) - mlc.max_overtravel_mm
                out = max(float(np.abs(x1).max()), float(np.abs(x2).max())) - mlc.max_position_mm
                if max(across, out) > worst:
                    worst, where = max(across, out), f"beam {beam.number}, control point {i}"
        passed = bool(worst <= POSITION_TOLERANCE_MM)
        return CheckResult(self.kind, passed, f"closest to a leaf's end of travel: {worst:+.2f} mm beyond it ({where})")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: leaves of the left bank reach 10 mm further across the axis than they can."""
        good = example_context()
        return good, with_first_segment(good, example_aperture(170.0, 190.0))


PLUGIN = MlcTravel()
