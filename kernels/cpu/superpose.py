"""CPU `superpose`: Numba, directions in parallel lanes. See `kernels.contract`."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.contract import GridGeometry
from kernels.lines import PLANE_ROW_COLUMN, line_steps

# Directions are dealt to a fixed number of lanes, each with its own dose, summed in order: the result does not depend on threads.
LANES = 8


def superpose(
    electron_density_rel: NDArray[np.floating],
    fields: NDArray[np.floating],
    cone_kernels: NDArray[np.floating],
    directions: NDArray[np.float64],
    *,
    grid: GridGeometry,
    smallest_exponent_per_cm: float,
) -> NDArray[np.float32]:
    """Energy deposited per cm³ (z, y, x), collapsed cones along lines of voxels. See `kernels.contract`."""
    total = np.zeros(grid.shape_zyx, dtype=np.float32)
    steps = [line_steps(d, grid.shape_zyx, grid.spacing_zyx_mm) for d in directions]
    for axes in PLANE_ROW_COLUMN:
        chosen = [k for k, s in enumerate(steps) if s.axes == axes]
        if not chosen:
            continue
        density = np.ascontiguousarray(np.asarray(electron_density_rel, dtype=np.float32).transpose(axes))
        turned = np.ascontiguousarray(np.asarray(fields, dtype=np.float32).transpose((0, *(a + 1 for a in axes))))
        lanes = np.zeros((min(LANES, len(chosen)), *density.shape), dtype=np.float32)
        _sweep(
            density,
            turned,
            _filled(np.abs(density)),
            np.stack([_filled(np.abs(f)) for f in turned]),
            np.ascontiguousarray(cone_kernels[chosen], dtype=np.float32),
            np.stack([steps[k].planes for k in chosen]),
            np.stack([steps[k].row_shift for k in chosen]),
            np.stack([steps[k].column_shift for k in chosen]),
            np.array([steps[k].step_cm * smallest_exponent_per_cm for k in chosen], dtype=np.float32),
            lanes,
        )
        for lane in lanes:
            total += lane.transpose(np.argsort(axes))
    return total


def _filled(array: NDArray[np.float32]) -> NDArray[np.int64]:
    """First and one-past-last non-zero column of every row, (planes, rows, 2); equal where the row is empty."""
    some = array > 0
    first = some.argmax(axis=-1)
    last = array.shape[-1] - some[..., ::-1].argmax(axis=-1)
    return np.stack([first, np.where(some.any(axis=-1), last, first)], axis=-1)


@njit(cache=True, nogil=True, fastmath=True, inline="never")
def _path_terms(density, path, m, q, deposit):
    """Of the smallest exponent: m = 1 - e^-y and q = 1 - m / y, for y = path * density. Series, good to 1e-6 up to y = 0.5."""
    for c in range(len(density)):
        y = path * density[c]
        sixth = np.float32(1 / 6) * y
        seventh = np.float32(1 / 7) * y
        one = np.float32(1)
        m[c] = y * (
            one
            - np.float32(1 / 2)
            * y
            * (one - np.float32(1 / 3) * y * (one - np.float32(1 / 4) * y * (one - np.float32(1 / 5) * y * (one - sixth))))
        )
        q[c] = (
            np.float32(1 / 2)
            * y
            * (
                one
                - np.float32(1 / 3)
                * y
                * (one - np.float32(1 / 4) * y * (one - np.float32(1 / 5) * y * (one - sixth * (one - seventh))))
            )
        )
        deposit[c] = 0


@njit(cache=True, nogil=True, fastmath=True, inline="never")
def _component(state, source, m, q, deposit):
    """One component through one row: deposit, pass on, and double the exponent (m and q of 2y from those of y)."""
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    for c in range(len(m)):
        here = state[c] * m[c] + source[c] * q[c]
        deposit[c] += here
        state[c] += source[c] - here
        q[c] += half * m[c] * (one - q[c])
        m[c] *= two - m[c]


@njit(cache=True, nogil=True, fastmath=True, inline="never")
def _add(total, part):
    for c in range(len(part)):
        total[c] += part[c]


@njit(cache=True, nogil=True, fastmath=True, inline="never")
def _add_scaled(total, part, factor):
    for c in range(len(part)):
        total[c] += factor * part[c]


@njit(cache=True, nogil=True, fastmath=True, parallel=True)
def _sweep(density, fields, body, filled, kernels, planes, row_shift, column_shift, path, lanes):
    """Adds the deposited energy of direction k to lane k % n_lanes."""
    for lane in prange(len(lanes)):
        for k in range(lane, len(kernels), len(lanes)):
            _direction(
                density, fields, body, filled, kernels[k], planes[k], row_shift[k], column_shift[k], path[k], lanes[lane]
            )


@njit(cache=True, nogil=True, fastmath=True)
def _direction(density, fields, body, filled, kernel, planes, row_shift, column_shift, path, out):
    """All lines of one direction. Lines that start in one row move together; their state stays in the cache."""
    n_planes, n_rows, n_columns = density.shape
    n_fields, n_comp = kernel.shape
    offset = max(column_shift[-1], 0)
    width = n_columns + abs(column_shift[-1])
    state = np.zeros((n_comp, width), dtype=np.float32)
    source = np.zeros((n_comp, n_columns), dtype=np.float32)
    m, q, deposit = np.empty(n_columns, np.float32), np.empty(n_columns, np.float32), np.empty(n_columns, np.float32)
    for line in range(-max(row_shift[-1], 0), n_rows - min(row_shift[-1], 0)):
        active_from, active_to = width, 0  # line columns that have carried anything yet
        for n in range(n_planes):
            row = line + row_shift[n]
            if row < 0 or row >= n_rows:
                continue
            plane = planes[n]
            first, last = body[plane, row, 0], body[plane, row, 1]
            to_line = offset - column_shift[n]
            lit_from, lit_to = n_columns, 0
            for f in range(n_fields):
                if filled[f, plane, row, 1] > filled[f, plane, row, 0]:
                    lit_from = min(lit_from, filled[f, plane, row, 0])
                    lit_to = max(lit_to, filled[f, plane, row, 1])
            if lit_to > lit_from:
                if active_to == 0:
                    state[:] = 0
                active_from = min(active_from, lit_from + to_line)
                active_to = max(active_to, lit_to + to_line)
            a = max(first, active_from - to_line)
            b = min(last, active_to - to_line)
            if a >= b:
                continue
            source[:, a:b] = 0
            for f in range(n_fields):
                fa, fb = max(a, filled[f, plane, row, 0]), min(b, filled[f, plane, row, 1])
                if fb > fa:
                    for i in range(n_comp):
                        _add_scaled(source[i, fa:fb], fields[f, plane, row, fa:fb], kernel[f, i])
            _path_terms(density[plane, row, a:b], path, m[a:b], q[a:b], deposit[a:b])
            for i in range(n_comp):
                _component(state[i, a + to_line : b + to_line], source[i, a:b], m[a:b], q[a:b], deposit[a:b])
            _add(out[plane, row, a:b], deposit[a:b])
