"""CPU `superpose`: Numba, one direction after the other, its lines of voxels side by side. See `kernels.contract`.

Written for the vector units: rows of voxels are worked on in blocks of 16 columns, all components of a block in registers,
and the state of all lines that start in one row stays in the first-level cache. Each voxel lies on one line of a direction,
so threads share out the lines, never meet in a voxel, and do not change the result.

The components are written out, since the compiler turns a loop over 16 voxels into vectors only if nothing loops inside,
and every array begins at its row's first column, since it does so only if it can tell that no index is negative. From one
exponent to the next, which is twice as large, with m = 1 - e^-y and q = 1 - m / y: m(2y) = m (2 - m), and
q(2y) = q + m (1 - q) / 2.

All that is compiled together stands in this file: Numba's cache sees a change of a file only in the functions of that file.
"""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, GridGeometry, Released
from kernels.cpu.lit import BLOCK, GROUPS, body_spans, pack
from kernels.lines import PLANE_ROW_COLUMN, line_steps
from kernels.rays import beam_coordinates

LINES = 8  # rows of lines that are walked side by side: memory is then read in runs that the processor foresees
N_TERMS = 6
COMPONENTS = 9
PITCH = 1040  # floats between components: a constant for the compiler, and no power of two, which would thrash the cache
_WIDTH = GROUPS * COMPONENTS

_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(1 / 2)
_THIRD, _QUARTER, _FIFTH, _SIXTH = np.float32(1 / 3), np.float32(1 / 4), np.float32(1 / 5), np.float32(1 / 6)
_SEVENTH = np.float32(1 / 7)


def superpose(
    electron_density_rel: NDArray[np.floating],
    released: Sequence[Released],
    cone_kernels: NDArray[np.floating],
    directions: NDArray[np.float64],
    *,
    grid: GridGeometry,
    beams: Sequence[BeamGeometry],
    phases: NDArray[np.float64],
    smallest_exponent_per_cm: float,
) -> NDArray[np.float32]:
    """Energy deposited per cm³ (z, y, x), collapsed cones along lines of voxels. See `kernels.contract`.

    Raises ValueError for more than 9 components, more than 2 groups or a grid of more than 1000 voxels a side.
    """
    kernels = _kernels(cone_kernels)
    if 2 * (max(grid.shape_zyx) + BLOCK) > PITCH:
        raise ValueError(f"grid {grid.shape_zyx}: at most {PITCH // 2 - BLOCK} voxels a side")
    total = np.zeros(grid.shape_zyx, dtype=np.float32)
    steps = [line_steps(d, grid.shape_zyx, grid.spacing_zyx_mm, p) for d, p in zip(directions, phases, strict=True)]
    for axes in PLANE_ROW_COLUMN:
        chosen = [k for k, s in enumerate(steps) if s.axes == axes]
        if not chosen:
            continue
        n_planes, n_rows, n_columns = (grid.shape_zyx[a] for a in axes)
        density = _padded(np.asarray(electron_density_rel, dtype=np.float32).transpose(axes))
        lit, spans, energy = pack(released, axes, (n_planes, n_rows))
        body = body_spans(density, n_rows)
        affine = np.stack([beam_coordinates(beam, grid, axes) for beam in beams])
        out = np.zeros_like(density)
        for k in chosen:
            walk = steps[k].planes, steps[k].row_shift, steps[k].column_shift
            path = np.float32(steps[k].step_cm * smallest_exponent_per_cm)
            shares = _shares(n_rows, walk[1])
            _direction(density, energy, lit, spans, body, affine, kernels[k], walk, path, shares, out)
        total += out[:, :n_rows, :n_columns].transpose(np.argsort(axes))
    return total


def _shares(n_rows: int, row_shift: NDArray[np.int64]) -> NDArray[np.int64]:
    """First rows of the parts of a direction's lines, dealt to the threads in turn: the middle takes longest."""
    first, n_lines = -max(int(row_shift[-1]), 0), n_rows + abs(int(row_shift[-1]))
    parts = np.arange(first, first + n_lines, LINES)
    threads = get_num_threads()
    return np.concatenate([parts[t::threads] for t in range(threads)])


def _kernels(cone_kernels: NDArray[np.floating]) -> NDArray[np.float32]:
    """(B, K, G * terms, I) to (K, B, terms, 2 * 9): the groups' components side by side, absent ones zero."""
    n_beams, n_directions, n_fields, n_comp = cone_kernels.shape
    n_groups = n_fields // N_TERMS
    if n_comp > COMPONENTS or n_groups > GROUPS:
        raise ValueError(f"{n_groups} groups of {n_comp} components: at most {GROUPS} of {COMPONENTS}")
    kernels = np.zeros((n_directions, n_beams, N_TERMS, GROUPS, COMPONENTS), dtype=np.float32)
    given = cone_kernels.reshape(n_beams, n_directions, n_groups, N_TERMS, n_comp)
    kernels[:, :, :, :n_groups, :n_comp] = given.transpose(1, 0, 3, 2, 4)
    return kernels.reshape(n_directions, n_beams, N_TERMS, _WIDTH)


def _padded(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy whose rows end with a whole block.

    Rows of a plane, and blocks of a row, are odd in number: planes a power of two apart would share a few places of the
    caches.
    """
    planes, rows, columns = array.shape
    padded = np.zeros((planes, rows | 1, BLOCK * (-(-columns // BLOCK) | 1)), dtype=np.float32)
    padded[:, :rows, :columns] = array
    return padded


@njit(cache=True, nogil=True, parallel=True)
def _direction(density, energy, lit, spans, body, affine, kernels, walk, path, shares, out):
    """All lines of one direction, in parts of `LINES` rows of lines."""
    for part in prange(len(shares)):
        state, source = np.empty((LINES, COMPONENTS * PITCH), np.float32), np.empty(COMPONENTS * PITCH, np.float32)
        parabola, place = np.empty((3, _WIDTH), np.float32), np.empty(PITCH, np.float32)
        active = np.empty((LINES, 2), np.int64)
        scratch = state, source, parabola, place, active
        _walk_lines(density, energy, lit, spans, body, affine, kernels, walk, path, shares[part], scratch, out)


@njit(cache=True, nogil=True)
def _walk_lines(density, energy, lit, spans, body, affine, kernels, walk, path, first_line, scratch, out):
    """The lines that start in `LINES` neighbouring rows, plane by plane.

    Columns of a line count from its first plane, plus `offset`. `active`: line columns that have carried anything yet.
    """
    planes, row_shift, column_shift = walk
    state, source, parabola, place, active = scratch
    n_rows, n_columns = body.shape[1], density.shape[2]
    offset = max(column_shift[-1], 0)
    width = n_columns + abs(column_shift[-1])
    active[:, 0], active[:, 1] = width, 0
    for n in range(len(planes)):
        to_line, plane = offset - column_shift[n], planes[n]
        for j in range(LINES):
            row = first_line + j + row_shift[n]
            if row < 0 or row >= n_rows:
                continue
            lit_from, lit_to = spans[plane, row, 0], spans[plane, row, 1]
            if lit_to > lit_from:
                if active[j, 1] == 0:
                    for i in range(COMPONENTS):
                        state[j, i * PITCH : i * PITCH + width] = 0
                active[j, 0], active[j, 1] = min(active[j, 0], lit_from + to_line), max(active[j, 1], lit_to + to_line)
            first = max(body[plane, row, 0], active[j, 0] - to_line)
            last = min(body[plane, row, 1], active[j, 1] - to_line)
            if first >= last:
                continue
            first, last = first // BLOCK * BLOCK, -(-last // BLOCK) * BLOCK
            row_density, row_out = density[plane, row, first:last], out[plane, row, first:last]
            row_state = state[j, first + to_line :]
            if lit_to > lit_from:
                for i in range(COMPONENTS):
                    source[i * PITCH + first : i * PITCH + last] = 0
                _release(energy, lit[plane, row], affine, kernels, plane, row, source, parabola, place)
                deposit_with_source(row_state, source[first:], row_density, path, row_out)
            else:
                deposit(row_state, row_density, path, row_out)


@njit(cache=True, nogil=True)
def _release(energy, lit, affine, kernels, plane, row, source, parabola, place):
    """All beams' released energy times the cone's kernel, component by component, for the columns of a row."""
    for b in range(len(lit)):
        a, end, at = lit[b]
        n = end - a
        if n > 0:
            gain, rise = _along_row(affine[b], plane, row, a, end, kernels[b], parabola)
            add_source(source[a:], energy[at : at + n], energy[at + n : at + 2 * n], parabola, gain, rise, place)


@njit(cache=True, nogil=True, fastmath=True)
def _along_row(affine, plane, row, first, end, kernel, parabola):
    """Kernels along a row as parabolas in s, -1 at its first and 1 at its last column.

    A ray's slopes are x / z and y / z, all three linear in the column: so both are linear in s = gain c / (1 + rise c) - 1,
    where c counts columns from the first, and a polynomial of second degree in them is one in s. Returns gain and rise.
    """
    x = affine[0, 0] + plane * affine[0, 1] + row * affine[0, 2] + first * affine[0, 3]
    y = affine[1, 0] + plane * affine[1, 1] + row * affine[1, 2] + first * affine[1, 3]
    z = affine[2, 0] + plane * affine[2, 1] + row * affine[2, 2] + first * affine[2, 3]
    n = end - 1 - first
    z_end = z + n * affine[2, 3]
    u, u_end = x / z, (x + n * affine[0, 3]) / z_end
    v, v_end = y / z, (y + n * affine[1, 3]) / z_end
    _polynomial(kernel, u, v, parabola[0])
    _polynomial(kernel, (u + u_end) / 2, (v + v_end) / 2, parabola[1])
    _polynomial(kernel, u_end, v_end, parabola[2])
    half = np.float32(0.5)
    for i in range(_WIDTH):
        low, middle, high = parabola[0, i], parabola[1, i], parabola[2, i]
        parabola[0, i] = middle
        parabola[1, i] = half * (high - low)
        parabola[2, i] = half * (high + low) - middle
    rise = affine[2, 3] / z
    return np.float32(2.0 * (1.0 + rise * n) / n), np.float32(rise)


@njit(cache=True, nogil=True, fastmath=True)
def _polynomial(kernel, u, v, value):
    """Components of all groups for a ray of slopes u, v."""
    u, v = np.float32(u), np.float32(v)
    uu, uv, vv = u * u, u * v, v * v
    for i in range(_WIDTH):
        low = kernel[0, i] + u * kernel[1, i] + v * kernel[2, i]
        value[i] = low + uu * kernel[3, i] + uv * kernel[4, i] + vv * kernel[5, i]


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _path_terms(y):
    """m and q for small y, by their series: good to 2e-6 of themselves up to y = 0.4."""
    m = y * (_ONE - _HALF * y * (_ONE - _THIRD * y * (_ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y)))))
    r = _ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y * (_ONE - _SEVENTH * y)))
    return m, _HALF * y * (_ONE - _THIRD * y * r)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _next(m, q):
    """m and q of the next exponent."""
    return m * (_TWO - m), q + _HALF * m * (_ONE - q)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _pass(state, at, m):
    """Deposit of what arrives in one component."""
    here = state[at] * m
    state[at] -= here
    return here


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _pass_with_source(state, at, source, from_, m, q):
    """Deposit of what arrives and of what is released in one component."""
    arriving, new = state[at], source[from_]
    here = arriving * m + new * q
    state[at] = arriving + (new - here)
    return here


@njit(cache=True, nogil=True, fastmath=True)
def deposit(state, density, path, out):
    """A row where nothing is released."""
    for block in range(len(density) // BLOCK):
        c = block * BLOCK
        for j in range(BLOCK):
            m = _path_terms(path * density[c + j])[0]
            dose = _pass(state, c + j, m)
            m *= _TWO - m
            dose += _pass(state, PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 2 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 3 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 4 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 5 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 6 * PITCH + c + j, m)
            m *= _TWO - m
            dose += _pass(state, 7 * PITCH + c + j, m)
            m *= _TWO - m
            out[c + j] += dose + _pass(state, 8 * PITCH + c + j, m)


@njit(cache=True, nogil=True, fastmath=True)
def deposit_with_source(state, source, density, path, out):
    """A row where energy is released."""
    for block in range(len(density) // BLOCK):
        c = block * BLOCK
        for j in range(BLOCK):
            m, q = _path_terms(path * density[c + j])
            dose = _pass_with_source(state, c + j, source, c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, PITCH + c + j, source, PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 2 * PITCH + c + j, source, 2 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 3 * PITCH + c + j, source, 3 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 4 * PITCH + c + j, source, 4 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 5 * PITCH + c + j, source, 5 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 6 * PITCH + c + j, source, 6 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            dose += _pass_with_source(state, 7 * PITCH + c + j, source, 7 * PITCH + c + j, m, q)
            m, q = _next(m, q)
            out[c + j] += dose + _pass_with_source(state, 8 * PITCH + c + j, source, 8 * PITCH + c + j, m, q)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _mixed(k, i, p, ps, pss, q, qs, qss):
    """Released energy of two groups and its first two moments in s, times one component's parabola of each."""
    first = p * k[0, i] + ps * k[1, i] + pss * k[2, i]
    return first + q * k[0, COMPONENTS + i] + qs * k[1, COMPONENTS + i] + qss * k[2, COMPONENTS + i]


@njit(cache=True, nogil=True, fastmath=True)
def add_source(source, energy, energy_2, k, gain, rise, place):
    """Adds two groups' released energy times their kernels, parabolas `k` (3, 18) in s = gain c / (1 + rise c) - 1.

    `place` is scratch for s, in a loop of its own: the compiler makes no vectors of the long loop with a division inside.
    """
    for c in range(len(energy)):
        column = np.float32(c)
        place[c] = gain * column / (_ONE + rise * column) - _ONE
    for block in range(len(energy) // BLOCK):
        c = block * BLOCK
        for j in range(BLOCK):
            s = place[c + j]
            p, q = energy[c + j], energy_2[c + j]
            ps, qs = p * s, q * s
            pss, qss = ps * s, qs * s
            source[c + j] += _mixed(k, 0, p, ps, pss, q, qs, qss)
            source[PITCH + c + j] += _mixed(k, 1, p, ps, pss, q, qs, qss)
            source[2 * PITCH + c + j] += _mixed(k, 2, p, ps, pss, q, qs, qss)
            source[3 * PITCH + c + j] += _mixed(k, 3, p, ps, pss, q, qs, qss)
            source[4 * PITCH + c + j] += _mixed(k, 4, p, ps, pss, q, qs, qss)
            source[5 * PITCH + c + j] += _mixed(k, 5, p, ps, pss, q, qs, qss)
            source[6 * PITCH + c + j] += _mixed(k, 6, p, ps, pss, q, qs, qss)
            source[7 * PITCH + c + j] += _mixed(k, 7, p, ps, pss, q, qs, qss)
            source[8 * PITCH + c + j] += _mixed(k, 8, p, ps, pss, q, qs, qss)
