"""Gamma index (Low et al., Med Phys 25:656, 1998) of an engine's dose at Monte Carlo voxels.

The evaluated dose at a shift is the engine's dose averaged over the Monte Carlo voxel moved by that shift, so that like is
compared with like: on voxels as large as the engine's own this is linear interpolation between its voxels. The shifts are a
lattice of a tenth of the distance criterion, and the segments from the best of them to its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.grid import Grid

Floats = NDArray[np.float64]
STEPS_PER_DISTANCE = 10
_BATCH_VALUES = 4_000_000


@dataclass(frozen=True, slots=True)
class Criterion:
    """Dose limit in the unit of the dose (global) and distance to agreement in mm."""

    dose_limit: float
    distance_mm: float


def averaged(dose: NDArray[np.floating], grid: Grid, edges_zyx_mm: Sequence[Floats]) -> Floats:
    """A dose on `grid` averaged over other voxels (edges by axis), exact for any overlap; NaN for those wholly outside."""
    result = np.asarray(dose, dtype=np.float64)
    for axis, edges in enumerate(edges_zyx_mm):
        cells = _cell_edges(grid, axis)
        share = _shares(edges[:-1], edges[1:], cells[:-1], cells[1:])
        result = np.moveaxis(np.tensordot(share, result, axes=(1, axis)), 0, axis)
    return result


def gamma_index(
    dose: NDArray[np.floating],
    grid: Grid,
    reference: Floats,
    edges_zyx_mm: Sequence[Floats],
    chosen: NDArray[np.bool_],
    criterion: Criterion,
) -> Floats:
    """Gamma of the chosen voxels of `reference` (z, y, x), in array order, searched as far as twice the distance criterion.

    Voxels within the dose limit where they are keep |difference| / limit, an upper bound: they pass. Values above 2 are told
    as 2.
    """
    difference = (averaged(dose, grid, edges_zyx_mm) - reference)[chosen]
    gamma = np.abs(difference) / criterion.dose_limit
    index = np.argwhere(chosen)
    wanted = reference[chosen]
    for reach in (1, 2):
        left = np.flatnonzero(gamma > 1)
        for part in np.array_split(left, max(1, len(left) * (2 * reach * STEPS_PER_DISTANCE + 1) ** 3 // _BATCH_VALUES)):
            if len(part):
                near = _searched(dose, grid, wanted[part], index[part], edges_zyx_mm, criterion, reach)
                gamma[part] = np.fmin(gamma[part], near)
    return np.fmin(gamma, 2.0)


def _searched(
    dose: NDArray[np.floating],
    grid: Grid,
    wanted: Floats,
    index_zyx: NDArray[np.int64],
    edges_zyx_mm: Sequence[Floats],
    criterion: Criterion,
    reach: int,
) -> Floats:
    """Smallest gamma of some voxels over all shifts up to `reach` times the distance criterion."""
    step = np.arange(-reach * STEPS_PER_DISTANCE, reach * STEPS_PER_DISTANCE + 1) / STEPS_PER_DISTANCE
    places, shares = [], []
    for axis in range(3):
        place, share = _local_shares(grid, axis, edges_zyx_mm[axis], index_zyx[:, axis], step * criterion.distance_mm)
        places.append(place)
        shares.append(share)
    block = np.asarray(dose, dtype=np.float32)[
        places[0][:, :, None, None], places[1][:, None, :, None], places[2][:, None, None, :]
    ]
    shifted = np.einsum("pak,pklm->palm", shares[0], block, optimize=True)
    shifted = np.einsum("pbl,palm->pabm", shares[1], shifted, optimize=True)
    shifted = np.einsum("pcm,pabm->pabc", shares[2], shifted, optimize=True)
    excess = (shifted - wanted.astype(np.float32)[:, None, None, None]) / np.float32(criterion.dose_limit)
    return _nearest(excess, step.astype(np.float32), reach)


def _nearest(excess: NDArray[np.float32], step: NDArray[np.float32], reach: int) -> Floats:
    """Smallest gamma over a lattice of shifts (in distance criteria) and the segments from the best shift to its neighbours.

    `excess` (P, S, S, S) in dose limits, linear along a segment: steep doses do not fall between two shifts.
    """
    distance2 = step[:, None, None] ** 2 + step[None, :, None] ** 2 + step[None, None, :] ** 2
    gamma2 = excess**2 + distance2
    gamma2[:, distance2 > reach**2 + 1e-5] = np.inf
    flat = np.where(np.isnan(gamma2), np.inf, gamma2).reshape(len(excess), -1)
    place = np.array(np.unravel_index(flat.argmin(axis=1), distance2.shape))
    points = np.arange(len(excess))
    best = flat.min(axis=1).astype(np.float64)
    start, start2 = excess[points, *place].astype(np.float64), distance2[tuple(place)].astype(np.float64)
    length = float(step[1] - step[0])
    for axis in range(3):
        for side in (-1, 1):
            other = place.copy()
            other[axis] = np.clip(place[axis] + side, 0, len(step) - 1)
            rise = np.nan_to_num(excess[points, *other] - start)
            along = side * step[place[axis]].astype(np.float64)
            part = np.clip(-(start * rise + along * length) / (rise**2 + length**2), 0, 1)
            best = np.fmin(best, (start + part * rise) ** 2 + start2 + part * length * (2 * along + part * length))
    return np.sqrt(best)


def _local_shares(
    grid: Grid, axis: int, edges_mm: Floats, voxel: NDArray[np.int64], shift_mm: Floats
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Engine cells about each voxel (P, K), and the share of each in the shifted voxel (P, shifts, K)."""
    cells = _cell_edges(grid, axis)
    width = cells[1] - cells[0]
    low, high = edges_mm[voxel], edges_mm[voxel + 1]
    count = int(np.ceil(((high - low).max() + 2 * shift_mm[-1]) / width)) + 1
    first = np.floor((low + shift_mm[0] - cells[0]) / width + 1e-9).astype(np.int64)
    place = first[:, None] + np.arange(count)
    inside = (place >= 0) & (place < len(cells) - 1)
    cell_low = cells[0] + place * width
    share = _shares(low[:, None] + shift_mm, high[:, None] + shift_mm, cell_low, cell_low + width, inside)
    return np.clip(place, 0, len(cells) - 2), share.astype(np.float32)


def _shares(
    low: Floats, high: Floats, cell_low: Floats, cell_high: Floats, inside: NDArray[np.bool_] | None = None
) -> Floats:
    """How much each cell (..., K) has of the intervals (..., n), (..., n, K): sums to 1 over the cells; NaN without any."""
    overlap = np.minimum(high[..., :, None], cell_high[..., None, :]) - np.maximum(low[..., :, None], cell_low[..., None, :])
    overlap = np.clip(overlap, 0, None)
    if inside is not None:
        overlap *= inside[..., None, :]
    total = overlap.sum(axis=-1, keepdims=True)
    return np.divide(overlap, total, out=np.full_like(overlap, np.nan), where=total > 0)


def _cell_edges(grid: Grid, axis: int) -> Floats:
    """Edges of a grid's voxels along array axis `axis` (z, y, x), mm."""
    step = grid.spacing_zyx_mm[axis]
    edges: Floats = grid.origin_xyz_mm[2 - axis] + step * (np.arange(grid.shape_zyx[axis] + 1) - 0.5)
    return edges
