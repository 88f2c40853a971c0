"""Mean dose above a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective


class MeanDose(Objective):
    """Square of the mean dose above `dose_gy`: f = (Σ v d / Σ v - d0)₊², in Gy². A level of 0 pushes without end. Convex."""

    kind: ClassVar[str] = "mean_dose"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(ge=0, le=200)

    @classmethod
    def example(cls) -> Self:
        """Mean above 10 Gy."""
        return cls(dose_gy=10.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        share = np.asarray(voxel_weight, dtype=np.float64) / voxel_weight.sum(dtype=np.float64)
        excess = max(float(share @ np.asarray(dose_gy, dtype=np.float64)) - self.dose_gy, 0.0)
        return excess**2, 2.0 * excess * share


PLUGIN = MeanDose
