"""Opposing leaves keep their smallest gap (I-29, MC-02)."""

from __future__ import annotations

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_aperture, example_context, with_first_segment
from rtplan.domain.openings import POSITION_TOLERANCE_MM
from rtplan.domain.verdict import CheckResult


class MlcGap:
    """X2 - X1 of every pair is at least the machine's smallest gap: leaves neither cross nor touch."""

    kind = "MLC_GAP"

    def check(self, context: PlanContext) -> CheckResult:
        """Smallest gap over all control points."""
        smallest, where = np.inf, "no control points"
        for beam in context.plan.beams:
            for i, point in enumerate(beam.control_points):
                gap = point.aperture.leaf_x2_mm - point.aperture.leaf_x1_mm
                if float(gap.min()) < smallest:
                    smallest = float(gap.min())
                    where = f"beam {beam.number}, control point {i}, pair {int(gap.argmin()) + 1}"
        needed = context.machine.mlc.min_gap_mm
        passed = bool(smallest >= needed - POSITION_TOLERANCE_MM)
        return CheckResult(self.kind, passed, f"smallest gap {smallest:.2f} mm ({where}); at least {needed:g} mm")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: leaves that cross by 1 mm."""
        good = example_context()
        return good, with_first_segment(good, example_aperture(20.0, 19.0))


PLUGIN = MlcGap()
