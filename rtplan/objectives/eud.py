"""Generalised equivalent uniform dose beyond a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from rtplan.objectives import Float, Objective

FLOOR_GY = 1e-6  # a negative power of zero dose is not a number


class Eud(Objective):
    """Square of the gEUD beyond `dose_gy`, gEUD = (Σ v dᵃ / Σ v)^(1/a), in Gy² (Niemierko, Med Phys 26:1100, 1999).

    a >= 1 (organs, hot voxels count more): f = (gEUD - d0)₊². a < 0 (targets, cold voxels count more): f = (d0 - gEUD)₊².
    Both are convex for dose >= 0 (Choi and Deasy, Phys Med Biol 47:3579, 2002); 0 <= a < 1 is refused.
    """

    kind: ClassVar[str] = "eud"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(ge=0, le=200)
    a: float = Field(ge=-50, le=50)

    @model_validator(mode="after")
    def _a_has_a_meaning(self) -> Self:
        if 0.0 <= self.a < 1.0:
            raise ValueError("a must be at least 1 (organ) or negative (target)")
        return self

    @classmethod
    def example(cls) -> Self:
        """An organ's gEUD with a = 4 above 20 Gy."""
        return cls(dose_gy=20.0, a=4.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        dose = np.maximum(np.asarray(dose_gy, dtype=np.float64), FLOOR_GY)
        share = voxel_weight / voxel_weight.sum(dtype=np.float64)
        scale = float(dose.max() if self.a > 0 else dose.min())  # powers of the ratio stay in [0, 1]
        mean_power = float(share @ (dose / scale) ** self.a)
        eud_gy = scale * mean_power ** (1.0 / self.a)
        beyond = max(eud_gy - self.dose_gy, 0.0) if self.a > 0 else min(eud_gy - self.dose_gy, 0.0)
        return beyond**2, 2.0 * beyond * share * (dose / eud_gy) ** (self.a - 1.0)


PLUGIN = Eud
