"""At least a part of the volume at a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective, hottest_part


class MinDvh(Objective):
    """At least `volume_percent` of the volume shall receive `dose_gy`.

    f = ∫ (d0 - Q(q))₊² dq over the hottest `volume_percent`, Q the dose of the q-th part, in Gy²: the voxels between the
    present D_v and the level, as in matRad and pyRadPlan (Wu and Mohan, Med Phys 27:701, 2000). Not convex: which voxels are
    let off depends on the dose. The gradient is exact where doses at the border differ.
    """

    kind: ClassVar[str] = "min_dvh"
    convex: ClassVar[bool] = False
    dose_gy: float = Field(gt=0, le=200)
    volume_percent: float = Field(gt=0, lt=100)

    @classmethod
    def example(cls) -> Self:
        """D95 at least 50 Gy."""
        return cls(dose_gy=50.0, volume_percent=95.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        dose = np.asarray(dose_gy, dtype=np.float64)
        lack = np.maximum(self.dose_gy - dose, 0.0)
        counted = hottest_part(dose, voxel_weight, self.volume_percent / 100.0)
        pull = lack * counted / voxel_weight.sum(dtype=np.float64)
        return float(pull @ lack), -2.0 * pull


PLUGIN = MinDvh
