"""The dose grid holds everything that is judged on it (I-38, MC-16)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtplan.domain.context import PlanContext
from rtplan.domain.dose import Dose
from rtplan.domain.example_context import example_context
from rtplan.domain.verdict import CheckResult

_SAME_MM = 1e-3


class DoseGrid:
    """The dose grid covers every target and every structure with a goal, and is no coarser than the protocol asks."""

    kind = "DOSE_GRID"

    def check(self, context: PlanContext) -> CheckResult:
        """First structure that is not covered."""
        grid, protocol = context.dose.grid, context.prescription.protocol
        coarsest = max(grid.spacing_zyx_mm)
        if coarsest > protocol.dose_grid_mm + _SAME_MM:
            return CheckResult(
                self.kind, False, f"spacing {coarsest:g} mm; the protocol asks for {protocol.dose_grid_mm:g} mm"
            )
        low, high = (np.array(corner) for corner in grid.bounds_mm())
        wanted = {t.name for t in context.prescription.targets} | {g.structure for g in context.prescription.goals}
        for name in sorted(wanted & set(context.structures.names)):
            index = np.argwhere(context.structures[name].mask).astype(np.float64)
            points = context.structures.grid.to_point_mm(index)
            outside = int(np.sum(np.any((points < low - _SAME_MM) | (points > high + _SAME_MM), axis=1)))
            if outside:
                return CheckResult(self.kind, False, f"{name}: {outside} of {len(points)} voxels lie outside the dose grid")
        return CheckResult(self.kind, True, f"{coarsest:g} mm, covers {len(wanted)} structures")

    def example(self) -> tuple[PlanContext, PlanContext]:
        """Bad: the grid ends in the middle of the target."""
        good = example_context()
        half = good.dose.grid.cropped((0, 0, 0), (15, 30, 30))
        return good, replace(good, dose=Dose(half, good.dose.dose_gy[:15]))


PLUGIN = DoseGrid()
