"""Mean dose below a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective


class MeanUnderdose(Objective):
    """Square of the mean dose below `dose_gy`: f = (d0 - Σ v d / Σ v)₊², in Gy². Convex."""

    kind: ClassVar[str] = "mean_underdose"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(gt=0, le=200)

    @classmethod
    def example(cls) -> Self:
        """Mean below 40 Gy."""
        return cls(dose_gy=40.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        share = np.asarray(voxel_weight, dtype=np.float64) / voxel_weight.sum(dtype=np.float64)
        lack = max(self.dose_gy - float(share @ np.asarray(dose_gy, dtype=np.float64)), 0.0)
        return lack**2, -2.0 * lack * share


PLUGIN = MeanUnderdose
