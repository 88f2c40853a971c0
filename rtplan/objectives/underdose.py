"""Dose below a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective


class Underdose(Objective):
    """Mean squared dose below `dose_gy`: f = Σ v (d0 - d)₊² / Σ v, in Gy².

    The usual one-sided quadratic (Bortfeld et al., Phys Med Biol 35:1423, 1990). Convex.
    """

    kind: ClassVar[str] = "underdose"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(gt=0, le=200)

    @classmethod
    def example(cls) -> Self:
        """Below 40 Gy."""
        return cls(dose_gy=40.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        lack = np.maximum(self.dose_gy - np.asarray(dose_gy, dtype=np.float64), 0.0)
        pull = lack * (voxel_weight / voxel_weight.sum(dtype=np.float64))
        return float(pull @ lack), -2.0 * pull


PLUGIN = Underdose
