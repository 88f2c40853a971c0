"""Beamlets and the linear map from their weights to dose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.beams import Beam
from rtplan.domain.grid import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Beamlets:
    """Beamlets of all beams, ordered by beam, leaf pair, x. Every beamlet lies in one leaf pair's strip.

    All arrays are (n,): index of the beam, index of the leaf pair, and the rectangle at the isocentre plane in mm.
    """

    beams: tuple[Beam, ...]
    beam_index: NDArray[np.int32]
    leaf_pair: NDArray[np.int32]
    x1_mm: NDArray[np.float64]
    x2_mm: NDArray[np.float64]
    y1_mm: NDArray[np.float64]
    y2_mm: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("beam_index", "leaf_pair"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int32))
        for name in ("x1_mm", "x2_mm", "y1_mm", "y2_mm"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.float64))

    def __len__(self) -> int:
        return len(self.beam_index)


class InfluenceOperator(Protocol):
    """Linear map from beamlet weights (MU per fraction) to dose (Gy per fraction) in the voxels of interest.

    `voxel_index` (n_voxels,) int64 are flat indices into `grid`. <A w, g> = <w, A^T g> to rounding.
    """

    @property
    def grid(self) -> Grid:
        """The grid that `voxel_index` points into."""
        ...

    @property
    def voxel_index(self) -> NDArray[np.int64]:
        """(n_voxels,) flat indices."""
        ...

    @property
    def beamlets(self) -> Beamlets:
        """What the columns stand for."""
        ...

    def apply(self, weights_mu: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_beamlets,) MU per fraction to (n_voxels,) Gy per fraction."""
        ...

    def adjoint(self, dose_gradient: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_voxels,) to (n_beamlets,)."""
        ...

    def only(self, rows: NDArray[np.bool_]) -> InfluenceOperator:
        """The operator whose dose is nothing but in `rows` (n_voxels,): less work for those who look at these alone."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FluencePlan:
    """The optimiser's ideal fluence: MU per fraction for each beamlet, and how well it was solved."""

    beamlets: Beamlets
    weights_mu: NDArray[np.float64]
    objective_value: float
    relative_gap: float  # (objective - proven lower bound) / objective; a bound only when every term is convex
    iterations: int
    converged: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights_mu", frozen(self.weights_mu, np.float64))
