"""Closed axial contours to voxel masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.grid import Grid
from rtplan.domain.structures import Contour

# Points this close to a voxel centre, in voxels, count as lying on it: decimal strings and divisions leave noise of 1e-12.
_ON_CENTRE_VOXELS = 1e-6
SNAP_MM = 0.1  # a contour this far from its slice is still on it


def slice_index(contour: Contour, grid: Grid) -> int:
    """Index of the slice that a contour lies on. Raises ValueError when it is 0.1 mm or more away from every slice."""
    index = (contour.z_mm - grid.origin_xyz_mm[2]) / grid.spacing_zyx_mm[0]
    nearest = round(index)
    if not 0 <= nearest < grid.shape_zyx[0] or abs(index - nearest) * grid.spacing_zyx_mm[0] >= SNAP_MM:
        raise ValueError(f"contour at z = {contour.z_mm} mm is on no slice")
    return nearest


def polygon_area_mm2(points_xy_mm: NDArray[np.float64]) -> float:
    """Signed area of a closed polygon (n, 2) mm, by the shoelace formula; positive when x turns towards y."""
    shifted = points_xy_mm - points_xy_mm[0]
    x, y = shifted[:, 0], shifted[:, 1]
    return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Polygon edges in voxel units, each from its lower to its upper row: (n,) arrays, and the contour that each is of."""

    u_low: NDArray[np.float64]
    v_low: NDArray[np.float64]
    u_high: NDArray[np.float64]
    v_high: NDArray[np.float64]
    contour: NDArray[np.int64]

    def crossing(self, edge: NDArray[np.int64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        """Column at which an edge crosses row `v`.

        It is computed from the lower end always, so that an edge drawn there and back (a keyhole) cancels exactly.
        """
        along = (v - self.v_low[edge]) / (self.v_high[edge] - self.v_low[edge])
        return _settled(self.u_low[edge] + along * (self.u_high[edge] - self.u_low[edge]))


def _settled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxel coordinates with the noise around whole numbers removed."""
    whole = np.rint(values)
    return np.where(np.abs(values - whole) < _ON_CENTRE_VOXELS, whole, values)


def _edges(contours: Sequence[Contour], grid: Grid) -> _Edges:
    """Edges of all contours; level ones are left out because no row crosses them."""
    points = np.concatenate([c.points_xy_mm for c in contours])
    counts = np.array([len(c.points_xy_mm) for c in contours])
    u = _settled((points[:, 0] - grid.origin_xyz_mm[0]) / grid.spacing_zyx_mm[2])
    v = _settled((points[:, 1] - grid.origin_xyz_mm[1]) / grid.spacing_zyx_mm[1])
    following = np.arange(len(points)) + 1
    ends = np.cumsum(counts)
    following[ends - 1] = ends - counts
    contour = np.repeat(np.arange(len(contours)), counts)
    rising = v < v[following]
    low = np.where(rising, np.arange(len(points)), following)
    high = np.where(rising, following, np.arange(len(points)))
    keep = v[low] < v[high]
    low, high = low[keep], high[keep]
    return _Edges(u[low], v[low], u[high], v[high], contour[keep])


def _toggles(edges: _Edges, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where the inside changes: contour, row, and first column at or right of the crossing, each (n,).

    Half-open: an edge owns the rows v_low <= row < v_high; a centre on a left boundary is inside, on a right one outside.
    """
    _, ny, nx = grid.shape_zyx
    first = np.clip(np.ceil(edges.v_low), 0, ny).astype(np.int64)
    stop = np.clip(np.ceil(edges.v_high), 0, ny).astype(np.int64)
    count = stop - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    column = np.clip(np.ceil(edges.crossing(edge, row.astype(np.float64))), 0, nx).astype(np.int64)
    return edges.contour[edge], row, column


def rasterise(contours: Sequence[Contour], grid: Grid) -> NDArray[np.bool_]:
    """Mask (z, y, x) of the voxels whose centres lie inside, even-odd over all contours of a slice.

    Even-odd makes holes of any winding, and keyholes, come out alike. A contour so small that it holds no centre marks the
    voxel of its centroid, unless it is a hole. Parts beyond the grid are cut. Raises ValueError for a contour on no slice.
    """
    mask = np.zeros(grid.shape_zyx, dtype=np.bool_)
    if not contours:
        return mask
    slices = np.array([slice_index(c, grid) for c in contours])
    edges = _edges(contours, grid)
    contour, row, column = _toggles(edges, grid)
    if len(contour):
        _fill(mask, slices[contour], row, column)
    for index in np.flatnonzero(~_fills_something(len(contours), contour, row, column, grid)):
        _mark_speck(mask, contours, int(index), slices, edges, grid)
    return mask


def _fill(mask: NDArray[np.bool_], z: NDArray[np.int64], row: NDArray[np.int64], column: NDArray[np.int64]) -> None:
    """Set the voxels between odd and even toggles, within the box that the toggles span."""
    _, _, nx = mask.shape
    z0, z1, r0, r1 = z.min(), z.max() + 1, row.min(), row.max() + 1
    c0, c1 = column.min(), min(column.max(), nx)
    parity = np.zeros((z1 - z0, r1 - r0, c1 - c0 + 1), dtype=np.uint8)
    np.bitwise_xor.at(parity, (z - z0, row - r0, column - c0), np.uint8(1))
    np.bitwise_xor.accumulate(parity, axis=-1, out=parity)
    mask[z0:z1, r0:r1, c0:c1] = parity[:, :, :-1].astype(np.bool_)


def _fills_something(
    n: int, contour: NDArray[np.int64], row: NDArray[np.int64], column: NDArray[np.int64], grid: Grid
) -> NDArray[np.bool_]:
    """Which of the n contours hold at least one voxel centre, each taken alone: those with a toggle that is not undone."""
    width = grid.shape_zyx[2] + 1
    key, times = np.unique((contour * grid.shape_zyx[1] + row) * width + column, return_counts=True)
    lasting = key[times % 2 == 1]
    fills = np.zeros(n, dtype=np.bool_)
    fills[lasting // (width * grid.shape_zyx[1])] = True
    return fills


def _mark_speck(
    mask: NDArray[np.bool_], contours: Sequence[Contour], index: int, slices: NDArray[np.int64], edges: _Edges, grid: Grid
) -> None:
    """Mark the voxel that holds the centroid of a contour too small to hold a centre, unless the contour is a hole."""
    u, v = _centroid(contours[index].points_xy_mm, grid)
    x, y = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
    if not (0 <= x < grid.shape_zyx[2] and 0 <= y < grid.shape_zyx[1]):
        return
    beside = (slices[edges.contour] == slices[index]) & (edges.contour != index)
    level = np.flatnonzero(beside & (edges.v_low <= v) & (v < edges.v_high))
    around = int(np.count_nonzero(edges.crossing(level, np.full(len(level), v)) <= u))
    if around % 2 == 0:
        mask[slices[index], y, x] = True


def _centroid(points_xy_mm: NDArray[np.float64], grid: Grid) -> tuple[float, float]:
    """Centre of area of a polygon in voxel units (column, row); of its points when it has no area."""
    origin = points_xy_mm[0]
    x, y = (points_xy_mm - origin).T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    total = cross.sum()
    if abs(total) > 1e-12:
        centre = (
            np.array([((x + np.roll(x, -1)) * cross).sum(), ((y + np.roll(y, -1)) * cross).sum()]) / (3 * total) + origin
        )
    else:
        centre = points_xy_mm.mean(axis=0)
    return (
        float((centre[0] - grid.origin_xyz_mm[0]) / grid.spacing_zyx_mm[2]),
        float((centre[1] - grid.origin_xyz_mm[1]) / grid.spacing_zyx_mm[1]),
    )
