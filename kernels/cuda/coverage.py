"""CUDA `split_field`: one thread a voxel, first to count its beamlets, then to write them. See `kernels.contract`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.device import device
from kernels.cuda.runtime import Runtime, Source


def source_of(sub: int) -> Source:
    """`coverage.cu` for `sub` points along each side of a voxel."""
    return Source("coverage.cu", (("SUB", sub),), exact=True)


SOURCES = (source_of(3),)


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
    *,
    runtime: Runtime | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Which fraction of each voxel each beamlet covers. Returns (n,) beamlet, voxel and fraction, ordered by voxel."""
    on, source, n = runtime or device(), source_of(sub), len(voxel)
    parts = spacing_mm[::-1], source_mm, np.ravel(axes), [sad_mm], origin_mm, raster_mm
    common = (
        on.put(np.concatenate([np.asarray(p, np.float64) for p in parts])),
        on.put(np.ascontiguousarray(centre_mm, np.float32)),
        np.int32(n),
        on.put(row_of_y.astype(np.int32)),
        np.int32(len(row_of_y)),
        on.put(np.ascontiguousarray(beamlet_of, np.int32)),
        np.int32(beamlet_of.shape[1]),
    )
    counts = on.zeros((n,), np.int64)
    on.start(source, "count_shares", (n, 1), (*common, counts))
    n_shared = on.get(counts)
    first = np.cumsum(n_shared) - n_shared
    total = int(n_shared.sum())
    beamlet, fraction = on.zeros((total,), np.int32), on.zeros((total,), np.float32)
    on.start(source, "write_shares", (n, 1), (*common, on.put(first), beamlet, fraction))
    return on.get(beamlet), np.repeat(voxel, n_shared), on.get(fraction)
