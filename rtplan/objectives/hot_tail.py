"""Mean dose of the hottest part above a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective, hottest_part


class HotTail(Objective):
    """Square of the mean dose of the hottest `volume_percent` above `dose_gy`: f = (CVaR - d0)₊², in Gy².

    The convex stand-in for a limit on D_v (Romeijn et al., Phys Med Biol 48:3521, 2003): a tail mean below the level
    proves that D_v is below it. Convex; the gradient jumps where voxels at the border change places.
    """

    kind: ClassVar[str] = "hot_tail"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(ge=0, le=200)
    volume_percent: float = Field(gt=0, le=100)

    @classmethod
    def example(cls) -> Self:
        """The hottest 10 % above 40 Gy."""
        return cls(dose_gy=40.0, volume_percent=10.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        dose = np.asarray(dose_gy, dtype=np.float64)
        tail = hottest_part(dose, voxel_weight, self.volume_percent / 100.0)
        share = tail / tail.sum()
        excess = max(float(share @ dose) - self.dose_gy, 0.0)
        return excess**2, 2.0 * excess * share


PLUGIN = HotTail
