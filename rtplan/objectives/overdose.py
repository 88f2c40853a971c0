"""Dose above a level."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from rtplan.objectives import Float, Objective


class Overdose(Objective):
    """Mean squared dose above `dose_gy`: f = Σ v (d - d0)₊² / Σ v, in Gy².

    The usual one-sided quadratic (Bortfeld et al., Phys Med Biol 35:1423, 1990). Convex.
    """

    kind: ClassVar[str] = "overdose"
    convex: ClassVar[bool] = True
    dose_gy: float = Field(ge=0, le=200)

    @classmethod
    def example(cls) -> Self:
        """Above 20 Gy."""
        return cls(dose_gy=20.0)

    def value_and_gradient(self, dose_gy: Float, voxel_weight: Float) -> tuple[float, Float]:
        """Value in Gy² and gradient (n,) in Gy."""
        excess = np.maximum(np.asarray(dose_gy, dtype=np.float64) - self.dose_gy, 0.0)
        pull = excess * (voxel_weight / voxel_weight.sum(dtype=np.float64))
        return float(pull @ excess), 2.0 * pull


PLUGIN = Overdose
