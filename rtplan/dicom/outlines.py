"""Voxel masks to closed axial contours."""

from __future__ import annotations

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray

from rtplan.domain.grid import Grid
from rtplan.domain.structures import Contour


def outlines(mask: NDArray[np.bool_], grid: Grid) -> tuple[Contour, ...]:
    """Closed contours half-way between the centres of voxels inside and outside, from inferior to superior, mm.

    Marching squares at level 0.5 (contourpy). Holes are contours of their own, so the even-odd rule gives the mask back
    exactly. `mask` is (z, y, x) on `grid`.
    """
    found: list[Contour] = []
    z_mm = grid.z_mm()
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        found += [Contour(float(z_mm[index]), points) for points in _slice_outlines(mask[index], grid)]
    return tuple(found)


def _slice_outlines(mask: NDArray[np.bool_], grid: Grid) -> list[NDArray[np.float64]]:
    """Polygons (n, 2) LPS mm around a mask (y, x) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    r0, c0 = int(rows[0]), int(columns[0])
    # A rim of outside voxels, so that lines close also where the mask reaches the edge of the image.
    padded = np.pad(mask[r0 : rows[-1] + 1, c0 : columns[-1] + 1], 1).astype(np.float64)
    polygons = []
    for line in contour_generator(z=padded, name="serial").lines(0.5):
        index = np.asarray(line, dtype=np.float64)[:-1] + np.array([c0 - 1, r0 - 1])
        corners = index[_turns(index)]
        polygons.append(corners * grid.spacing_zyx_mm[:0:-1] + grid.origin_xyz_mm[:2])
    return polygons


def _turns(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which vertices of a closed polygon are corners; the others lie on straight runs and say nothing."""
    arriving = points - np.roll(points, 1, axis=0)
    leaving = np.roll(points, -1, axis=0) - points
    corner: NDArray[np.bool_] = np.abs(arriving[:, 0] * leaving[:, 1] - arriving[:, 1] * leaving[:, 0]) > 1e-9
    return corner
