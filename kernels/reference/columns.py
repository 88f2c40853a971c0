"""Columns of a sparse non-negative matrix in 16 bits: y = A w and its adjoint (specification)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def apply_columns(
    start: NDArray[np.int64],
    row: NDArray[np.int32],
    level: NDArray[np.uint16],
    scale: NDArray[np.float32],
    weights: NDArray[np.float32],
    n_rows: int,
) -> NDArray[np.float32]:
    """y_r = Σ_j w_j scale_j level_jr. Shapes as in kernels.contract COLUMNS. Returns (n_rows,)."""
    out = np.zeros(n_rows)
    for j in range(len(start) - 1):
        part = slice(start[j], start[j + 1])
        np.add.at(out, row[part], np.float64(weights[j]) * np.float64(scale[j]) * level[part])
    return out.astype(np.float32)


def adjoint_columns(
    start: NDArray[np.int64],
    row: NDArray[np.int32],
    level: NDArray[np.uint16],
    scale: NDArray[np.float32],
    gradient: NDArray[np.float32],
) -> NDArray[np.float32]:
    """x_j = scale_j Σ_r level_jr g_r. Returns (n_columns,)."""
    out = np.empty(len(start) - 1)
    for j in range(len(out)):
        part = slice(start[j], start[j + 1])
        out[j] = np.float64(scale[j]) * np.dot(level[part].astype(np.float64), gradient[row[part]].astype(np.float64))
    return out.astype(np.float32)
