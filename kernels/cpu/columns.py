"""Columns of a sparse non-negative matrix in 16 bits: y = A w and its adjoint (Numba, all cores)."""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.column_data import Columns

_PARTS = 4  # a fixed number of partial sums: the result does not depend on the number of threads
_ZERO = np.float32(0)


def apply_columns(columns: Columns, weights: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
    """y_r = Σ_j w_j scale_j level_jr, (n_rows,)."""
    factor = (weights * columns.scale).astype(np.float32)
    c = columns
    out: NDArray[np.float32] = _apply(c.run_start, c.level_start, c.run_row, c.run_length, c.level, factor, n_rows)
    return out


def adjoint_columns(columns: Columns, gradient: NDArray[np.float32]) -> NDArray[np.float32]:
    """x_j = scale_j Σ_r level_jr g_r, (n_columns,)."""
    c = columns
    out: NDArray[np.float32] = _adjoint(c.run_start, c.level_start, c.run_row, c.run_length, c.level, gradient) * c.scale
    return out


@numba.njit(parallel=True, cache=True)
def _apply(run_start, level_start, run_row, run_length, level, factor, n_rows):
    """Sums columns in `_PARTS` parts, then the parts."""

    partial = np.zeros((_PARTS, n_rows), dtype=np.float32)
    for part in numba.prange(_PARTS):
        own = partial[part]
        # Parts of equally many levels: beamlets differ in length.
        for j in range(_column_at(level_start, part), _column_at(level_start, part + 1)):
            if factor[j] != _ZERO:
                _add_column(own, run_row, run_length, run_start[j], run_start[j + 1], level, level_start[j], factor[j])
    out = np.empty(n_rows, dtype=np.float32)
    for r in numba.prange(n_rows):
        out[r] = (partial[0, r] + partial[1, r]) + (partial[2, r] + partial[3, r])
    return out


@numba.njit(cache=True)
def _column_at(level_start, part):
    """First column of a part."""
    return np.searchsorted(level_start[:-1], part * level_start[-1] // _PARTS) if part < _PARTS else len(level_start) - 1


@numba.njit(cache=True, fastmath=True)
def _add_column(out, run_row, run_length, first, last, level, at, factor):
    """Adds factor · column to `out`."""
    for run in range(first, last):
        row, length = run_row[run], int(run_length[run])
        target, values = out[row : row + length], level[at : at + length]
        for i in range(length):
            target[i] += factor * np.float32(np.int32(values[i]))
        at += length


@numba.njit(cache=True, fastmath=True)
def _dot_column(gradient, run_row, run_length, first, last, level, at):
    """Σ level · gradient over a column; single precision within a run, double over runs."""
    total = np.float64(0)
    for run in range(first, last):
        row, length = run_row[run], int(run_length[run])
        source, values = gradient[row : row + length], level[at : at + length]
        part = np.float32(0)
        for i in range(length):
            part += source[i] * np.float32(np.int32(values[i]))
        total += part
        at += length
    return total


@numba.njit(parallel=True, cache=True)
def _adjoint(run_start, level_start, run_row, run_length, level, gradient):
    """Every column by itself."""
    n = len(run_start) - 1
    out = np.empty(n, dtype=np.float32)
    for j in numba.prange(n):
        out[j] = _dot_column(gradient, run_row, run_length, run_start[j], run_start[j + 1], level, level_start[j])
    return out
