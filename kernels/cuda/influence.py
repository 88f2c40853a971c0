"""CUDA `deposit_columns`: a few threads a cone line, blocks side by side. See `kernels.contract` and `influence.cu`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.column_data import BeamletSources, Columns, ConeKernels, ConeLines, joined
from kernels.cuda.device import device
from kernels.cuda.runtime import SERIES_BELOW, Buffer, Runtime, Source

LANES = 16  # beamlets of a block at most: a voxel's energies are then two sectors of memory
PER_THREAD = 4  # of them: more would want more registers than leave room for other threads
CHUNK = 1024  # voxels that a thread turns into runs
BRIDGED = 3  # rows left out between two runs that cost less as zeros than a new run
BYTES_AT_ONCE = 4 << 30  # of the energies of the blocks that stand side by side


def source_of(n_components: int, ratio: int) -> Source:
    """`influence.cu` for so many components, each exponent `ratio` times the one before."""
    sizes = ("LANES", LANES), ("PER_THREAD", PER_THREAD), ("COMPONENTS", n_components), ("RATIO", ratio)
    return Source("influence.cu", (*sizes, ("CHUNK", CHUNK), ("BRIDGED", BRIDGED), ("SERIES_BELOW", SERIES_BELOW)))


SOURCES = (source_of(9, 2),)


@dataclass(frozen=True, slots=True)
class _Patient:
    """What all blocks share, on the device."""

    density: Buffer
    released: Buffer
    hardness: Buffer
    dose_per_energy: Buffer
    row_of: Buffer
    n_voxels: int

    @property
    def n_chunks(self) -> int:
        """Parts in which voxels are turned into runs."""
        return -(-self.n_voxels // CHUNK)


@dataclass(frozen=True, slots=True)
class _Cones:
    """Lines and kernels of the cones on the device; `table` (K, 10) is `Cone` of the .cu file.

    `n_places` is the most rows times columns that the lines of a cone can start in.
    """

    n_places: int
    table: Buffer
    row_shift: Buffer
    column_shift: Buffer
    offset: Buffer
    step_cm: NDArray[np.float32]
    local: Buffer
    smallest_per_cm: float
    reach_cm: float
    negligible: float


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Some blocks on the device: their sources, and share, energy [block][voxel][lane], the chunks of voxels reached."""

    sources: BeamletSources
    start: Buffer
    block: Buffer
    voxel: Buffer
    block_of: Buffer
    limit: Buffer
    share: Buffer
    energy: Buffer
    touched: Buffer


def deposit_columns(
    density_rel: NDArray[np.float32],
    released: NDArray[np.float32],
    hardness: NDArray[np.uint8],
    sources: BeamletSources,
    kernels: ConeKernels,
    lines: ConeLines,
    dose_per_energy: NDArray[np.float32],
    row_of: NDArray[np.int32],
    threshold: float,
    *,
    runtime: Runtime | None = None,
) -> Columns:
    """Columns of the influence matrix. See `kernels.contract`.

    Raises ValueError for exponents in another ratio than 2 or 3, or blocks of more than 16 beamlets.
    """
    on = runtime or device()
    source = _checked(sources, kernels)
    patient = _Patient(
        on.put(np.ascontiguousarray(density_rel, np.float32)),
        on.put(np.ascontiguousarray(released, np.float32)),
        on.put(np.ascontiguousarray(hardness, np.uint8)),
        on.put(np.ascontiguousarray(dose_per_energy, np.float32)),
        on.put(np.ascontiguousarray(row_of, np.int32)),
        density_rel.size,
    )
    cones = _cones(on, density_rel.shape, kernels, lines)
    at_once = max(1, BYTES_AT_ONCE // (2 * 4 * LANES * patient.n_voxels))
    n_blocks = len(sources.block) - 1

    def part(first: int) -> Columns:
        last = min(first + at_once, n_blocks)
        a, b = int(sources.block[first]), int(sources.block[last])
        blocks = _placed(on, source, patient, _some(sources, first, last), cones)
        _follow(on, source, patient, cones, blocks, on.put(np.ascontiguousarray(kernels.per_cone[a:b], np.float32)))
        return _collected(on, source, patient, cones, blocks, threshold)

    return joined(part(first) for first in range(0, n_blocks, at_once))


def _checked(sources: BeamletSources, kernels: ConeKernels) -> Source:
    """The .cu file for these exponents."""
    exponents, largest = kernels.exponents_per_cm, int(np.diff(sources.block).max(initial=0))
    ratio = round(float(exponents[1] / exponents[0])) if len(exponents) > 1 else 2
    if ratio not in (2, 3) or not np.allclose(exponents, exponents[0] * float(ratio) ** np.arange(len(exponents))):
        raise ValueError(f"exponents {exponents} per cm: each must be 2 or 3 times the one before")
    if largest > LANES:
        raise ValueError(f"blocks of {largest} beamlets: at most {LANES}")
    return source_of(len(exponents), ratio)


def _some(sources: BeamletSources, first: int, last: int) -> BeamletSources:
    """Blocks `first` to `last` alone."""
    a, b = sources.block[first], sources.block[last]
    entries = slice(int(sources.start[a]), int(sources.start[b]))
    start = sources.start[a : b + 1] - sources.start[a]
    return BeamletSources(start, sources.voxel[entries], sources.fraction[entries], sources.block[first : last + 1] - a)


def _cones(on: Runtime, shape_zyx: tuple[int, ...], kernels: ConeKernels, lines: ConeLines) -> _Cones:
    """Every cone's `Cone`, and where each step of a line lies from the line's own row and column."""
    n_y, n_x = shape_zyx[1:]
    strides, shape = np.array([n_y * n_x, n_x, 1]), np.array(shape_zyx)
    table = np.zeros((len(lines.step_cm), 10), np.int32)
    offset, n_places = np.zeros(lines.row_shift.shape, np.int32), 0
    for k, axes in enumerate(lines.axes):
        n = int(shape[axes[0]])
        rows, columns = lines.row_shift[k, :n], lines.column_shift[k, :n]
        planes = np.arange(n) if lines.forward[k] else np.arange(n)[::-1]
        table[k, :3], table[k, 3:6], table[k, 6] = shape[axes], strides[axes], lines.forward[k]
        # Lines that start outside the grid come before its first row and column.
        table[k, 7:9] = max(rows[-1], 0), max(columns[-1], 0)
        table[k, 9] = shape[axes[2]] + abs(columns[-1])
        n_places = max(n_places, int(table[k, 9]) * int(shape[axes[1]] + abs(rows[-1])))
        offset[k, :n] = planes * strides[axes[0]] + rows * strides[axes[1]] + columns * strides[axes[2]]
    return _Cones(
        n_places,
        on.put(table),
        on.put(lines.row_shift),
        on.put(lines.column_shift),
        on.put(offset),
        lines.step_cm,
        on.put(np.ascontiguousarray(kernels.local, np.float32)),
        float(kernels.exponents_per_cm[0]),
        kernels.reach_cm,
        kernels.negligible,
    )


def _placed(on: Runtime, source: Source, patient: _Patient, sources: BeamletSources, cones: _Cones) -> _Blocks:
    """Blocks whose sources lie in their lanes, with nothing deposited yet."""
    n_blocks, n_entries = len(sources.block) - 1, len(sources.voxel)
    n_lanes = n_blocks * LANES
    share = on.zeros((n_lanes * patient.n_voxels,), np.float32)
    most, limit = on.zeros((n_lanes,), np.int32), on.zeros((n_lanes,), np.float32)
    blocks = _Blocks(
        sources,
        on.put(sources.start),
        on.put(sources.block),
        on.put(np.ascontiguousarray(sources.voxel, np.int64)),
        on.zeros((n_entries,), np.int32),
        limit,
        share,
        on.zeros((n_lanes * patient.n_voxels,), np.float32),
        on.zeros((n_blocks * patient.n_chunks,), np.uint8),
    )
    arguments = (
        *(blocks.start, np.int32(len(sources.start) - 1), blocks.block, np.int32(n_blocks), blocks.voxel),
        *(on.put(np.ascontiguousarray(sources.fraction, np.float32)), np.int64(n_entries)),
        *(patient.released, np.int64(patient.n_voxels), share, blocks.block_of, most, blocks.touched),
        np.int32(patient.n_chunks),
    )
    on.start(source, "place_sources", (n_entries, 1), arguments)
    limits = (most.view(np.float32), np.float32(cones.negligible), np.int32(n_lanes), limit)
    on.start(source, "set_limits", (n_lanes, 1), limits)
    return blocks


def _follow(on: Runtime, source: Source, patient: _Patient, cones: _Cones, blocks: _Blocks, per_cone: Buffer) -> None:
    """Deposits what all blocks send into every cone, one cone after another. `per_cone` (n, K, H, I)."""
    n_blocks = len(blocks.sources.block) - 1
    n_entries = len(blocks.sources.voxel)
    n_most = int(np.diff(blocks.sources.start[blocks.sources.block]).max(initial=0))
    if n_most == 0:
        return
    first, last = (on.zeros((n_blocks * cones.n_places,), np.int32) for _ in range(2))
    n_cones, n_bins, n_comp = per_cone.shape[1:]
    line, n_lines = on.zeros((n_blocks * n_most,), np.int32), on.zeros((n_cones, n_blocks), np.int32)
    kernels, per_beamlet = per_cone.reshape(-1), n_cones * n_bins * n_comp
    for k in range(n_cones):
        walk = cones.table[k], cones.row_shift[k], cones.column_shift[k]
        tables = first, last, line, n_lines[k]
        sizes = np.int32(cones.n_places), np.int32(n_most)
        entries = blocks.voxel, blocks.block_of, np.int64(n_entries)
        on.start(source, "find_lines", (n_entries, 1), (*walk, *entries, *sizes, *tables))
        arguments = (
            *(
                *walk,
                cones.offset[k],
                np.float32(cones.step_cm[k]),
                np.float32(cones.smallest_per_cm),
                np.float32(cones.reach_cm),
            ),
            *(patient.density, patient.hardness, np.int64(patient.n_voxels), blocks.block),
            *(kernels[k * n_bins * n_comp :], np.int64(per_beamlet), blocks.limit, *tables, *sizes),
            *(blocks.share, blocks.energy, blocks.touched, np.int32(patient.n_chunks)),
        )
        on.start(source, "follow_lines", (n_most * (LANES // PER_THREAD), n_blocks), arguments)
        on.start(source, "forget_lines", (n_most, n_blocks), (line, n_lines[k], *sizes, first, last))


def _collected(on: Runtime, source: Source, patient: _Patient, cones: _Cones, blocks: _Blocks, threshold: float) -> Columns:
    """The blocks' columns: dose above the threshold, in runs of neighbouring rows."""
    n_blocks, n_beamlets = len(blocks.sources.block) - 1, len(blocks.sources.start) - 1
    threads = patient.n_chunks * LANES, n_blocks
    common = blocks.block, blocks.touched, np.int64(patient.n_voxels), np.int32(patient.n_chunks)
    bits = on.zeros((n_beamlets,), np.int32)
    dose = patient.hardness, cones.local, patient.dose_per_energy, patient.row_of, blocks.share, blocks.energy, bits
    on.start(source, "to_dose", threads, (*common, *dose))
    largest = bits.view(np.float32)
    sizes = on.zeros((n_blocks * LANES * patient.n_chunks * 2,), np.int32)
    chosen = blocks.energy, patient.row_of, largest, np.float32(threshold)
    on.start(source, "count_entries", threads, (*common, *chosen, sizes))
    totals = on.zeros((n_blocks * LANES, 2), np.int32)
    n_lanes = np.int32(n_blocks * LANES)
    on.start(source, "sum_entries", (int(n_lanes), 1), (n_lanes, np.int32(patient.n_chunks), sizes, totals))
    own = np.arange(LANES) < np.diff(blocks.sources.block)[:, None]
    ends = np.cumsum(on.get(totals).reshape(n_blocks, LANES, 2)[own], axis=0, dtype=np.int64)
    run_start, level_start = (np.concatenate([[0], ends[:, i]]).astype(np.int64) for i in range(2))
    run_row, run_length = on.zeros((int(run_start[-1]),), np.int32), on.zeros((int(run_start[-1]),), np.uint16)
    level = on.zeros((int(level_start[-1]),), np.uint16)
    places = on.put(run_start), on.put(level_start), run_row, run_length, level
    on.start(source, "write_entries", threads, (*common, *chosen, sizes, *places))
    scale = (on.get(largest) / np.float32(np.iinfo(np.uint16).max)).astype(np.float32)
    return Columns(run_start, level_start, on.get(run_row), on.get(run_length), on.get(level), scale)
