"""Columns of a sparse non-negative matrix in 16 bits: y = A w and its adjoint (specification)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kernels.column_data import Columns


def _entries(columns: Columns) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Rows and values of each column."""
    for j in range(len(columns.scale)):
        runs = slice(columns.run_start[j], columns.run_start[j + 1])
        levels = columns.level[columns.level_start[j] : columns.level_start[j + 1]]
        pairs = zip(columns.run_row[runs], columns.run_length[runs], strict=True)
        rows = [np.arange(r, r + int(n), dtype=np.int64) for r, n in pairs]
        yield np.concatenate([np.empty(0, np.int64), *rows]), np.float64(columns.scale[j]) * levels


def apply_columns(columns: Columns, weights: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
    """y_r = Σ_j w_j scale_j level_jr, (n_rows,)."""
    out = np.zeros(n_rows)
    for weight, (rows, values) in zip(weights, _entries(columns), strict=True):
        out[rows] += np.float64(weight) * values
    return out.astype(np.float32)


def adjoint_columns(columns: Columns, gradient: NDArray[np.float32]) -> NDArray[np.float32]:
    """x_j = scale_j Σ_r level_jr g_r, (n_columns,)."""
    return np.array([values @ gradient[rows].astype(np.float64) for rows, values in _entries(columns)], np.float32)
