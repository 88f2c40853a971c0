"""What the operations on influence columns take and give: sources of the beamlets, lines of the cones, the columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.contract import GridGeometry
from kernels.lines import line_steps


@dataclass(frozen=True, slots=True, eq=False)
class BeamletSources:
    """Voxels that n beamlets release energy in: beamlet j has entries `start`[j] to `start`[j + 1].

    `voxel` flat index and `fraction` of the voxel that the beamlet covers, one each an entry. Beamlets of a block, which
    are neighbours, share their lines: block b holds beamlets `block`[b] to `block`[b + 1].
    """

    start: NDArray[np.int64]
    voxel: NDArray[np.int64]
    fraction: NDArray[np.float32]
    block: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ConeLines:
    """`kernels.lines.line_steps` of all K directions as arrays.

    `axes` (K, 3) array axes of planes, rows, columns; `forward` (K,) whether planes are visited upwards; `row_shift` and
    `column_shift` (K, N) by step, N the longest side; `step_cm` (K,) the path in one voxel.
    """

    axes: NDArray[np.int64]
    forward: NDArray[np.bool_]
    row_shift: NDArray[np.int64]
    column_shift: NDArray[np.int64]
    step_cm: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ConeKernels:
    """What beamlets send into the cones, for rays of H hardnesses along each beamlet's own axis.

    `per_cone` (n, K, H, I) is the part of the released energy in component i, `local` (H,) the part deposited on the spot,
    `exponents_per_cm` (I,). Beyond its last source a line is left after `reach_cm` of radiological path, or where no
    beamlet's deposit in a voxel, over its density, exceeds `negligible` of the most that it releases in any.
    """

    per_cone: NDArray[np.float32]
    local: NDArray[np.float32]
    exponents_per_cm: NDArray[np.float64]
    reach_cm: float
    negligible: float


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """A sparse non-negative matrix by columns, as runs of neighbouring rows: value = `scale`[j] · level.

    Column j has runs `run_start`[j] to `run_start`[j + 1] and levels `level_start`[j] to `level_start`[j + 1]. A run begins
    in row `run_row` and takes the next `run_length` levels. Rows ascend in a column; stored levels may be 0. `updates` is
    the work it took: voxels on cones' lines, for a block of beamlets at once; 0 where it was not counted. The arrays become
    read-only: a device may keep its copies of them.
    """

    run_start: NDArray[np.int64]
    level_start: NDArray[np.int64]
    run_row: NDArray[np.int32]
    run_length: NDArray[np.uint16]
    level: NDArray[np.uint16]
    scale: NDArray[np.float32]
    updates: int = 0

    def __post_init__(self) -> None:
        for array in (self.run_start, self.level_start, self.run_row, self.run_length, self.level, self.scale):
            array.flags.writeable = False

    @property
    def n_bytes(self) -> int:
        """Bytes that the matrix takes."""
        arrays = (self.run_start, self.level_start, self.run_row, self.run_length, self.level, self.scale)
        return sum(a.nbytes for a in arrays)


def cone_lines(directions: NDArray[np.float64], grid: GridGeometry) -> ConeLines:
    """Lines through a grid along unit vectors (K, 3)."""
    steps = [line_steps(d, grid.shape_zyx, grid.spacing_zyx_mm) for d in directions]
    longest = max(grid.shape_zyx)

    def padded(shifts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        return np.stack([np.pad(s, (0, longest - len(s))) for s in shifts])

    return ConeLines(
        np.array([s.axes for s in steps]),
        np.array([s.planes[0] == 0 for s in steps]),
        padded([s.row_shift for s in steps]),
        padded([s.column_shift for s in steps]),
        np.array([s.step_cm for s in steps], np.float32),
    )


def columns_of(rows: Sequence[NDArray[np.int64]], values: Sequence[NDArray[np.floating]]) -> Columns:
    """Columns from each one's ascending rows and positive values, without gaps in runs."""
    scale = np.array([v.max(initial=0.0) / 65535.0 for v in values], np.float32)
    level = [
        np.rint(v / s).astype(np.uint16) if len(v) else np.empty(0, np.uint16) for v, s in zip(values, scale, strict=True)
    ]
    runs = [np.split(r, np.flatnonzero(np.diff(r) != 1) + 1) if len(r) else [] for r in rows]
    return Columns(
        np.concatenate([[0], np.cumsum([len(r) for r in runs])]).astype(np.int64),
        np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64),
        np.array([run[0] for column in runs for run in column], np.int32),
        np.array([len(run) for column in runs for run in column], np.uint16),
        np.concatenate([np.empty(0, np.uint16), *level]),
        scale,
    )


def only_rows(columns: Columns, wanted: NDArray[np.bool_]) -> Columns:
    """The columns without the entries of rows that are not `wanted` (n_rows,); rows keep their numbers."""
    step = max(1, len(columns.scale) // 64)
    return joined(
        _only_rows(columns, wanted, first, min(first + step, len(columns.scale)))
        for first in range(0, len(columns.scale), step)
    )


def _only_rows(columns: Columns, wanted: NDArray[np.bool_], first: int, last: int) -> Columns:
    """`only_rows` of the columns `first` to `last`."""
    runs = slice(columns.run_start[first], columns.run_start[last])
    levels = slice(columns.level_start[first], columns.level_start[last])
    length = columns.run_length[runs].astype(np.int64)
    run = np.repeat(np.arange(len(length)), length)
    row = columns.run_row[runs][run] + np.arange(len(run)) - (np.cumsum(length) - length)[run]
    kept = np.flatnonzero(wanted[row])
    run, row = run[kept], row[kept]
    begins = np.flatnonzero(np.concatenate([[True], (np.diff(run) != 0) | (np.diff(row) != 1)])) if len(kept) else kept
    return Columns(
        np.searchsorted(run[begins], columns.run_start[first : last + 1] - columns.run_start[first]),
        np.searchsorted(kept, columns.level_start[first : last + 1] - columns.level_start[first]),
        row[begins].astype(np.int32),
        np.diff(np.append(begins, len(kept))).astype(np.uint16),
        columns.level[levels][kept],
        columns.scale[first:last],
    )


def joined(parts: Iterable[Columns]) -> Columns:
    """All parts' columns in order. Each part is taken once and may then be freed: there are never two whole copies."""
    updates = 0
    run_start, level_start, scale = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)], []
    run_row, run_length, level = np.empty(0, np.int32), np.empty(0, np.uint16), np.empty(0, np.uint16)
    for part in parts:
        run_start.append(part.run_start[1:] + len(run_row))
        level_start.append(part.level_start[1:] + len(level))
        scale.append(part.scale)
        updates += part.updates
        for whole, own in ((run_row, part.run_row), (run_length, part.run_length), (level, part.level)):
            used = len(whole)
            # Grows where it is: large arrays are moved by the page table, not copied.
            whole.resize(used + len(own), refcheck=False)
            whole[used:] = own
    return Columns(
        np.concatenate(run_start), np.concatenate(level_start), run_row, run_length, level, np.concatenate(scale), updates
    )
