"""CPU `superpose`: Numba, directions in parallel lanes. See `kernels.contract`.

Written for the vector units: the innermost loops run over neighbouring voxels of one row, all components in registers,
and the
state of all lines that start in one row stays in the first-level cache.
"""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, GridGeometry
from kernels.lines import PLANE_ROW_COLUMN, line_steps

# Directions are dealt to a fixed number of lanes, each with its own dose, summed in order: threads do not change the result.
LANES = 8
COMPONENTS = 9  # fixed, so that the compiler unrolls
PITCH = 2064  # floats between components; fixed for the same reason, and no power of two, which would thrash the cache
N_TERMS = 6

_ONE, _TWO, _HALF = np.float32(1), np.float32(2), np.float32(1 / 2)
_THIRD, _QUARTER, _FIFTH, _SIXTH = np.float32(1 / 3), np.float32(1 / 4), np.float32(1 / 5), np.float32(1 / 6)
_SEVENTH = np.float32(1 / 7)


def superpose(
    electron_density_rel: NDArray[np.floating],
    released: NDArray[np.floating],
    cone_kernels: NDArray[np.floating],
    directions: NDArray[np.float64],
    *,
    grid: GridGeometry,
    beams: Sequence[BeamGeometry],
    smallest_exponent_per_cm: float,
) -> NDArray[np.float32]:
    """Energy deposited per cm³ (z, y, x), collapsed cones along lines of voxels. See `kernels.contract`.

    Raises ValueError for more than 9 components or a grid whose lines spread over more than 2064 columns.
    """
    n_beams, n_directions, n_fields, n_comp = cone_kernels.shape
    if n_comp > COMPONENTS or 2 * max(grid.shape_zyx) > PITCH:
        raise ValueError(
            f"{n_comp} components and grid {grid.shape_zyx}: at most {COMPONENTS}, and {PITCH // 2} voxels a side"
        )
    kernels = np.zeros((n_directions, n_beams, n_fields // N_TERMS, N_TERMS, COMPONENTS), dtype=np.float32)
    kernels[..., :n_comp] = cone_kernels.reshape(n_beams, n_directions, -1, N_TERMS, n_comp).transpose(1, 0, 2, 3, 4)
    total = np.zeros(grid.shape_zyx, dtype=np.float32)
    steps = [line_steps(d, grid.shape_zyx, grid.spacing_zyx_mm) for d in directions]
    for axes in PLANE_ROW_COLUMN:
        chosen = [k for k, s in enumerate(steps) if s.axes == axes]
        if not chosen:
            continue
        density = np.ascontiguousarray(np.asarray(electron_density_rel, dtype=np.float32).transpose(axes))
        turned = np.ascontiguousarray(np.asarray(released, dtype=np.float32).transpose((0, 1, *(a + 2 for a in axes))))
        lanes = np.zeros((min(LANES, len(chosen)), *density.shape), dtype=np.float32)
        _sweep(
            density,
            turned,
            _filled(density > 0),
            np.stack([_filled(one.any(axis=0)) for one in turned]),
            np.stack([_affine(beam, grid, axes) for beam in beams]),
            kernels[chosen],
            np.stack([steps[k].planes for k in chosen]),
            np.stack([steps[k].row_shift for k in chosen]),
            np.stack([steps[k].column_shift for k in chosen]),
            np.array([steps[k].step_cm * smallest_exponent_per_cm for k in chosen], dtype=np.float32),
            lanes,
        )
        for lane in lanes:
            total += lane.transpose(np.argsort(axes))
    return total


def _filled(some: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First and one-past-last true column of every row, (planes, rows, 2); equal where the row is empty."""
    first = some.argmax(axis=-1)
    last = some.shape[-1] - some[..., ::-1].argmax(axis=-1)
    return np.stack([first, np.where(some.any(axis=-1), last, first)], axis=-1)


def _affine(beam: BeamGeometry, grid: GridGeometry, axes: tuple[int, int, int]) -> NDArray[np.float32]:
    """Beam coordinates (x, y, away from the source; mm) of voxel (plane, row, column): constant and a step each, (3, 4)."""
    towards = np.stack([beam.axes[0], beam.axes[1], -beam.axes[2]])
    origin = towards @ (np.array(grid.origin_xyz_mm) - beam.source_xyz_mm)
    per_index = towards[:, ::-1] * np.array(grid.spacing_zyx_mm)  # columns z, y, x
    return np.concatenate([origin[:, None], per_index[:, list(axes)]], axis=1).astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _path_terms(y):
    """m = 1 - e^-y and q = 1 - m / y for small y, by their series: good to 2e-6 of themselves up to y = 0.4."""
    m = y * (_ONE - _HALF * y * (_ONE - _THIRD * y * (_ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y)))))
    q = (
        _HALF
        * y
        * (_ONE - _THIRD * y * (_ONE - _QUARTER * y * (_ONE - _FIFTH * y * (_ONE - _SIXTH * y * (_ONE - _SEVENTH * y)))))
    )
    return m, q


@njit(cache=True, nogil=True, fastmath=True)
def _pass_with_source(state, source, density, path, out):
    """One row of voxels: deposit of what arrives and what is released there, all components.

    From one exponent to the next, which is twice as large: m(2y) = m (2 - m), q(2y) = q + m (1 - q) / 2.
    """
    for c in range(len(density)):
        m, q = _path_terms(path * density[c])
        deposit = np.float32(0)
        for i in range(COMPONENTS):
            arriving, new = state[i * PITCH + c], source[i * PITCH + c]
            here = arriving * m + new * q
            deposit += here
            state[i * PITCH + c] = arriving + (new - here)
            q += _HALF * m * (_ONE - q)
            m *= _TWO - m
        out[c] += deposit


@njit(cache=True, nogil=True, fastmath=True)
def _pass(state, density, path, out):
    """One row of voxels where nothing is released."""
    for c in range(len(density)):
        m, _ = _path_terms(path * density[c])
        deposit = np.float32(0)
        for i in range(COMPONENTS):
            arriving = state[i * PITCH + c]
            here = arriving * m
            deposit += here
            state[i * PITCH + c] = arriving - here
            m *= _TWO - m
        out[c] += deposit


@njit(cache=True, nogil=True, fastmath=True)
def _add_source(source, released, u, v, kernel):
    """Adds one group's released energy times its cone kernel at the ray's slopes (terms of `cones.tilt_terms`)."""
    for c in range(len(released)):
        t = released[c]
        tu, tv = t * u[c], t * v[c]
        tuu, tuv, tvv = tu * u[c], tu * v[c], tv * v[c]
        for i in range(COMPONENTS):
            low = t * kernel[0, i] + tu * kernel[1, i] + tv * kernel[2, i]
            source[i * PITCH + c] += low + tuu * kernel[3, i] + tuv * kernel[4, i] + tvv * kernel[5, i]


@njit(cache=True, nogil=True, fastmath=True)
def _slopes(affine, plane, row, first, u, v):
    """Slopes of the rays through the voxels of a row from column `first` on."""
    x = affine[0, 0] + plane * affine[0, 1] + row * affine[0, 2]
    y = affine[1, 0] + plane * affine[1, 1] + row * affine[1, 2]
    z = affine[2, 0] + plane * affine[2, 1] + row * affine[2, 2]
    for c in range(len(u)):
        column = np.float32(first + c)
        inverse = _ONE / (np.float32(z) + column * affine[2, 3])
        u[c] = (np.float32(x) + column * affine[0, 3]) * inverse
        v[c] = (np.float32(y) + column * affine[1, 3]) * inverse


@njit(cache=True, nogil=True, parallel=True)
def _sweep(density, released, body, lit, affine, kernels, planes, row_shift, column_shift, path, lanes):
    """Adds the deposited energy of direction k to lane k % n_lanes."""
    for lane in prange(len(lanes)):
        state, source = np.zeros(COMPONENTS * PITCH, np.float32), np.zeros(COMPONENTS * PITCH, np.float32)
        slopes = np.empty((2, density.shape[2]), np.float32)
        for k in range(lane, len(kernels), len(lanes)):
            shifts = row_shift[k], column_shift[k]
            _direction(
                density,
                released,
                body,
                lit,
                affine,
                kernels[k],
                planes[k],
                shifts,
                path[k],
                state,
                source,
                slopes,
                lanes[lane],
            )


@njit(cache=True, nogil=True)
def _direction(density, released, body, lit, affine, kernel, planes, shifts, path, state, source, slopes, out):
    """All lines of one direction; lines that start in one row move together."""
    n_planes, n_rows, n_columns = density.shape
    row_shift, column_shift = shifts
    n_beams, n_groups = kernel.shape[:2]
    offset = max(column_shift[-1], 0)
    width = n_columns + abs(column_shift[-1])
    for line in range(-max(row_shift[-1], 0), n_rows - min(row_shift[-1], 0)):
        active_from, active_to = width, 0  # line columns that have carried anything yet
        for n in range(n_planes):
            row, plane = line + row_shift[n], planes[n]
            if row < 0 or row >= n_rows:
                continue
            to_line = offset - column_shift[n]
            lit_from, lit_to = n_columns, 0
            for b in range(n_beams):
                if lit[b, plane, row, 1] > lit[b, plane, row, 0]:
                    lit_from, lit_to = min(lit_from, lit[b, plane, row, 0]), max(lit_to, lit[b, plane, row, 1])
            if lit_to > lit_from:
                if active_to == 0:
                    for i in range(COMPONENTS):
                        state[i * PITCH : i * PITCH + width] = 0
                active_from, active_to = min(active_from, lit_from + to_line), max(active_to, lit_to + to_line)
            a, b_end = max(body[plane, row, 0], active_from - to_line), min(body[plane, row, 1], active_to - to_line)
            if a >= b_end:
                continue
            row_density, row_out, row_state = density[plane, row, a:b_end], out[plane, row, a:b_end], state[a + to_line :]
            if lit_to <= lit_from:
                _pass(row_state, row_density, path, row_out)
                continue
            for i in range(COMPONENTS):
                source[i * PITCH + a : i * PITCH + b_end] = 0
            for b in range(n_beams):
                fa, fb = max(a, lit[b, plane, row, 0]), min(b_end, lit[b, plane, row, 1])
                if fb > fa:
                    u, v = slopes[0, : fb - fa], slopes[1, : fb - fa]
                    _slopes(affine[b], plane, row, fa, u, v)
                    for g in range(n_groups):
                        _add_source(source[fa:], released[b, g, plane, row, fa:fb], u, v, kernel[b, g])
            _pass_with_source(row_state, source[a:], row_density, path, row_out)
