"""The hottest voxels above a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective


class MaxDose(Objective):
    """Squared p-norm of the dose above `dose_gy`: f = (Σ v (d - d0)₊ᵖ / Σ v)^(2/p), in Gy².

    p = 2 is `overdose`; as p grows, f tends to the squared excess of the hottest voxel. Convex (a norm of a convex,
    non-negative function, squared) with a continuous gradient.
    """

    kind: ClassVar[str] = "max_dose"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(ge=0, le=200)
    power: float = Field(default=8.0, ge=2, le=32)

    @classmethod
    def example(cls) -> Self:
        """No voxel above 45 Gy."""
        return cls(dose_gy=45.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        excess = np.maximum(np.asarray(dose_gy, dtype=np.float64) - self.dose_gy, 0.0)
        top = float(excess.max())
        if top == 0.0:
            return 0.0, np.zeros_like(excess)
        share = voxel_weight / voxel_weight.sum(dtype=np.float64)
        relative = excess / top  # powers of numbers in [0, 1] cannot overflow
        mean_power = float(share @ relative**self.power)
        norm_gy = top * mean_power ** (1.0 / self.power)
        gradient = 2.0 * norm_gy * mean_power ** (1.0 / self.power - 1.0) * share * relative ** (self.power - 1.0)
        return norm_gy**2, gradient


PLUGIN = MaxDose
