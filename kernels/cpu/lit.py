"""Where energy is released, row by row of voxels, packed in the order in which CPU `superpose` reads it."""

# mypy: disable-error-code="no-untyped-def"
# Numba gives the compiled functions their types.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.contract import Released

BLOCK = 16  # columns that are worked on at a time
GROUPS = 2


def pack(
    released: Sequence[Released], axes: tuple[int, int, int], n_planes_rows: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """All beams' energies along planes, rows and columns `axes` of the grid, only the blocks of columns that are lit.

    Returns, per row and beam, first column, one past the last, and the place of the first group in the packed energies, the
    second group behind it (planes, rows, B, 3); the columns that any beam lights in a row (planes, rows, 2); the energies.
    """
    lit = np.zeros((*n_planes_rows, len(released), 3), dtype=np.int64)
    turned = [one.energy.transpose((0, *(a + 1 for a in axes))) for one in released]
    starts = [np.array(one.start_zyx)[list(axes)] for one in released]
    for b, (energy, start) in enumerate(zip(turned, starts, strict=True)):
        _find_lit(energy, start, lit[:, :, b])
    sizes = GROUPS * (lit[..., 1] - lit[..., 0]).reshape(-1)
    lit[..., 2] = (np.cumsum(sizes) - sizes).reshape(lit.shape[:3])
    packed = np.zeros(int(sizes.sum()), dtype=np.float32)
    for b, (energy, start) in enumerate(zip(turned, starts, strict=True)):
        _fill(energy, start, lit[:, :, b], packed)
    any_lit = lit[..., 1] > lit[..., 0]
    first = np.where(any_lit, lit[..., 0], np.iinfo(np.int32).max).min(axis=2)
    last = lit[..., 1].max(axis=2)
    return lit, np.stack([np.minimum(first, last), last], axis=-1).astype(np.int32), packed


def body_spans(density: NDArray[np.float32], n_rows: int) -> NDArray[np.int32]:
    """First and one past the last column of every row where there is anything; equal where there is nothing."""
    spans = np.zeros((density.shape[0], n_rows, 2), dtype=np.int32)
    _find_body(density, spans)
    return spans


@njit(cache=True, nogil=True, parallel=True)
def _find_body(density, spans):
    for p in prange(spans.shape[0]):
        for r in range(spans.shape[1]):
            spans[p, r, 0], spans[p, r, 1] = _extent(density[p, r])


@njit(cache=True, nogil=True, parallel=True)
def _find_lit(energy, start, lit):
    """First and one past the last lit column of each row, from block to block."""
    for p in prange(energy.shape[1]):
        for r in range(energy.shape[2]):
            first, last = energy.shape[3], 0
            for g in range(energy.shape[0]):
                own_first, own_last = _extent(energy[g, p, r])
                if own_last > own_first:
                    first, last = min(first, own_first), max(last, own_last)
            if last > first:
                row = lit[start[0] + p, start[1] + r]
                row[0] = (start[2] + first) // BLOCK * BLOCK
                row[1] = -(-(start[2] + last) // BLOCK) * BLOCK


@njit(cache=True, nogil=True, parallel=True)
def _fill(energy, start, lit, packed):
    """Copies the lit columns."""
    for p in prange(energy.shape[1]):
        for r in range(energy.shape[2]):
            first, last, at = lit[start[0] + p, start[1] + r]
            box_first = max(first - start[2], 0)
            box_last = min(last - start[2], energy.shape[3])
            for g in range(energy.shape[0]):
                to = at + g * (last - first) + start[2] - first
                for c in range(box_first, box_last):
                    packed[to + c] = energy[g, p, r, c]


@njit(cache=True, nogil=True)
def _extent(values):
    first, last = 0, len(values)
    while first < last and values[first] == 0:
        first += 1
    while last > first and values[last - 1] == 0:
        last -= 1
    return first, last
