"""Averages of voxel values over another grid's voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rtplan.domain.grid import Grid


def averaged(values: NDArray[np.float32], source: Grid, target: Grid) -> NDArray[np.float32]:
    """Volume average of values (z, y, x) on `source` over the voxels of `target`, float32; nothing beyond the source.

    v'(t) = Σ_s v(s) |s ∩ t| / |t|, which is separable for axis-aligned grids. Conserves the integral to 1e-5 where the
    target covers the source.
    """
    wz, wy, wx = (_overlap(source, target, axis) for axis in range(3))
    out = np.zeros((wz.shape[0], wy.shape[0], wx.shape[0]), np.float32)
    # Plane by plane, so that a large CT never exists in double precision.
    for k in range(wz.shape[0]):
        sources = slice(wz.indptr[k], wz.indptr[k + 1])
        plane = np.zeros(values.shape[1:], np.float64)
        for layer, weight in zip(wz.indices[sources], wz.data[sources], strict=True):
            plane += weight * values[layer]
        if plane.any():
            out[k] = (wx @ (wy @ plane).T).T
    return out


def _overlap(source: Grid, target: Grid, axis: int) -> sparse.csr_matrix:
    """Fraction of each target voxel that each source voxel covers along one axis, (n_target, n_source)."""

    def edges(grid: Grid) -> NDArray[np.float64]:
        low = grid.bounds_mm()[0][2 - axis]
        return low + grid.spacing_zyx_mm[axis] * np.arange(grid.shape_zyx[axis] + 1, dtype=np.float64)

    a, b = edges(source), edges(target)
    shared = np.minimum(b[1:, None], a[None, 1:]) - np.maximum(b[:-1, None], a[None, :-1])
    return sparse.csr_matrix(np.maximum(shared, 0.0) / target.spacing_zyx_mm[axis])
