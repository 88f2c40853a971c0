"""Columns of a sparse non-negative matrix in 16 bits: y = A w and its adjoint (Numba, all cores)."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

_PARTS = 4  # a fixed number of partial sums: the result does not depend on the number of threads


@numba.njit(parallel=True, cache=True, fastmath=False)
def apply_columns(
    start: NDArray[np.int64],
    row: NDArray[np.int32],
    level: NDArray[np.uint16],
    scale: NDArray[np.float32],
    weights: NDArray[np.float32],
    n_rows: int,
) -> NDArray[np.float32]:
    """y_r = Σ_j w_j scale_j level_jr. Shapes as in kernels.contract COLUMNS. Returns (n_rows,)."""
    n_columns = len(start) - 1
    partial = np.zeros((_PARTS, n_rows), dtype=np.float32)
    for part in numba.prange(_PARTS):
        for j in range(part * n_columns // _PARTS, (part + 1) * n_columns // _PARTS):
            factor = weights[j] * scale[j]
            if factor != 0.0:
                for e in range(start[j], start[j + 1]):
                    partial[part, row[e]] += factor * level[e]
    out = np.empty(n_rows, dtype=np.float32)
    for r in numba.prange(n_rows):
        total = np.float32(0.0)
        for part in range(_PARTS):
            total += partial[part, r]
        out[r] = total
    return out


@numba.njit(parallel=True, cache=True, fastmath=False)
def adjoint_columns(
    start: NDArray[np.int64],
    row: NDArray[np.int32],
    level: NDArray[np.uint16],
    scale: NDArray[np.float32],
    gradient: NDArray[np.float32],
) -> NDArray[np.float32]:
    """x_j = scale_j Σ_r level_jr g_r. Returns (n_columns,)."""
    n_columns = len(start) - 1
    out = np.empty(n_columns, dtype=np.float32)
    for j in numba.prange(n_columns):
        # Four sums hide the latency of the additions.
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        first, last = start[j], start[j + 1]
        e = first
        while e + 3 < last:
            a += level[e] * gradient[row[e]]
            b += level[e + 1] * gradient[row[e + 1]]
            c += level[e + 2] * gradient[row[e + 2]]
            d += level[e + 3] * gradient[row[e + 3]]
            e += 4
        while e < last:
            a += level[e] * gradient[row[e]]
            e += 1
        out[j] = scale[j] * ((a + b) + (c + d))
    return out
