"""Dose columns of narrow beamlets: neighbours share their cone lines, one vector lane each (Numba; releases the GIL).

Along a line everything but the energies is common to the beamlets of a block, so the recursion runs on vectors of beamlets.
Only voxels that are reached have a place ("slot") in the block's dose, sources first.
"""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.column_data import BeamletSources, Columns, ConeLines

LANES = 16  # beamlets of a block at most: single-precision numbers in the widest vector
COMPONENTS = 9  # fixed, so that the compiler keeps a lane's components in registers
BRIDGED = 3  # rows left out between two runs that cost less as zeros than a new run
_ZERO, _ONE = np.float32(0), np.float32(1)
_HALF, _THIRD, _QUARTER, _FIFTH, _SIXTH = (np.float32(1 / n) for n in (2, 3, 4, 5, 6))
_HALVINGS = 5


def deposit_columns(
    density_rel: NDArray[np.float32],
    released: NDArray[np.float32],
    sources: BeamletSources,
    cone_kernels: NDArray[np.float32],
    local: NDArray[np.float32],
    exponents_per_cm: NDArray[np.float32],
    lines: ConeLines,
    reach_cm: NDArray[np.float32],
    dose_per_energy: NDArray[np.float32],
    row_of: NDArray[np.int32],
    threshold: float,
) -> Columns:
    """Columns of the influence matrix. See `kernels.contract`.

    Raises ValueError for more than 9 components or blocks of more than 16 beamlets.
    """
    n, n_cones, n_groups, n_comp = cone_kernels.shape
    if n_comp > COMPONENTS or np.diff(sources.block).max() > LANES:
        raise ValueError(
            f"{n_comp} components and blocks of {np.diff(sources.block).max()}: at most {COMPONENTS} and {LANES}"
        )
    kernels = np.zeros((n, n_cones, n_groups, COMPONENTS), np.float32)
    kernels[..., :n_comp] = cone_kernels
    exponents = np.concatenate([exponents_per_cm, np.zeros(COMPONENTS - n_comp)]).astype(np.float32)
    arrays = _deposit(
        np.ascontiguousarray(density_rel, np.float32),
        np.ascontiguousarray(released.reshape(n_groups, -1), np.float32),
        (sources.start, sources.voxel, sources.fraction, sources.block),
        kernels,
        local.astype(np.float32),
        exponents,
        (lines.axes, lines.forward, lines.row_shift, lines.column_shift, lines.step_cm, reach_cm.astype(np.float32)),
        dose_per_energy.reshape(-1),
        row_of,
        np.float32(threshold),
    )
    return Columns(*arrays)


@numba.njit(nogil=True, cache=True)
def _grown(array, needed):
    """The array itself, or a larger one that starts with it."""
    if needed <= len(array):
        return array
    larger = np.empty(2 * needed, array.dtype)
    larger[: len(array)] = array
    return larger


@numba.njit(nogil=True, cache=True)
def _deposit(density, released, sources, kernels, local, exponents, lines, per_energy, row_of, threshold):
    """All blocks, one after another."""
    start, voxel, fraction, block = sources
    n = len(start) - 1
    size, n_groups, n_cones = density.size, len(released), kernels.shape[1]
    slot_of = np.full(size, -1, np.int32)
    slot_voxel = np.empty(size, np.int32)
    energy = np.empty(size * LANES, np.float32)  # memory is taken only where it is touched
    most = 0
    for b in range(len(block) - 1):
        most = max(most, start[block[b + 1]] - start[block[b]])
    share, source_released = np.empty(most * LANES, np.float32), np.empty((most, n_groups), np.float32)
    zyx = np.empty((most, 3), np.int32)
    side = 2 * max(density.shape) + 2
    scratch = _scratch(side, most)
    cone = np.zeros((n_groups, COMPONENTS * LANES), np.float32)
    out = (
        np.zeros(n + 1, np.int64),
        np.zeros(n + 1, np.int64),
        np.empty(1 << 12, np.int32),
        np.empty(1 << 12, np.uint16),
        np.empty(1 << 16, np.uint16),
        np.zeros(n, np.float32),
    )
    for b in range(len(block) - 1):
        first, last = block[b], block[b + 1]
        n_sources = _place_sources(start, voxel, fraction, first, last, slot_of, slot_voxel, share, zyx, density.shape)
        for s in range(n_sources):
            here = _ZERO
            for g in range(n_groups):
                source_released[s, g] = released[g, slot_voxel[s]]
                here += source_released[s, g] * local[g]
            for lane in range(LANES):
                energy[s * LANES + lane] = share[s * LANES + lane] * here
        n_slots = n_sources
        for k in range(n_cones):
            cone[:] = _ZERO
            for lane in range(last - first):
                for g in range(n_groups):
                    for i in range(COMPONENTS):
                        cone[g, i * LANES + lane] = kernels[first + lane, k, g, i]
            n_slots = _cone(
                k, lines, density, cone, exponents, zyx, n_sources, n_slots, share, source_released, slot_of, slot_voxel, energy,
                scratch,
            )  # fmt: skip
        out = _emit(first, last, n_slots, slot_of, slot_voxel, energy, per_energy, row_of, threshold, out)
        for s in range(n_slots):
            slot_of[slot_voxel[s]] = -1
    runs, levels = out[0][n], out[1][n]
    return out[0], out[1], out[2][:runs].copy(), out[3][:runs].copy(), out[4][:levels].copy(), out[5]


@numba.njit(nogil=True, cache=True)
def _scratch(side, most):
    """Arrays that a cone's lines are worked out in: per line of the grid, per line found, per voxel of a line."""
    return (
        np.full((side, side), -1, np.int32),
        np.empty((most, 4), np.int32),
        np.empty(side, np.int32),
        np.empty(side, np.float32),
        np.empty((COMPONENTS, side), np.float32),
        np.empty((COMPONENTS, side), np.float32),
        np.empty(2 * COMPONENTS * LANES, np.float32),
    )


@numba.njit(nogil=True, cache=True)
def _place_sources(start, voxel, fraction, first, last, slot_of, slot_voxel, share, zyx, shape):
    """Gives a block's source voxels the first slots; returns their number."""
    n = 0
    for j in range(first, last):
        for e in range(start[j], start[j + 1]):
            v = voxel[e]
            if slot_of[v] < 0:
                slot_of[v] = n
                slot_voxel[n] = v
                zyx[n, 0] = v // (shape[1] * shape[2])
                zyx[n, 1] = v // shape[2] % shape[1]
                zyx[n, 2] = v % shape[2]
                share[n * LANES : (n + 1) * LANES] = _ZERO
                n += 1
            share[slot_of[v] * LANES + j - first] = fraction[e]
    return n


@numba.njit(nogil=True, cache=True)
def _cone(
    k, lines, density, cone, exponents, zyx, n_sources, n_slots, share, released, slot_of, slot_voxel, energy, scratch
):
    """Deposits what all sources of a block send into direction k; returns the number of slots then in use."""
    axes, forward, row_shift, column_shift, step_cm, reach_cm = lines
    line_of, found, slots, path, lost, kept, work = scratch
    shape = density.shape
    strides = (shape[1] * shape[2], shape[2], 1)
    a, b, c = axes[k, 0], axes[k, 1], axes[k, 2]
    n_lines = _find_lines(zyx, n_sources, (a, b, c), shape[a], forward[k], row_shift[k], column_shift[k], line_of, found)
    flat = density.reshape(-1)
    for i in range(n_lines):
        row, column, n, last = found[i, 0], found[i, 1], found[i, 2], found[i, 3]
        count, beyond = 0, _ZERO
        while n < shape[a]:
            r, s = row + row_shift[k, n], column + column_shift[k, n]
            if r < 0 or r >= shape[b] or s < 0 or s >= shape[c]:
                break
            v = (n if forward[k] else shape[a] - 1 - n) * strides[a] + r * strides[b] + s * strides[c]
            along = flat[v] * step_cm[k]
            if n > last:
                if beyond > reach_cm[k]:
                    break
                beyond += along
            n += 1
            if along <= _ZERO:
                continue
            slot = slot_of[v]
            if slot < 0:
                slot = n_slots
                slot_of[v], slot_voxel[slot] = slot, v
                energy[slot * LANES : (slot + 1) * LANES] = _ZERO
                n_slots += 1
            slots[count], path[count] = slot, along
            count += 1
        _path_terms(exponents, path[:count], lost, kept)
        _along_line(slots[:count], n_sources, lost, kept, cone, share, released, work, energy)
    return n_slots


@numba.njit(nogil=True, cache=True)
def _find_lines(zyx, n_sources, axes, n_planes, forward, row_shift, column_shift, line_of, found):
    """Lines of one direction that hold sources: row and column where they would start, first and last step with a source."""
    a, b, c = axes
    # Lines that start outside the grid come before its first row and column.
    above, left = max(row_shift[n_planes - 1], 0), max(column_shift[n_planes - 1], 0)
    n = 0
    for s in range(n_sources):
        step = zyx[s, a] if forward else n_planes - 1 - zyx[s, a]
        row, column = zyx[s, b] - row_shift[step], zyx[s, c] - column_shift[step]
        i = line_of[row + above, column + left]
        if i < 0:
            line_of[row + above, column + left] = n
            found[n, 0], found[n, 1], found[n, 2], found[n, 3] = row, column, step, step
            n += 1
        else:
            found[i, 2], found[i, 3] = min(found[i, 2], step), max(found[i, 3], step)
    for i in range(n):
        line_of[found[i, 0] + above, found[i, 1] + left] = -1
    return n


@numba.njit(nogil=True, cache=True, fastmath=True)
def _path_terms(exponents, path, lost, kept):
    """Per component and voxel of a line: m = 1 - e^-y deposited of what arrives, q = 1 - m / y of what is released there.

    m from the series of y / 32 by m(2y) = m (2 - m); beyond y = 64 nothing is left anyway.
    """
    for i in range(COMPONENTS):
        m_of, q_of = lost[i], kept[i]
        for n in range(len(path)):
            y = min(exponents[i] * path[n], np.float32(64))
            z = y * np.float32(1 / 32)
            m = z * (
                _ONE - _HALF * z * (_ONE - _THIRD * z * (_ONE - _QUARTER * z * (_ONE - _FIFTH * z * (_ONE - _SIXTH * z))))
            )
            for _ in range(_HALVINGS):
                m = m * (np.float32(2) - m)
            small = _HALF * y * (_ONE - _THIRD * y * (_ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y))))
            m_of[n] = m
            q_of[n] = small if y < np.float32(0.1) else _ONE - m / y


@numba.njit(nogil=True, cache=True, fastmath=True)
def _along_line(slots, n_sources, lost, kept, cone, share, released, work, energy):
    """The recursion of all beamlets along one line. `work` holds what is on its way, then the cone's kernel at a source."""
    half = COMPONENTS * LANES
    work[:half] = _ZERO
    for n in range(len(slots)):
        slot = slots[n]
        here = energy[slot * LANES : (slot + 1) * LANES]
        if slot >= n_sources:
            for lane in range(LANES):
                deposit = _ZERO
                for i in range(COMPONENTS):
                    arriving = work[i * LANES + lane]
                    left = arriving * lost[i, n]
                    deposit += left
                    work[i * LANES + lane] = arriving - left
                here[lane] += deposit
            continue
        part = share[slot * LANES : (slot + 1) * LANES]
        work[half:] = _ZERO
        for g in range(len(cone)):
            group = released[slot, g]
            for x in range(half):
                work[half + x] += group * cone[g, x]
        for lane in range(LANES):
            deposit = _ZERO
            for i in range(COMPONENTS):
                arriving, new = work[i * LANES + lane], part[lane] * work[half + i * LANES + lane]
                left = arriving * lost[i, n] + new * kept[i, n]
                deposit += left
                work[i * LANES + lane] = arriving + (new - left)
            here[lane] += deposit


@numba.njit(nogil=True, cache=True)
def _emit(first, last, n_slots, slot_of, slot_voxel, energy, per_energy, row_of, threshold, out):
    """Appends a block's columns: dose above the threshold, in runs of neighbouring rows."""
    run_start, level_start, run_row, run_length, level, scale = out
    n_lanes = last - first
    order, largest = _to_dose(n_slots, slot_of, slot_voxel, energy, per_energy, row_of)
    for lane in range(n_lanes):
        j = first + lane
        scale[j] = largest[lane] / np.float32(65535.0)
        limit = max(np.float32(threshold) * largest[lane], np.float32(1e-30))
        inverse = np.float32(65535.0) / max(largest[lane], np.float32(1e-30))
        runs, levels = run_start[j], level_start[j]
        run_row, run_length = _grown(run_row, runs + len(order)), _grown(run_length, runs + len(order))
        level = _grown(level, levels + (BRIDGED + 1) * len(order))
        following, length = -(1 << 30), 0
        for e in range(len(order)):
            value = energy[order[e] * LANES + lane]
            if value <= limit:
                continue
            row = row_of[slot_voxel[order[e]]]
            gap = row - following
            if gap > BRIDGED or length + gap >= 65535:
                run_row[runs] = row
                runs, length, gap = runs + 1, 0, 0
            for _ in range(gap):
                level[levels] = 0
                levels += 1
            level[levels] = np.uint16(value * inverse + _HALF)
            levels += 1
            length += gap + 1
            run_length[runs - 1] = length
            following = row + 1
        run_start[j + 1], level_start[j + 1] = runs, levels
    return run_start, level_start, run_row, run_length, level, scale


@numba.njit(nogil=True, cache=True)
def _to_dose(n_slots, slot_of, slot_voxel, energy, per_energy, row_of):
    """Energy to dose in place; returns the slots of voxels that have a row, by row, and each lane's largest dose."""
    lowest, highest = len(slot_of), -1
    for s in range(n_slots):
        lowest, highest = min(lowest, slot_voxel[s]), max(highest, slot_voxel[s])
    order, n = np.empty(n_slots, np.int32), 0
    largest = np.zeros(LANES, np.float32)
    for v in range(lowest, highest + 1):
        slot = slot_of[v]
        if slot < 0 or row_of[v] < 0:
            continue
        order[n] = slot
        n += 1
        for lane in range(LANES):
            dose = energy[slot * LANES + lane] * per_energy[v]
            energy[slot * LANES + lane] = dose
            largest[lane] = max(largest[lane], dose)
    return order[:n], largest


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
    for v in range(len(voxel)):
        first = count
        for a in range(sub):
            for b in range(sub):
                for c in range(sub):
                    px = centre_mm[v, 0] + spacing_mm[2] * ((c + 0.5) / sub - 0.5) - source_mm[0]
                    py = centre_mm[v, 1] + spacing_mm[1] * ((b + 0.5) / sub - 0.5) - source_mm[1]
                    pz = centre_mm[v, 2] + spacing_mm[0] * ((a + 0.5) / sub - 0.5) - source_mm[2]
                    away = -(px * axes[2, 0] + py * axes[2, 1] + pz * axes[2, 2])
                    x = (px * axes[0, 0] + py * axes[0, 1] + pz * axes[0, 2]) * sad_mm / away
                    y = (px * axes[1, 0] + py * axes[1, 1] + pz * axes[1, 2]) * sad_mm / away
                    iy = int(np.floor((y - origin_mm[1]) / raster_mm[1]))
                    ix = int(np.floor((x - origin_mm[0]) / raster_mm[0]))
                    if iy < 0 or iy >= len(row_of_y) or ix < 0 or ix >= beamlet_of.shape[1] or row_of_y[iy] < 0:
                        continue
                    j = beamlet_of[row_of_y[iy], ix]
                    if j < 0:
                        continue
                    e = first
                    while e < count and out_beamlet[e] != j:
                        e += 1
                    if e == count:
                        if count == len(out_beamlet):
                            out_beamlet = _grown(out_beamlet, count + 1)
                            out_voxel = _grown(out_voxel, count + 1)
                            out_fraction = _grown(out_fraction, count + 1)
                        out_beamlet[count], out_voxel[count], out_fraction[count] = j, voxel[v], np.float32(0.0)
                        count += 1
                    out_fraction[e] += share
    return out_beamlet[:count], out_voxel[:count], out_fraction[:count]
