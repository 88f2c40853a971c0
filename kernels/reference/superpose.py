"""Reference of `superpose`: NumPy float64, one line step at a time. See `kernels.contract`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.cones import tilt_terms
from kernels.contract import BeamGeometry, GridGeometry, Released
from kernels.lines import LineSteps, line_steps


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
    """Energy deposited per cm³ (z, y, x), collapsed cones along lines of voxels. See `kernels.contract`."""
    total = np.zeros(grid.shape_zyx)
    density = np.asarray(electron_density_rel, dtype=np.float64)
    fields = np.concatenate([_tilted(one, beam, grid) for one, beam in zip(released, beams, strict=True)])
    kernels = np.concatenate(list(cone_kernels.astype(np.float64)), axis=1)  # (K, all beams' fields, I)
    exponents = smallest_exponent_per_cm * np.exp2(np.arange(kernels.shape[2], dtype=np.float64))
    for direction, phase, kernel in zip(directions, phases, kernels, strict=True):
        steps = line_steps(direction, grid.shape_zyx, grid.spacing_zyx_mm, phase)
        source: NDArray[np.float64] = np.einsum("fzyx,fi->zyxi", fields, kernel)
        total += _one_direction(density, source, steps, exponents)
    return total.astype(np.float32)


def _tilted(released: Released, beam: BeamGeometry, grid: GridGeometry) -> NDArray[np.float64]:
    """A beam's released energy times each tilt term of its rays: (G * terms, z, y, x)."""
    energy = np.zeros((len(released.energy), *grid.shape_zyx))
    energy[(slice(None), *released.box)] = released.energy
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape_zyx), indexing="ij"), axis=-1)
    points = index[..., ::-1] * np.array(grid.spacing_zyx_mm[::-1]) + np.array(grid.origin_xyz_mm)
    x, y, z = np.moveaxis((points - beam.source_xyz_mm) @ beam.axes.T, -1, 0)
    terms = tilt_terms(x / -z, y / -z)
    return np.stack([group * term for group in energy for term in terms])


def _one_direction(
    density: NDArray[np.float64], released: NDArray[np.float64], steps: LineSteps, exponents: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Walks all lines of a direction plane by plane; the state of a line leaves with it when it leaves the grid."""
    deposit = np.zeros_like(density)
    planes_density = density.transpose(steps.axes)
    planes_released = released.transpose((*steps.axes, 3))
    planes_deposit = deposit.transpose(steps.axes)
    state = np.zeros(planes_released.shape[1:])
    rows, columns = (0, *np.diff(steps.row_shift)), (0, *np.diff(steps.column_shift))
    for plane, row, column in zip(steps.planes, rows, columns, strict=False):
        state = _shifted(state, row, column)
        path = planes_density[plane][..., None] * steps.step_cm * exponents
        decay = np.exp(-path)
        mean_decay = np.divide(-np.expm1(-path), path, out=np.ones_like(path), where=path > 0)
        new = planes_released[plane]
        after = state * decay + new * mean_decay
        planes_deposit[plane] = (state + new - after).sum(axis=-1)
        state = after
    return deposit


def _shifted(state: NDArray[np.float64], row: int, column: int) -> NDArray[np.float64]:
    """The state of lines moved by whole rows and columns; new lines start empty."""
    moved = np.zeros_like(state)
    n_rows, n_columns = state.shape[:2]
    to_row, from_row = slice(max(row, 0), n_rows + min(row, 0)), slice(max(-row, 0), n_rows + min(-row, 0))
    to_col, from_col = slice(max(column, 0), n_columns + min(column, 0)), slice(max(-column, 0), n_columns + min(-column, 0))
    moved[to_row, to_col] = state[from_row, from_col]
    return moved
