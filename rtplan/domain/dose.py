"""Dose on a grid, and its histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.grid import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Dose:
    """Absorbed dose to medium over the whole course, (z, y, x) float32 Gy."""

    grid: Grid
    dose_gy: NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "dose_gy", frozen(self.dose_gy, np.float32))
        if self.dose_gy.shape != self.grid.shape_zyx:
            raise ValueError("dose does not fit its grid")


def dose_at_index(dose: Dose, index_zyx: NDArray[np.float64]) -> NDArray[np.float32]:
    """Trilinear dose at fractional indices (n, 3); outside the grid it is zero. Returns (n,) Gy."""
    index = np.asarray(index_zyx, dtype=np.float64)
    shape = np.array(dose.grid.shape_zyx)
    inside = np.all((index >= -0.5) & (index <= shape - 0.5), axis=-1)
    # Between the outermost centres and the box the dose is held constant.
    clipped = np.clip(index, 0, shape - 1)
    low = np.minimum(clipped.astype(np.int64), np.maximum(shape - 2, 0))
    fraction = clipped - low
    high = np.minimum(low + 1, shape - 1)
    value = np.zeros(len(index))
    for corner in range(8):
        pick = [(corner >> axis) & 1 for axis in range(3)]
        weight = np.ones(len(index))
        where = []
        for axis in range(3):
            weight *= fraction[:, axis] if pick[axis] else 1 - fraction[:, axis]
            where.append(high[:, axis] if pick[axis] else low[:, axis])
        value += weight * dose.dose_gy[where[0], where[1], where[2]]
    return np.where(inside, value, 0.0).astype(np.float32)


def dose_in_mask(dose: Dose, mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float32]:
    """Dose at the centres of a mask's voxels, where the mask lies on another grid (the CT's). Returns (n,) Gy.

    This is the one definition of a structure's dose in rtplan: histograms, goals and checks all use it.
    """
    index = np.argwhere(mask)
    return dose_at_index(dose, dose.grid.to_index(grid.to_point_mm(index.astype(np.float64))))


@dataclass(frozen=True, slots=True, eq=False)
class Dvh:
    """Cumulative dose-volume histogram: percent of `volume_cc` that receives at least `dose_gy`; both (n,)."""

    structure: str
    volume_cc: float
    dose_gy: NDArray[np.float64]
    volume_percent: NDArray[np.float64]
    min_gy: float
    mean_gy: float
    max_gy: float


def cumulative_dvh(structure: str, dose_gy: NDArray[np.floating], voxel_cc: float, bin_gy: float = 0.1) -> Dvh:
    """Histogram of voxel doses (n,) Gy of equal volumes, in bins of `bin_gy` up to just beyond the maximum."""
    edges = np.arange(0.0, float(dose_gy.max()) + 2 * bin_gy, bin_gy)
    below = np.searchsorted(np.sort(dose_gy), edges, side="left")
    percent = 100.0 * (1.0 - below / dose_gy.size)
    return Dvh(
        structure, dose_gy.size * voxel_cc, edges, percent, float(dose_gy.min()), float(dose_gy.mean()), float(dose_gy.max())
    )
