"""Reference `deposit_columns`: NumPy float64, line by line. See `kernels.contract`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kernels.column_data import BeamletSources, Columns, ConeKernels, ConeLines, columns_of


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
    """Columns of the influence matrix."""
    density, bins = density_rel.astype(np.float64), hardness.reshape(-1)
    rows, values = [], []
    for first, last in pairwise(sources.block):
        share = np.zeros((last - first, density.size))
        for j in range(first, last):
            own = slice(sources.start[j], sources.start[j + 1])
            share[j - first, sources.voxel[own]] = sources.fraction[own] * released.reshape(-1)[sources.voxel[own]]
        energy = share * kernels.local.astype(np.float64)[bins]
        for k in range(len(lines.step_cm)):
            _cone(share, kernels.per_cone[first:last, k].astype(np.float64), bins, density, kernels, lines, k, energy)
        for dose in energy * dose_per_energy.reshape(-1):
            dose[row_of < 0] = 0.0
            kept = np.flatnonzero(dose > threshold * dose.max(initial=0.0))
            rows.append(row_of[kept].astype(np.int64))
            values.append(dose[kept])
    return columns_of(rows, values)


def _cone(
    share: NDArray[np.float64],
    cone: NDArray[np.float64],
    bins: NDArray[np.uint8],
    density: NDArray[np.float64],
    kernels: ConeKernels,
    lines: ConeLines,
    k: int,
    energy: NDArray[np.float64],
) -> None:
    """Adds the energy that cone k of one block deposits, (lane, voxel), line by line. `cone` (lane, H, I)."""
    places = np.arange(density.size).reshape(density.shape).transpose(lines.axes[k])
    places = places if lines.forward[k] else places[::-1]
    n_planes, n_rows, n_columns = (density.shape[a] for a in lines.axes[k])
    row_shift, column_shift = lines.row_shift[k, :n_planes], lines.column_shift[k, :n_planes]
    lit = share.max(axis=0) > 0
    for row in range(-max(row_shift.max(), 0), n_rows - min(row_shift.min(), 0)):
        for column in range(-max(column_shift.max(), 0), n_columns - min(column_shift.min(), 0)):
            r, c = row + row_shift, column + column_shift
            n = np.flatnonzero((r >= 0) & (r < n_rows) & (c >= 0) & (c < n_columns))
            voxels = places[n, r[n], c[n]]
            if lit[voxels].any():
                path_cm = density.reshape(-1)[voxels] * float(lines.step_cm[k])
                new = share[:, voxels, None] * cone[:, bins[voxels]]
                energy[:, voxels] += _along_line(
                    new, lit[voxels], path_cm, share.max(axis=1) / float(lines.step_cm[k]), kernels
                )


def _along_line(
    new: NDArray[np.float64],
    lit: NDArray[np.bool_],
    path_cm: NDArray[np.float64],
    largest_per_cm: NDArray[np.float64],
    kernels: ConeKernels,
) -> NDArray[np.float64]:
    """The recursion of `superpose` along one line: `new` (lane, voxel, I) released to deposited (lane, voxel)."""
    deposited = np.zeros(new.shape[:2])
    last = np.flatnonzero(lit)[-1]
    state, beyond = np.zeros((new.shape[0], new.shape[2])), 0.0
    for n in range(new.shape[1]):
        if path_cm[n] == 0:
            continue
        if beyond > kernels.reach_cm:
            break
        y = kernels.exponents_per_cm * path_cm[n]
        lost = -np.expm1(-y)
        left = state * lost + new[:, n] * (1.0 - lost / y)
        deposited[:, n] = left.sum(axis=1)
        state += new[:, n] - left
        if n > last:
            beyond += path_cm[n]
            if (deposited[:, n] <= kernels.negligible * largest_per_cm * path_cm[n]).all():
                break
    return deposited
