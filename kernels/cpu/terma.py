"""CPU `terma`: Numba over slices. See `kernels.contract`."""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, BeamTables, FluenceTable, GridGeometry, Released
from kernels.cpu.depth import ray_depths
from kernels.rays import lit_box, raster


def terma(
    electron_density_rel: NDArray[np.floating],
    *,
    grid: GridGeometry,
    beam: BeamGeometry,
    fluence: FluenceTable,
    tables: BeamTables,
) -> Released:
    """Energy released per cm³ by each group in the lit box. See `kernels.contract`."""
    box = lit_box(grid, beam, fluence)
    start = (box[0].start, box[1].start, box[2].start)
    rays = raster(grid, beam, fluence)
    released = np.zeros((tables.terma_per_cm.shape[1], *(s.stop - s.start for s in box)), dtype=np.float32)
    if released.size == 0:
        return Released(start, released)
    density = np.ascontiguousarray(electron_density_rel, dtype=np.float32)
    _terma(
        density,
        np.array(grid.spacing_zyx_mm[::-1]),
        np.array(grid.origin_xyz_mm, dtype=np.float64),
        np.asarray(beam.source_xyz_mm, dtype=np.float64),
        np.ascontiguousarray(beam.axes, dtype=np.float64),
        float(beam.sad_mm),
        (
            fluence.x_edges_mm,
            fluence.y_edges_mm,
            _per_mm(fluence.x_edges_mm),
            _per_mm(fluence.y_edges_mm),
            fluence.integral,
        ),
        ray_depths(density, grid, beam, rays),
        (float(rays.first_x), float(rays.first_y), rays.step_mm, rays.start_mm, rays.node_mm),
        float(tables.depth_step_cm),
        np.ascontiguousarray(tables.terma_per_cm.transpose(0, 2, 1)),
        np.ascontiguousarray(tables.softening_radius_mm),
        np.ascontiguousarray(tables.off_axis_radius_mm),
        np.ascontiguousarray(tables.off_axis_factor),
        np.array(start),
        released,
    )
    return Released(start, released)


def _per_mm(edges: NDArray[np.float64]) -> float:
    """Bins per mm where all are equally wide, else 0."""
    widths = np.diff(edges)
    return float(1.0 / widths[0]) if np.ptp(widths) <= 1e-9 * widths[0] else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def _place(edges, per_mm, value):
    """Bin of a value in ascending edges and its place within, both held inside the edges."""
    last = len(edges) - 1
    if value <= edges[0]:
        return 0, 0.0
    if value >= edges[last]:
        return last - 1, 1.0
    if per_mm > 0.0:
        place = (value - edges[0]) * per_mm
        low = min(int(place), last - 1)
        return low, place - low
    low = np.searchsorted(edges, value, side="right") - 1
    return low, (value - edges[low]) / (edges[low + 1] - edges[low])


@njit(cache=True, nogil=True, error_model="numpy")
def _between(radius, value):
    """As `_place` for a short table."""
    last = len(radius) - 1
    if value >= radius[last]:
        return last - 1, 1.0
    low = 0
    while value >= radius[low + 1]:
        low += 1
    return low, max((value - radius[low]) / (radius[low + 1] - radius[low]), 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _integral(table, jx, fx, jy, fy):
    """Bilinear value of the running integral."""
    low = table[jy, jx] * (1 - fx) + table[jy, jx + 1] * fx
    high = table[jy + 1, jx] * (1 - fx) + table[jy + 1, jx + 1] * fx
    return low * (1 - fy) + high * fy


@njit(cache=True, nogil=True, error_model="numpy")
def _mean_fluence(fluence, x, y, width_x, width_y):
    """Mean of a fluence map over a rectangle centred on (x, y), all mm; zero outside the map."""
    x_edges, y_edges, x_per_mm, y_per_mm, table = fluence
    if x + width_x / 2 <= x_edges[0] or x - width_x / 2 >= x_edges[-1]:
        return 0.0
    if y + width_y / 2 <= y_edges[0] or y - width_y / 2 >= y_edges[-1]:
        return 0.0
    jx1, fx1 = _place(x_edges, x_per_mm, x - width_x / 2)
    jx2, fx2 = _place(x_edges, x_per_mm, x + width_x / 2)
    jy1, fy1 = _place(y_edges, y_per_mm, y - width_y / 2)
    jy2, fy2 = _place(y_edges, y_per_mm, y + width_y / 2)
    total = _integral(table, jx2, fx2, jy2, fy2) - _integral(table, jx1, fx1, jy2, fy2)
    total += _integral(table, jx1, fx1, jy1, fy1) - _integral(table, jx2, fx2, jy1, fy1)
    # The difference of large sums leaves rounding dust, which would release energy far outside the field.
    if total <= 1e-12 * table[-1, -1]:
        return 0.0
    return total / (width_x * width_y)


@njit(cache=True, nogil=True, error_model="numpy")
def _depth_cm(depths, rays, x, y, along):
    """Depth at a point of the isocentre plane and a distance along the axis, linear between the raster's nodes."""
    first_x, first_y, step, start, node = rays
    n_y, n_x, n_nodes = depths.shape
    px = min(max(x / step - 0.5 - first_x, 0.0), n_x - 1.0)
    py = min(max(y / step - 0.5 - first_y, 0.0), n_y - 1.0)
    pn = min(max((along - start) / node, 0.0), n_nodes - 1.0)
    jx, jy, n = min(int(px), n_x - 2), min(int(py), n_y - 2), min(int(pn), n_nodes - 2)
    fx, fy, fn = px - jx, py - jy, pn - n
    low = (1 - fx) * depths[jy, jx, n] + fx * depths[jy, jx + 1, n]
    low_next = (1 - fx) * depths[jy, jx, n + 1] + fx * depths[jy, jx + 1, n + 1]
    high = (1 - fx) * depths[jy + 1, jx, n] + fx * depths[jy + 1, jx + 1, n]
    high_next = (1 - fx) * depths[jy + 1, jx, n + 1] + fx * depths[jy + 1, jx + 1, n + 1]
    return (1 - fy) * ((1 - fn) * low + fn * low_next) + fy * ((1 - fn) * high + fn * high_next)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _terma(
    density,
    spacing,
    origin,
    source,
    axes,
    sad,
    fluence,
    depths,
    rays,
    depth_step,
    terma_per_cm,
    softening_radius,
    off_axis_radius,
    off_axis_factor,
    start,
    out,
):
    """Fills `out` (G, z, y, x) of the box."""
    n_groups, n_z, n_y, n_x = out.shape
    n_depths = terma_per_cm.shape[1]
    deepest = np.inf if np.any(terma_per_cm[:, n_depths - 1] != 0) else float(n_depths - 1)
    margin = sqrt(spacing[0] ** 2 + spacing[1] ** 2 + spacing[2] ** 2)
    for iz in prange(n_z):
        z = origin[2] + (start[0] + iz) * spacing[2]
        for iy in range(n_y):
            y = origin[1] + (start[1] + iy) * spacing[1]
            at = (origin[0] + start[2] * spacing[0] - source[0], y - source[1], z - source[2])
            first, last = _lit_columns(at, spacing[0], axes, sad, fluence[0], fluence[1], margin, n_x)
            for ix in range(first, last):
                rho = density[start[0] + iz, start[1] + iy, start[2] + ix]
                if rho == 0.0:
                    continue
                dx, dy, dz = at[0] + ix * spacing[0], at[1], at[2]
                away = -(axes[2, 0] * dx + axes[2, 1] * dy + axes[2, 2] * dz)
                slope_x = (axes[0, 0] * dx + axes[0, 1] * dy + axes[0, 2] * dz) / away
                slope_y = (axes[1, 0] * dx + axes[1, 1] * dy + axes[1, 2] * dz) / away
                # Shadow of the voxel on the isocentre plane, as the box with the same variance.
                width_x = 0.0
                width_y = 0.0
                for a in range(3):
                    width_x += ((axes[0, a] + slope_x * axes[2, a]) * spacing[a]) ** 2
                    width_y += ((axes[1, a] + slope_y * axes[2, a]) * spacing[a]) ** 2
                scale = sad / away
                at_x, at_y = slope_x * sad, slope_y * sad
                depth = _depth_cm(depths, rays, at_x, at_y, away) / depth_step
                if depth >= deepest:
                    continue
                mean = _mean_fluence(fluence, at_x, at_y, scale * sqrt(width_x), scale * sqrt(width_y))
                if mean == 0.0:
                    continue
                low = min(int(depth), n_depths - 2)
                fd = min(depth - low, 1.0)
                radius = sqrt(at_x * at_x + at_y * at_y)
                jo, fo = _between(off_axis_radius, radius)
                js, fs = _between(softening_radius, radius)
                off_axis = (1 - fo) * off_axis_factor[jo] + fo * off_axis_factor[jo + 1]
                common = rho * mean * off_axis * sad * sad / (dx * dx + dy * dy + dz * dz)
                for g in range(n_groups):
                    inner = (1 - fd) * terma_per_cm[js, low, g] + fd * terma_per_cm[js, low + 1, g]
                    outer = (1 - fd) * terma_per_cm[js + 1, low, g] + fd * terma_per_cm[js + 1, low + 1, g]
                    out[g, iz, iy, ix] = common * ((1 - fs) * inner + fs * outer)


@njit(cache=True, nogil=True, error_model="numpy")
def _lit_columns(at, step, axes, sad, x_edges, y_edges, margin, n_x):
    """First and one past the last column of a row whose voxels' shadows can touch the fluence map.

    `at` is the first voxel's centre seen from the source. Its place p across the beam stays below an edge e, widened by a
    voxel's diagonal, as long as SAD p - e away - SAD margin <= 0: linear in the column.
    """
    first, last = 0.0, n_x - 1.0
    away = -(axes[2, 0] * at[0] + axes[2, 1] * at[1] + axes[2, 2] * at[2])
    away_step = -axes[2, 0] * step
    first, last = _not_above(-away, -away_step, first, last)
    for a in range(2):
        edges = x_edges if a == 0 else y_edges
        p = sad * (axes[a, 0] * at[0] + axes[a, 1] * at[1] + axes[a, 2] * at[2])
        p_step = sad * axes[a, 0] * step
        first, last = _not_above(p - edges[-1] * away - sad * margin, p_step - edges[-1] * away_step, first, last)
        first, last = _not_above(edges[0] * away - p - sad * margin, edges[0] * away_step - p_step, first, last)
    return max(int(np.floor(first)), 0), min(int(np.ceil(last)) + 1, n_x) if last >= first else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _not_above(value, step, first, last):
    """The part of [first, last] where value + step c <= 0."""
    if step > 0.0:
        return first, min(last, -value / step)
    if step < 0.0:
        return max(first, -value / step), last
    return (first, last) if value <= 0.0 else (1.0, 0.0)
