"""The plan has exactly the leaves that the machine has (I-29)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.example_context import example_context, with_first_segment
from rtplan.domain.verdict import CheckResult


class MlcPairs:
    """Every control point holds one finite position per leaf of the machine."""

    kind = "MLC_PAIRS"

    def check(self, context: PlanContext) -> CheckResult:
        """Count the leaves and look for positions that are not numbers."""
        pairs = context.machine.mlc.n_pairs
        for beam in context.plan.beams:
            for i, point in enumerate(beam.control_points):
                for tips in (point.aperture.leaf_x1_mm, point.aperture.leaf_x2_mm):
                    if tips.shape != (pairs,) or not np.all(np.isfinite(tips)):
                        message = f"beam {beam.number}, control point {i}: not {pairs} finite positions but {tips.tolist()}"
                        return CheckResult(self.kind, False, message)
        return CheckResult(self.kind, True, f"{pairs} pairs at every control point")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the last pair of the first segment is lost."""
        good = example_context()
        aperture = good.plan.beams[0].control_points[0].aperture
        lost = replace(aperture, leaf_x1_mm=aperture.leaf_x1_mm[:-1], leaf_x2_mm=aperture.leaf_x2_mm[:-1])
        return good, with_first_segment(good, lost)


PLUGIN = MlcPairs()
