"""At most a part of the volume above a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective, hottest_part


class MaxDvh(Objective):
    """At most `volume_percent` of the volume may receive more than `dose_gy`.

    f = ∫ (Q(q) - d0)₊² dq over the volume without its hottest `volume_percent`, Q the dose of the q-th part, in Gy²: the
    voxels between the level and the present D_v, as in matRad and pyRadPlan (Wu and Mohan, Med Phys 27:701, 2000). Not
    convex: which voxels are let off depends on the dose. The gradient is exact where doses at the border differ.
    """

    kind: ClassVar[str] = "max_dvh"
    convex: ClassVar[bool] = False
    dose_gy: float = Field(ge=0, le=200)
    volume_percent: float = Field(gt=0, lt=100)

    @classmethod
    def example(cls) -> Self:
        """V20Gy at most 30 %."""
        return cls(dose_gy=20.0, volume_percent=30.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        dose = np.asarray(dose_gy, dtype=np.float64)
        excess = np.maximum(dose - self.dose_gy, 0.0)
        counted = voxel_weight - hottest_part(dose, voxel_weight, self.volume_percent / 100.0)
        pull = excess * counted / voxel_weight.sum(dtype=np.float64)
        return float(pull @ excess), 2.0 * pull


PLUGIN = MaxDvh
