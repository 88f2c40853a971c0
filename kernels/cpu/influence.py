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

from kernels.column_data import BeamletSources, Columns, ConeKernels, ConeLines

LANES = 16  # beamlets of a block at most: single-precision numbers in a vector
COMPONENTS = 9  # fixed, so that the compiler keeps a lane's components in registers
TAIL_STEPS = 2  # voxels of a line that are looked up at once beyond its last source
BRIDGED = 3  # rows left out between two runs that cost less as zeros than a new run
_ZERO, _ONE, _TWO, _THREE = np.float32(0), np.float32(1), np.float32(2), np.float32(3)
_HALF, _THIRD, _QUARTER, _FIFTH, _SIXTH = (np.float32(1 / n) for n in (2, 3, 4, 5, 6))


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
) -> Columns:
    """Columns of the influence matrix. See `kernels.contract`.

    Raises ValueError for more than 9 components, exponents in another ratio than 2 or 3, or blocks of more than 8 beamlets.
    """
    n_comp, largest = len(kernels.exponents_per_cm), int(np.diff(sources.block).max())
    ratio = round(float(kernels.exponents_per_cm[1] / kernels.exponents_per_cm[0])) if n_comp > 1 else 2
    if n_comp > COMPONENTS or ratio not in (2, 3) or largest > LANES:
        raise ValueError(
            f"{n_comp} components in ratio {ratio}, blocks of {largest}: at most {COMPONENTS}, 2 or 3, at most {LANES}"
        )
    per_cone = np.zeros((*kernels.per_cone.shape[:3], COMPONENTS), np.float32)
    per_cone[..., :n_comp] = kernels.per_cone
    arrays = _deposit(
        np.ascontiguousarray(density_rel, np.float32),
        released.reshape(-1),
        hardness.reshape(-1),
        (sources.start, sources.voxel, sources.fraction, sources.block),
        (per_cone, kernels.local),
        (np.float32(kernels.exponents_per_cm[0]), ratio),
        (np.float32(kernels.reach_cm), np.float32(kernels.negligible)),
        (lines.axes, lines.forward, lines.row_shift, lines.column_shift, lines.step_cm),
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
def _deposit(density, released, hardness, sources, kernels, exponents, limits, lines, per_energy, row_of, threshold):
    """All blocks, one after another."""
    start, voxel, fraction, block = sources
    n = len(start) - 1
    slot_of = np.full(density.size, -1, np.int32)
    slot_voxel = np.empty(density.size, np.int32)
    energy = np.empty(density.size * LANES, np.float32)  # memory is taken only where it is touched
    most = 0
    for b in range(len(block) - 1):
        most = max(most, start[block[b + 1]] - start[block[b]])
    share, bins, zyx = np.empty(most * LANES, np.float32), np.empty(most, np.uint8), np.empty((most, 3), np.int32)
    least = np.empty(LANES, np.float32)
    scratch = _scratch(2 * max(density.shape) + 2, most)
    cone = np.zeros((kernels[0].shape[2], COMPONENTS * LANES), np.float32)
    out = (
        np.zeros(n + 1, np.int64),
        np.zeros(n + 1, np.int64),
        np.empty(1 << 12, np.int32),
        np.empty(1 << 12, np.uint16),
        np.empty(1 << 16, np.uint16),
        np.zeros(n, np.float32),
    )
    updates = 0
    for b in range(len(block) - 1):
        first, last = block[b], block[b + 1]
        n_sources = _place_sources(start, voxel, fraction, first, last, slot_of, slot_voxel, share, zyx, density.shape)
        least[:] = _ZERO
        for s in range(n_sources):
            total, bins[s] = released[slot_voxel[s]], hardness[slot_voxel[s]]
            for lane in range(LANES):
                share[s * LANES + lane] *= total
                energy[s * LANES + lane] = share[s * LANES + lane] * kernels[1][bins[s]]
                least[lane] = max(least[lane], share[s * LANES + lane])
        least[:] = _ONE / np.maximum(least * limits[1], np.float32(1e-30))
        block_sources = (zyx[:n_sources], bins[:n_sources], share)
        places = (slot_of, slot_voxel, energy)
        n_slots = n_sources
        for k in range(len(lines[0])):
            for lane in range(last - first):
                for h in range(len(cone)):
                    for i in range(COMPONENTS):
                        cone[h, i * LANES + lane] = kernels[0][first + lane, k, h, i]
            how = (exponents, limits[0], least)
            n_slots, walked = _cone(k, lines, density, cone, how, block_sources, places, n_slots, scratch)
            updates += walked
        cone[:] = _ZERO
        out = _emit(first, last, n_slots, slot_of, slot_voxel, energy, per_energy, row_of, threshold, out)
        for s in range(n_slots):
            slot_of[slot_voxel[s]] = -1
    runs, levels = out[0][n], out[1][n]
    return out[0], out[1], out[2][:runs].copy(), out[3][:runs].copy(), out[4][:levels].copy(), out[5], updates


@numba.njit(nogil=True, cache=True)
def _scratch(side, most):
    """Arrays that a cone's lines are worked out in: per line of the grid, per line found, per voxel of a line."""
    return (
        np.full((side, side), -1, np.int32),
        np.empty((most, 4), np.int32),
        np.empty(side, np.int32),
        np.empty(side, np.float32),
        np.empty((side, 2 * COMPONENTS), np.float32),
        np.empty(COMPONENTS * LANES, np.float32),
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
def _cone(k, lines, density, cone, limits, sources, places, n_slots, scratch):
    """Deposits what all sources of a block send into direction k; returns the slots then in use, and the voxels walked."""
    axes, forward, row_shift, column_shift, step_cm = lines
    line_of, found, slots, path, terms, state = scratch
    zyx, bins, share = sources
    exponents, reach_cm, least = limits
    a, b, c = axes[k, 0], axes[k, 1], axes[k, 2]
    n_planes, walked = density.shape[a], 0
    n_lines = _find_lines(zyx, (a, b, c), n_planes, forward[k], row_shift[k], column_shift[k], line_of, found)
    for i in range(n_lines):
        line = (forward[k], a, b, c, found[i, 0], found[i, 1], row_shift[k], column_shift[k], step_cm[k])
        n, end, left_cm, alive, tail = found[i, 2], found[i, 3] + 1, np.float32(np.inf), True, False
        state[:] = _ZERO
        # First all sources, then a few voxels at a time as long as there is something left.
        while alive and n < n_planes:
            count, along, n, n_slots = _gather(line, n, min(end, n_planes), left_cm, density, places, n_slots, slots, path)
            _path_terms(exponents[0], exponents[1], path[:count], terms, tail)
            walked += count
            alive = _along_line(slots[:count], path, step_cm[k], bins, terms, cone, share, state, places[2], least, tail)
            left_cm = left_cm - along if tail else reach_cm
            end, tail = end + TAIL_STEPS, True
    return n_slots, walked


@numba.njit(nogil=True, cache=True)
def _gather(line, n, end, left_cm, density, places, n_slots, slots, path):
    """Slots and paths of a line's voxels that have any density, from step n to `end`.

    Returns their number, the path along them, the step to go on from, and the number of slots then in use. Where the line
    leaves the grid or has come further than `left_cm`, the step to go on from lies past the grid.
    """
    slot_of, slot_voxel, energy = places
    forward, a, b, c, row, column, row_shift, column_shift, step_cm = line
    shape, flat = density.shape, density.reshape(-1)
    strides = (shape[1] * shape[2], shape[2], 1)
    count, along = 0, _ZERO
    while n < end:
        r, s = row + row_shift[n], column + column_shift[n]
        if along > left_cm or r < 0 or r >= shape[b] or s < 0 or s >= shape[c]:
            return count, along, shape[a], n_slots
        v = (n if forward else shape[a] - 1 - n) * strides[a] + r * strides[b] + s * strides[c]
        n += 1
        if flat[v] <= _ZERO:
            continue
        slot = slot_of[v]
        if slot < 0:
            slot = n_slots
            slot_of[v], slot_voxel[slot] = slot, v
            energy[slot * LANES : (slot + 1) * LANES] = _ZERO
            n_slots += 1
        slots[count], path[count] = slot, flat[v] * step_cm
        along += path[count]
        count += 1
    return count, along, n, n_slots


@numba.njit(nogil=True, cache=True)
def _find_lines(zyx, axes, n_planes, forward, row_shift, column_shift, line_of, found):
    """Lines of one direction that hold sources: row and column where they would start, first and last step with a source."""
    a, b, c = axes
    # Lines that start outside the grid come before its first row and column.
    above, left = max(row_shift[n_planes - 1], 0), max(column_shift[n_planes - 1], 0)
    n = 0
    for s in range(len(zyx)):
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
def _path_terms(smallest, ratio, path, terms, tail):
    """What part of its energy each component leaves in each voxel of a line: (voxel, 2 * component).

    First m = 1 - e^-y, of what arrives; then, but for the tail, q = 1 - m / y, of what is released there.
    By their series for the smallest exponent; from one to the next, which is 2 or 3 times as large, by
    m(2y) = m (2 - m), q(2y) = q + m (1 - q) / 2; m(3y) = m (3 - 3 m + m²), q(3y) = q + (1 - q) (m - m² / 3).
    """
    for n in range(len(path)):
        y = smallest * path[n]
        m = y * (_ONE - _HALF * y * (_ONE - _THIRD * y * (_ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y)))))
        q = _HALF * y * (_ONE - _THIRD * y * (_ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y))))
        for i in range(COMPONENTS):
            terms[n, i] = m
            if not tail:
                terms[n, COMPONENTS + i] = q
                q += (_ONE - q) * (_HALF * m if ratio == 2 else m - _THIRD * m * m)
            m *= _TWO - m if ratio == 2 else _THREE - _THREE * m + m * m


@numba.njit(nogil=True, cache=True, fastmath=True)
def _along_line(slots, path, water_path, bins, terms, cone, share, state, energy, least, tail):
    """The recursion of all beamlets along one line; `state` (component, lane) is what is on its way.

    Beyond the last source (`tail`) it ends where no lane would deposit more than `least` if the voxel were water, whose path
    is `water_path`: in a cavity little is deposited of much that is on its way. Returns whether it has not ended.
    """
    for n in range(len(slots)):
        slot = slots[n]
        here, term = energy[slot * LANES : (slot + 1) * LANES], terms[n]
        if slot >= len(bins):
            most = _ZERO
            for lane in range(LANES):
                deposit = _ZERO
                for i in range(COMPONENTS):
                    arriving = state[i * LANES + lane]
                    left = arriving * term[i]
                    deposit += left
                    state[i * LANES + lane] = arriving - left
                here[lane] += deposit
                most = max(most, deposit * least[lane])
            if tail and most * water_path < path[n]:
                return False
            continue
        part, kernel = share[slot * LANES : (slot + 1) * LANES], cone[bins[slot]]
        for lane in range(LANES):
            deposit = _ZERO
            for i in range(COMPONENTS):
                arriving, new = state[i * LANES + lane], part[lane] * kernel[i * LANES + lane]
                left = arriving * term[i] + new * term[COMPONENTS + i]
                deposit += left
                state[i * LANES + lane] = arriving + (new - left)
            here[lane] += deposit
    return True


@numba.njit(nogil=True, cache=True)
def _emit(first, last, n_slots, slot_of, slot_voxel, energy, per_energy, row_of, threshold, out):
    """Appends a block's columns: dose above the threshold, in runs of neighbouring rows."""
    run_start, level_start, run_row, run_length, level, scale = out
    dose, rows = _to_dose(n_slots, slot_of, slot_voxel, energy, per_energy, row_of, threshold)
    for lane in range(last - first):
        j = first + lane
        values = dose[lane]
        largest = values.max() if len(rows) else _ZERO
        scale[j] = largest / np.float32(65535.0)
        limit = max(np.float32(threshold) * largest, np.float32(1e-30))
        inverse = np.float32(65535.0) / max(largest, np.float32(1e-30))
        runs, levels = run_start[j], level_start[j]
        run_row, run_length = _grown(run_row, runs + len(rows)), _grown(run_length, runs + len(rows))
        level = _grown(level, levels + (BRIDGED + 1) * len(rows))
        following, length = -(1 << 30), 0
        for e in range(len(rows)):
            value = values[e]
            if value <= limit:
                continue
            gap = rows[e] - following
            if gap > BRIDGED or length + gap >= 65535:
                run_row[runs] = rows[e]
                runs, length, gap = runs + 1, 0, 0
            for _ in range(gap):
                level[levels] = 0
                levels += 1
            level[levels] = np.uint16(value * inverse + _HALF)
            levels += 1
            length += gap + 1
            run_length[runs - 1] = length
            following = rows[e] + 1
        run_start[j + 1], level_start[j + 1] = runs, levels
    return run_start, level_start, run_row, run_length, level, scale


@numba.njit(nogil=True, cache=True)
def _to_dose(n_slots, slot_of, slot_voxel, energy, per_energy, row_of, threshold):
    """Dose (lane, n) and rows (n,), ascending, of those voxels in which some lane may be above its threshold."""
    lowest, highest = len(slot_of), -1
    largest = np.zeros(LANES, np.float32)
    for s in range(n_slots):
        v = slot_voxel[s]
        lowest, highest = min(lowest, v), max(highest, v)
        factor = per_energy[v] if row_of[v] >= 0 else _ZERO
        for lane in range(LANES):
            value = energy[s * LANES + lane] * factor
            energy[s * LANES + lane] = value
            largest[lane] = max(largest[lane], value)
    dose, rows, n = np.empty((LANES, n_slots), np.float32), np.empty(n_slots, np.int32), 0
    for v in range(lowest, highest + 1):
        slot = slot_of[v]
        if slot < 0 or row_of[v] < 0:
            continue
        some = False
        for lane in range(LANES):
            some |= energy[slot * LANES + lane] > threshold * largest[lane]
        if some:
            rows[n] = row_of[v]
            for lane in range(LANES):
                dose[lane, n] = energy[slot * LANES + lane]
            n += 1
    return dose[:, :n], rows[:n]
