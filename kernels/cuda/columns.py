"""CUDA `apply_columns` and `adjoint_columns`: some threads a run of rows. See `kernels.contract` and `columns.cu`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.column_data import Columns
from kernels.cuda.device import device
from kernels.cuda.runtime import Buffer, Runtime, Source

PER_RUN, PARTS = 8, 64
SOURCE = Source("columns.cu", (("PER_RUN", PER_RUN), ("PARTS", PARTS)))
SOURCES = (SOURCE,)
_BITS = 62  # of a signed 64-bit number: one for the sign, one for rounding


def apply_columns(
    columns: Columns, weights: NDArray[np.float32], n_rows: int, *, runtime: Runtime | None = None
) -> NDArray[np.float32]:
    """y_r = Σ_j w_j scale_j level_jr, (n_rows,); the same in any order, since whole numbers are added."""
    on = runtime or device()
    n_runs = len(columns.run_row)
    factor = np.asarray(weights, np.float64) * columns.scale
    largest = float(np.abs(factor).sum()) * np.iinfo(np.uint16).max
    if n_runs == 0 or largest == 0:
        return np.zeros(n_rows, np.float32)
    # A power of two, so that no sum can leave the 64 bits and the products keep all of theirs.
    per_unit = 2.0 ** (_BITS - int(np.ceil(np.log2(largest))) - 1)
    sums = on.zeros((n_rows,), np.uint64)
    run_start, *runs = _runs(on, columns)
    arguments = (run_start, np.int32(len(factor)), np.int64(n_runs), *runs, on.put(factor * per_unit), sums)
    on.start(SOURCE, "add_runs", (n_runs * PER_RUN, 1), arguments)
    out = on.zeros((n_rows,), np.float32)
    on.start(SOURCE, "to_float", (n_rows, 1), (sums, np.float64(1.0 / per_unit), np.int32(n_rows), out))
    return on.get(out)


def adjoint_columns(
    columns: Columns, gradient: NDArray[np.float32], *, runtime: Runtime | None = None
) -> NDArray[np.float32]:
    """x_j = scale_j Σ_r level_jr g_r, (n_columns,)."""
    on = runtime or device()
    n_columns = len(columns.scale)
    run_start, *runs = _runs(on, columns)
    part = on.zeros((n_columns, PARTS), np.float64)
    rows = on.put(np.ascontiguousarray(gradient, np.float32))
    on.start(SOURCE, "dot_runs", (n_columns * PARTS, 1), (run_start, np.int32(n_columns), *runs, rows, part))
    out = on.zeros((n_columns,), np.float32)
    on.start(SOURCE, "add_parts", (n_columns, 1), (part, on.put(columns.scale), np.int32(n_columns), out))
    return on.get(out)


def _runs(on: Runtime, columns: Columns) -> tuple[Buffer, ...]:
    """The matrix on the device: where columns start; where each run's levels start, its row and length; levels."""
    return (
        on.put(columns.run_start),
        on.put(columns.run_length, _first_levels),
        on.put(columns.run_row),
        on.put(columns.run_length),
        on.put(columns.level),
    )


def _first_levels(run_length: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Levels before each run: runs follow one another in `Columns.level`."""
    lengths = run_length.astype(np.int64)
    first: NDArray[np.int64] = np.cumsum(lengths) - lengths
    return first
