"""Dose columns of narrow beamlets by walking every source voxel's cone lines (Numba, one core; releases the GIL)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True, fastmath=False)
def split_field(
    voxel: NDArray[np.int64],
    centre_mm: NDArray[np.float32],
    spacing_mm: NDArray[np.float32],
    source_mm: NDArray[np.float64],
    axes: NDArray[np.float64],
    sad_mm: float,
    row_of_y: NDArray[np.int32],
    beamlet_of: NDArray[np.int32],
    origin_mm: NDArray[np.float64],
    raster_mm: NDArray[np.float64],
    sub: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Which fraction of each voxel each beamlet covers, by `sub`³ points projected from the source.

    `beamlet_of` (n_rows, n_columns) is -1 where there is no beamlet; `row_of_y` maps rasterised y to a row.
    Returns (n,) beamlet, voxel and fraction, ordered by voxel.
    """
    capacity = 4 * len(voxel) + 64
    out_beamlet = np.empty(capacity, np.int32)
    out_voxel = np.empty(capacity, np.int64)
    out_fraction = np.empty(capacity, np.float32)
    count = 0
    share = np.float32(1.0 / (sub * sub * sub))
    for v in range(len(voxel)):
        first = count
        for a in range(sub):
            for b in range(sub):
                for c in range(sub):
                    px = centre_mm[v, 0] + spacing_mm[2] * ((c + 0.5) / sub - 0.5) - source_mm[0]
                    py = centre_mm[v, 1] + spacing_mm[1] * ((b + 0.5) / sub - 0.5) - source_mm[1]
                    pz = centre_mm[v, 2] + spacing_mm[0] * ((a + 0.5) / sub - 0.5) - source_mm[2]
                    away = -(px * axes[2, 0] + py * axes[2, 1] + pz * axes[2, 2])
                    x = (px * axes[0, 0] + py * axes[0, 1] + pz * axes[0, 2]) * sad_mm / away
                    y = (px * axes[1, 0] + py * axes[1, 1] + pz * axes[1, 2]) * sad_mm / away
                    iy = int(np.floor((y - origin_mm[1]) / raster_mm[1]))
                    ix = int(np.floor((x - origin_mm[0]) / raster_mm[0]))
                    if iy < 0 or iy >= len(row_of_y) or ix < 0 or ix >= beamlet_of.shape[1] or row_of_y[iy] < 0:
                        continue
                    j = beamlet_of[row_of_y[iy], ix]
                    if j < 0:
                        continue
                    e = first
                    while e < count and out_beamlet[e] != j:
                        e += 1
                    if e == count:
                        if count == capacity:
                            capacity = 2 * capacity
                            out_beamlet = _grown(out_beamlet, capacity)
                            out_voxel = _grown(out_voxel, capacity)
                            out_fraction = _grown(out_fraction, capacity)
                        out_beamlet[count], out_voxel[count], out_fraction[count] = j, voxel[v], np.float32(0.0)
                        count += 1
                    out_fraction[e] += share
    return out_beamlet[:count], out_voxel[:count], out_fraction[:count]


@numba.njit(nogil=True, cache=True)
def _grown(array, capacity):  # type: ignore[no-untyped-def]
    larger = np.empty(capacity, array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(nogil=True, cache=True, fastmath=True)
def _walk(  # type: ignore[no-untyped-def]
    source_voxel,
    source_energy,
    source_kernel,
    density_rel,
    offset_zyx,
    step_cm,
    cumulative,
    reach,
    per_cm,
    energy,
    stamp,
    mark,
):
    """Adds one beamlet's energy to `energy` (flat); returns the lowest and the highest voxel touched."""
    nz, ny, nx = density_rel.shape
    flat_density = density_rel.reshape(-1)
    lowest, highest = density_rel.size, -1
    for s in range(len(source_voxel)):
        z0 = source_voxel[s] // (ny * nx)
        y0 = (source_voxel[s] // nx) % ny
        x0 = source_voxel[s] % nx
        released = source_energy[s]
        kernel = source_kernel[s]
        for k in range(len(step_cm)):
            path, before = np.float32(0.0), np.float32(0.0)
            step = step_cm[k] * per_cm
            for n in range(offset_zyx.shape[1]):
                z, y, x = z0 + offset_zyx[k, n, 0], y0 + offset_zyx[k, n, 1], x0 + offset_zyx[k, n, 2]
                if z < 0 or z >= nz or y < 0 or y >= ny or x < 0 or x >= nx:
                    break
                v = (z * ny + y) * nx + x
                # Half a voxel: the source sits at the centre of its own voxel.
                path += flat_density[v] * step * (np.float32(0.5) if n == 0 else np.float32(1.0))
                m = int(path)
                if m >= reach[k]:
                    break
                low = cumulative[kernel, k, m]
                after = low + (path - m) * (cumulative[kernel, k, m + 1] - low)
                if stamp[v] != mark:
                    stamp[v] = mark
                    energy[v] = np.float32(0.0)
                    lowest, highest = min(lowest, v), max(highest, v)
                energy[v] += released * (after - before)
                before = after
    return lowest, highest


@numba.njit(nogil=True, cache=True, fastmath=False)
def deposit_columns(
    source_start: NDArray[np.int64],
    source_voxel: NDArray[np.int64],
    source_energy: NDArray[np.float32],
    source_kernel: NDArray[np.uint8],
    density_rel: NDArray[np.float32],
    dose_per_energy: NDArray[np.float32],
    row_of: NDArray[np.int32],
    offset_zyx: NDArray[np.int16],
    step_cm: NDArray[np.float32],
    cumulative: NDArray[np.float32],
    reach: NDArray[np.int64],
    table_step_cm: float,
    threshold: float,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint16], NDArray[np.float32]]:
    """Columns of the influence matrix for consecutive beamlets, 16 bits a value.

    Entries below `threshold` times the column's largest are left out. Shapes and units as in kernels.contract INFLUENCE.
    Returns start (n + 1,), row (nnz,), level (nnz,), scale (n,): dose = scale · level.
    """
    n = len(source_start) - 1
    size = density_rel.size
    energy = np.zeros(size, np.float32)
    stamp = np.full(size, -1, np.int32)
    start = np.zeros(n + 1, np.int64)
    scale = np.zeros(n, np.float32)
    capacity = 1 << 16
    row = np.empty(capacity, np.int32)
    level = np.empty(capacity, np.uint16)
    used = 0
    for j in range(n):
        a, b = source_start[j], source_start[j + 1]
        lowest, highest = _walk(
            source_voxel[a:b],
            source_energy[a:b],
            source_kernel[a:b],
            density_rel,
            offset_zyx,
            step_cm,
            cumulative,
            reach,
            np.float32(1.0 / table_step_cm),
            energy,
            stamp,
            j,
        )
        largest, count = np.float32(0.0), 0
        for v in range(lowest, highest + 1):
            if stamp[v] == j and row_of[v] >= 0:
                energy[v] *= dose_per_energy[v]
                largest = max(largest, energy[v])
                count += 1
        if used + count > capacity:
            capacity = 2 * (used + count)
            row, level = _grown(row, capacity), _grown(level, capacity)
        scale[j] = largest / np.float32(65535.0)
        # Ascending rows: the operator then walks through the dose in order.
        for v in range(lowest, highest + 1):
            if stamp[v] == j and row_of[v] >= 0 and energy[v] > np.float32(threshold) * largest:
                row[used] = row_of[v]
                level[used] = np.uint16(np.rint(energy[v] / scale[j]))
                used += 1
        start[j + 1] = used
    return start, row[:used].copy(), level[:used].copy(), scale
