"""Lines of voxels along a direction: planes across the dominant axis, one integer shift of rows and columns a plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class LineSteps:
    """How lines of one direction walk through a [z, y, x] array; every voxel lies on exactly one line.

    `axes` are the array axes of planes (dominant), rows and columns. The plane visited at step n is `planes[n]`; a line
    that starts
    in row j, column c lies there in row j + row_shift[n], column c + column_shift[n]. `step_cm` is the path in one voxel.
    """

    axes: tuple[int, int, int]
    planes: NDArray[np.int64]
    row_shift: NDArray[np.int64]
    column_shift: NDArray[np.int64]
    step_cm: float


PLANE_ROW_COLUMN = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # by dominant axis; columns are x wherever they can be


def line_steps(
    direction_xyz: NDArray[np.float64],
    shape_zyx: tuple[int, int, int],
    spacing_zyx_mm: tuple[float, float, float],
    phase: float = 0.5,
) -> LineSteps:
    """Steps of the lines along a unit vector; shifts are the whole part of slope times step plus `phase`.

    At phase 1/2 a line is half a voxel off the true one at most. All lines of a direction step aside in the same planes, so
    field edges waver with them; lines of phases 1/4 and 3/4 together waver half as much.
    """
    slope = np.asarray(direction_xyz, dtype=np.float64)[::-1] / np.asarray(spacing_zyx_mm)
    # Rounded, so that a tie between axes falls the same way whatever the last bit says.
    axis = int(np.argmax(np.round(np.abs(slope), 9)))
    axes = PLANE_ROW_COLUMN[axis]
    step = np.arange(shape_zyx[axis])
    planes = step if slope[axis] > 0 else step[::-1]

    def shift(other: int) -> NDArray[np.int64]:
        per_plane = slope[other] / abs(slope[axis])
        whole: NDArray[np.int64] = np.floor(np.round(abs(per_plane) * step + phase, 9)).astype(np.int64)
        return -whole if per_plane < 0 else whole

    return LineSteps(axes, planes.astype(np.int64), shift(axes[1]), shift(axes[2]), float(0.1 / abs(slope[axis])))
