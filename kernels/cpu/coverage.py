"""How beamlets share the voxels of a beam (Numba, one core; releases the GIL)."""

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
    points = _points(spacing_mm, axes, sub)
    for v in range(len(voxel)):
        first = count
        px, py, pz = centre_mm[v, 0] - source_mm[0], centre_mm[v, 1] - source_mm[1], centre_mm[v, 2] - source_mm[2]
        centre_x = px * axes[0, 0] + py * axes[0, 1] + pz * axes[0, 2]
        centre_y = px * axes[1, 0] + py * axes[1, 1] + pz * axes[1, 2]
        centre_z = px * axes[2, 0] + py * axes[2, 1] + pz * axes[2, 2]
        for p in range(len(points)):
            scale = -sad_mm / (centre_z + points[p, 2])
            iy = int(np.floor(((centre_y + points[p, 1]) * scale - origin_mm[1]) / raster_mm[1]))
            ix = int(np.floor(((centre_x + points[p, 0]) * scale - origin_mm[0]) / raster_mm[0]))
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
def _points(spacing_mm, axes, sub):  # type: ignore[no-untyped-def]
    """Points of a voxel about its centre in beam coordinates, (sub³, 3) mm."""
    points = np.empty((sub * sub * sub, 3))
    for n in range(len(points)):
        z, y, x = n // (sub * sub), n // sub % sub, n % sub
        px = spacing_mm[2] * ((x + 0.5) / sub - 0.5)
        py = spacing_mm[1] * ((y + 0.5) / sub - 0.5)
        pz = spacing_mm[0] * ((z + 0.5) / sub - 0.5)
        for a in range(3):
            points[n, a] = px * axes[a, 0] + py * axes[a, 1] + pz * axes[a, 2]
    return points


@numba.njit(nogil=True, cache=True)
def _grown(array, capacity):  # type: ignore[no-untyped-def]
    larger = np.empty(capacity, array.dtype)
    larger[: len(array)] = array
    return larger
