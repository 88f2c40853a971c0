"""Mean dose of the coldest part below a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective, hottest_part


class ColdTail(Objective):
    """Square of the mean dose of the coldest `volume_percent` below `dose_gy`: f = (d0 - CVaR)₊², in Gy².

    The convex stand-in for a wish on D_(100 - v) of a target (Romeijn et al., Phys Med Biol 48:3521, 2003): D95 at least d0
    holds when the coldest 5 % reach d0 on average. Convex; the gradient jumps where voxels at the border change places.
    """

    kind: ClassVar[str] = "cold_tail"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(gt=0, le=200)
    volume_percent: float = Field(gt=0, le=100)

    @classmethod
    def example(cls) -> Self:
        """The coldest 5 % below 30 Gy."""
        return cls(dose_gy=30.0, volume_percent=5.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        dose = np.asarray(dose_gy, dtype=np.float64)
        tail = hottest_part(-dose, voxel_weight, self.volume_percent / 100.0)
        share = tail / tail.sum()
        lack = max(self.dose_gy - float(share @ dose), 0.0)
        return lack**2, -2.0 * lack * share


PLUGIN = ColdTail
