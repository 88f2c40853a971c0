"""Where a goal is judged, seen from the optimiser's grid: the CT's voxel centres in a structure as mixtures of voxels.

A target's coldest voxels lie on its edge, where a coarse grid's voxels are half in and half out. Goals are judged at the
CT's own voxel centres by trilinear interpolation (`dose_in_mask`), so the optimiser looks at the same points alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.grid import Grid
from rtplan.domain.structures import StructureSet

MOST = 20_000  # points a structure: beyond that every k-th voxel stands for its neighbours


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Points in one structure, each the mean of voxels: dose at the points is `mixing` (n, m) times the dose of `rows` (m,).

    `volume_cc` is the structure's whole volume; `chosen` (n,) tells which of its CT voxels, in array order, the points are.
    Of a structure that is `beyond` no voxel lies in the body within the grid, which goes on well beyond the targets.
    """

    rows: NDArray[np.int64]
    mixing: sp.csr_matrix
    volume_cc: float
    chosen: NDArray[np.int64]
    beyond: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", frozen(self.rows, np.int64))
        object.__setattr__(self, "chosen", frozen(self.chosen, np.int64))


def samples_in(structures: StructureSet, name: str, grid: Grid, voxel_index: NDArray[np.int64]) -> Samples:
    """Points of a structure in terms of the voxels `voxel_index` (k,) of a grid, of which rows count.

    Corners that the optimiser does not know (air around the body) are left out of the mean; points without any corner are
    left out altogether.
    """
    mask = structures[name].mask
    index = np.argwhere(mask)
    volume_cc = len(index) * structures.grid.voxel_cc
    chosen = np.arange(0, len(index), max(1, -(-len(index) // MOST)))
    index = index[chosen]
    in_body = structures.external.mask[tuple(index.T)]
    at = grid.to_index(structures.grid.to_point_mm(index.astype(np.float64)))
    on_grid = np.all((at > -0.5) & (at < np.array(grid.shape_zyx) - 0.5), axis=1)
    row_of = np.full(grid.n_voxels, -1, dtype=np.int64)
    row_of[voxel_index] = np.arange(len(voxel_index))
    low = np.floor(at).astype(np.int64)
    rows, weights, points = [], [], []
    for corner in np.ndindex(2, 2, 2):
        place = low + corner
        part = np.prod(np.where(np.array(corner) == 1, at - low, 1.0 - (at - low)), axis=1)
        inside = np.all((place >= 0) & (place < grid.shape_zyx), axis=1) & (part > 0.0)
        row = np.full(len(at), -1, dtype=np.int64)
        row[inside] = row_of[np.ravel_multi_index(tuple(place[inside].T), grid.shape_zyx)]
        known = row >= 0
        rows.append(row[known])
        weights.append(part[known])
        points.append(np.flatnonzero(known))
    unique, column = np.unique(np.concatenate(rows), return_inverse=True)
    mixing = sp.csr_matrix((np.concatenate(weights), (np.concatenate(points), column)), shape=(len(at), len(unique)))
    total = np.asarray(mixing.sum(axis=1)).ravel()
    known = total > 0.0
    made = sp.csr_matrix(sp.diags(1.0 / total[known]) @ mixing[known])
    return Samples(unique, made, volume_cc, chosen[known], beyond=bool(len(index)) and not (on_grid & in_body).any())
