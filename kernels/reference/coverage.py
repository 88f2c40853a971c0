"""Reference `split_field`: NumPy float64, voxel by voxel. See `kernels.contract`."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray


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
    """Which fraction of each voxel each beamlet covers. Returns (n,) beamlet, voxel and fraction, ordered by voxel."""
    found: list[tuple[int, int, float]] = []
    places = (np.arange(sub) + 0.5) / sub - 0.5
    for v, centre in zip(voxel, centre_mm.astype(np.float64), strict=True):
        share: dict[int, float] = {}
        for a, b, c in product(places, repeat=3):
            point = centre + spacing_mm[::-1].astype(np.float64) * np.array([c, b, a]) - source_mm
            x, y = (axes[:2] @ point) * sad_mm / -(axes[2] @ point)
            ix, iy = (int(np.floor((p - o) / r)) for p, o, r in zip((x, y), origin_mm, raster_mm, strict=True))
            if 0 <= iy < len(row_of_y) and 0 <= ix < beamlet_of.shape[1] and row_of_y[iy] >= 0:
                beamlet = int(beamlet_of[row_of_y[iy], ix])
                if beamlet >= 0:
                    share[beamlet] = share.get(beamlet, 0.0) + 1.0 / sub**3
        found += [(beamlet, int(v), part) for beamlet, part in share.items()]
    columns = list(zip(*found, strict=True))
    return np.array(columns[0], np.int32), np.array(columns[1], np.int64), np.array(columns[2], np.float32)
