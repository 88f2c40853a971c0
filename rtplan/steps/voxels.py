"""Grids that the dose is planned on, and which of their voxels belong to which structure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rtplan.domain.grid import Grid, grid_over
from rtplan.domain.structures import StructureSet
from rtplan.steps.resample import averaged

_ALONG_MM = 40.0  # how far the grid goes on beyond the targets along z: the reach of 6 MV scatter that matters there


def planning_grid(
    structures: StructureSet, names: tuple[str, ...], spacing_mm: float, *, along_mm: float = _ALONG_MM
) -> Grid:
    """Isotropic grid over the cross-section of body and named structures, and along z over the structures plus `along_mm`.

    It never reaches beyond the box of body and named structures by more than one voxel.
    """
    body = np.argwhere(structures.external.mask)
    named = np.argwhere(np.logical_or.reduce([structures[name].mask for name in names]))
    both = np.concatenate([body, named])
    along = along_mm / structures.grid.spacing_zyx_mm[0]
    low, high = both.min(axis=0).astype(float), both.max(axis=0).astype(float)
    low[0], high[0] = max(low[0], named[:, 0].min() - along), min(high[0], named[:, 0].max() + along)
    box_low = structures.grid.to_point_mm(low - 0.5)
    box_high = structures.grid.to_point_mm(high + 0.5)
    return grid_over(
        (float(box_low[0]), float(box_low[1]), float(box_low[2])),
        (float(box_high[0]), float(box_high[1]), float(box_high[2])),
        spacing_mm,
    )


def occupancy(mask: NDArray[np.bool_], source: Grid, target: Grid) -> NDArray[np.float32]:
    """Fraction of each target voxel that a mask on another grid fills, (z, y, x) in 0 to 1. Conserves volume."""
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return np.zeros(target.shape_zyx, dtype=np.float32)
    low, high = ([getattr(s, end) for s in box[0]] for end in ("start", "stop"))
    part = source.cropped((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    filled: NDArray[np.float32] = np.clip(averaged(mask[box[0]].astype(np.float32), part, target), 0.0, 1.0)
    return filled


def voxels_of_interest(structures: StructureSet, grid: Grid) -> NDArray[np.int64]:
    """Flat indices of the grid's voxels that lie at least half in the body, ascending (n,)."""
    return np.flatnonzero(occupancy(structures.external.mask, structures.grid, grid).reshape(-1) >= 0.5)


def voxel_sets(
    structures: StructureSet, names: set[str], grid: Grid, voxel_index: NDArray[np.int64]
) -> Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Rows of the dose vector and their fill fractions for each named structure.

    Voxels filled less than a quarter are left out: their centre's dose says little of the part inside. A structure too
    small to fill any voxel to a quarter keeps its fullest one.
    """
    row_of = np.full(grid.n_voxels, -1, dtype=np.int64)
    row_of[voxel_index] = np.arange(len(voxel_index))
    sets = {}
    for name in sorted(names):
        filled = occupancy(structures[name].mask, structures.grid, grid).reshape(-1)
        least = min(0.25, float(filled.max()))
        voxels = np.flatnonzero((filled >= least) & (filled > 0) & (row_of >= 0))
        sets[name] = (row_of[voxels], filled[voxels].astype(np.float64))
    return sets
