"""CPU `terma`: Numba over slices. See `kernels.contract`."""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, BeamTables, FluenceTable, GridGeometry


def terma(
    electron_density_rel: NDArray[np.floating],
    *,
    grid: GridGeometry,
    beam: BeamGeometry,
    fluence: FluenceTable,
    tables: BeamTables,
) -> NDArray[np.float32]:
    """Energy released per cm³ by energy group, (G, z, y, x). See `kernels.contract`."""
    released = np.zeros((len(tables.terma_per_cm), *grid.shape_zyx), dtype=np.float32)
    _terma(
        np.ascontiguousarray(electron_density_rel, dtype=np.float32),
        np.array(grid.spacing_zyx_mm[::-1]),
        np.array(grid.origin_xyz_mm, dtype=np.float64),
        np.asarray(beam.source_xyz_mm, dtype=np.float64),
        np.ascontiguousarray(beam.axes, dtype=np.float64),
        float(beam.sad_mm),
        fluence.x_edges_mm,
        fluence.y_edges_mm,
        fluence.integral,
        float(tables.depth_step_cm),
        np.ascontiguousarray(tables.terma_per_cm),
        np.ascontiguousarray(tables.off_axis_radius_mm),
        np.ascontiguousarray(tables.off_axis_factor),
        released,
    )
    return released


@njit(cache=True, nogil=True)
def _place(edges, value):
    """Bin of a value in ascending edges and its place within, both held inside the edges."""
    if value <= edges[0]:
        return 0, 0.0
    last = len(edges) - 1
    if value >= edges[last]:
        return last - 1, 1.0
    low = np.searchsorted(edges, value, side="right") - 1
    return low, (value - edges[low]) / (edges[low + 1] - edges[low])


@njit(cache=True, nogil=True)
def _integral(table, jx, fx, jy, fy):
    """Bilinear value of the running integral."""
    low = table[jy, jx] * (1 - fx) + table[jy, jx + 1] * fx
    high = table[jy + 1, jx] * (1 - fx) + table[jy + 1, jx + 1] * fx
    return low * (1 - fy) + high * fy


@njit(cache=True, nogil=True)
def mean_fluence(x_edges, y_edges, table, x, y, width_x, width_y):
    """Mean of a fluence map over a rectangle centred on (x, y), all mm; zero outside the map."""
    jx1, fx1 = _place(x_edges, x - width_x / 2)
    jx2, fx2 = _place(x_edges, x + width_x / 2)
    jy1, fy1 = _place(y_edges, y - width_y / 2)
    jy2, fy2 = _place(y_edges, y + width_y / 2)
    if (jx1 == jx2 and fx1 == fx2) or (jy1 == jy2 and fy1 == fy2):
        return 0.0
    total = _integral(table, jx2, fx2, jy2, fy2) - _integral(table, jx1, fx1, jy2, fy2)
    total += _integral(table, jx1, fx1, jy1, fy1) - _integral(table, jx2, fx2, jy1, fy1)
    # The difference of large sums leaves rounding dust, which would release energy far outside the field.
    if total <= 1e-12 * table[-1, -1]:
        return 0.0
    return total / (width_x * width_y)


@njit(cache=True, nogil=True, error_model="numpy")
def radiological_depth_cm(density, spacing, origin, source, x, y, z):
    """∫ρe dl from the source to the point (x, y, z) mm: from face to face of the voxels on the way (Siddon 1985). cm."""
    shape = density.shape
    target = (x, y, z)
    start = 0.0
    stop = 1.0
    for a in range(3):
        ray = target[a] - source[a]
        low = origin[a] - 0.5 * spacing[a]
        high = low + shape[2 - a] * spacing[a]
        if ray == 0.0:
            if source[a] <= low or source[a] >= high:
                return 0.0
            continue
        t1 = (low - source[a]) / ray
        t2 = (high - source[a]) / ray
        start = max(start, min(t1, t2))
        stop = min(stop, max(t1, t2))
    if start >= stop:
        return 0.0
    index = np.empty(3, dtype=np.int64)
    step = np.empty(3, dtype=np.int64)
    t_next = np.empty(3)
    t_face = np.empty(3)
    for a in range(3):
        ray = target[a] - source[a]
        place = (source[a] + start * ray - origin[a]) / spacing[a] + 0.5
        index[a] = min(max(int(np.floor(place)), 0), shape[2 - a] - 1)
        step[a] = 1 if ray > 0 else -1
        if ray == 0.0:
            t_next[a] = np.inf
            t_face[a] = np.inf
        else:
            t_face[a] = spacing[a] / abs(ray)
            face = origin[a] + (index[a] - 0.5 + (1 if ray > 0 else 0)) * spacing[a]
            t_next[a] = (face - source[a]) / ray
    total = 0.0
    t = start
    while t < stop:
        a = 0
        if t_next[1] < t_next[a]:
            a = 1
        if t_next[2] < t_next[a]:
            a = 2
        end = min(t_next[a], stop)
        if end > t:
            total += (end - t) * density[index[2], index[1], index[0]]
            t = end
        if end >= stop:
            break
        index[a] += step[a]
        t_next[a] += t_face[a]
        if index[a] < 0 or index[a] >= shape[2 - a]:
            break
    length = sqrt((x - source[0]) ** 2 + (y - source[1]) ** 2 + (z - source[2]) ** 2)
    return total * length * 0.1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _terma(
    density, spacing, origin, source, axes, sad, x_edges, y_edges, table, depth_step, terma_per_cm, radius, factor, out
):
    """Fills `out` (G, z, y, x)."""
    n_z, n_y, n_x = density.shape
    n_groups, n_depths = terma_per_cm.shape
    for iz in prange(n_z):
        z = origin[2] + iz * spacing[2]
        for iy in range(n_y):
            y = origin[1] + iy * spacing[1]
            for ix in range(n_x):
                rho = density[iz, iy, ix]
                if rho == 0.0:
                    continue
                x = origin[0] + ix * spacing[0]
                dx, dy, dz = x - source[0], y - source[1], z - source[2]
                away = -(axes[2, 0] * dx + axes[2, 1] * dy + axes[2, 2] * dz)
                if away <= 0.0:
                    continue
                slope_x = (axes[0, 0] * dx + axes[0, 1] * dy + axes[0, 2] * dz) / away
                slope_y = (axes[1, 0] * dx + axes[1, 1] * dy + axes[1, 2] * dz) / away
                # Shadow of the voxel on the isocentre plane, as the box with the same variance.
                width_x = 0.0
                width_y = 0.0
                for a in range(3):
                    width_x += ((axes[0, a] + slope_x * axes[2, a]) * spacing[a]) ** 2
                    width_y += ((axes[1, a] + slope_y * axes[2, a]) * spacing[a]) ** 2
                scale = sad / away
                mean = mean_fluence(
                    x_edges, y_edges, table, slope_x * sad, slope_y * sad, scale * sqrt(width_x), scale * sqrt(width_y)
                )
                if mean == 0.0:
                    continue
                depth = radiological_depth_cm(density, spacing, origin, source, x, y, z) / depth_step
                low = min(int(depth), n_depths - 2)
                rest = min(depth - low, 1.0)
                jr, fr = _place(radius, sad * sqrt(slope_x * slope_x + slope_y * slope_y))
                off_axis = (1 - fr) * factor[jr] + fr * factor[jr + 1]
                common = rho * mean * off_axis * sad * sad / (dx * dx + dy * dy + dz * dz)
                for g in range(n_groups):
                    out[g, iz, iy, ix] = common * ((1 - rest) * terma_per_cm[g, low] + rest * terma_per_cm[g, low + 1])
