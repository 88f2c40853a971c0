"""A CT to the grid that the network sees, and what the network says back to the CT's own voxels.

Geometry: both grids have the same centre of volume. The working grid has the fewest voxels of its spacing that cover the CT
to its outer faces, so it reaches beyond them by less than half a voxel on each side, and a mirrored CT gives the mirrored
grid. Along an axis where the CT is finer than the working grid a voxel is a mean over its own extent (no aliasing); where it
is coarser or equal, values are interpolated linearly between voxel centres. The two agree where the spacings meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from segmentation.contract import Float3

AIR_HU = -1000.0
_SAME = 1e-6  # of a voxel: what rounding of a spacing must not turn into another voxel

Shape3 = tuple[int, int, int]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Working:
    """A CT on the working grid, and where it came from. `hu` (z, y, x) float32; spacings in mm."""

    hu: NDArray[np.float32]
    spacing_zyx_mm: Float3
    source_shape_zyx: Shape3
    source_spacing_zyx_mm: Float3


def to_working_grid(hu_zyx: NDArray[Any], spacing_zyx_mm: Float3, working_spacing_zyx_mm: Float3) -> Working:
    """A volume (z, y, x) of any real type on the working grid, float32. A mask becomes the fraction of each voxel it fills.

    One slice at a time: besides the result and the volume given, only stacks of the working grid's plane are held.
    """
    source = _shape3(hu_zyx.shape)
    spacing, target = _spacing(spacing_zyx_mm), _spacing(working_spacing_zyx_mm)
    shape = _shape3([_count(n, s, t) for n, s, t in zip(source, spacing, target, strict=True)])
    along = [_weights(n, s, m, t) for n, s, m, t in zip(source, spacing, shape, target, strict=True)]
    return Working(_resampled(hu_zyx, along), target, source, spacing)


def from_working_grid(
    probability: NDArray[np.float32], working: Working, shape_zyx: tuple[int, ...], box: Box | None = None
) -> NDArray[np.float32]:
    """Values of the working grid at the CT's voxel centres, linear, float32 of `shape_zyx`, or of a `box` of it (indices).

    Raises ValueError when the array is not of the working grid, or the shape not that of the CT that `working` came from.
    """
    if probability.shape != working.hu.shape or tuple(shape_zyx) != working.source_shape_zyx:
        expected = f"expected {working.hu.shape} and {working.source_shape_zyx}"
        raise ValueError(f"array {probability.shape} for a CT {tuple(shape_zyx)}: {expected}")
    along = []
    for axis in range(3):
        weights = _linear(
            probability.shape[axis],
            working.spacing_zyx_mm[axis],
            working.source_shape_zyx[axis],
            working.source_spacing_zyx_mm[axis],
        )
        along.append(weights[box[axis]] if box is not None else weights)
    return _resampled(probability, along)


def source_box(working: Working, box: Box) -> Box:
    """Indices of the CT's voxels whose centres lie within a box of the working grid, or nearest to it: never empty."""
    first = source_index(working, (box[0].start, box[1].start, box[2].start))
    last = source_index(working, (box[0].stop - 1, box[1].stop - 1, box[2].stop - 1))
    z, y, x = (slice(low, high + 1) for low, high in zip(first, last, strict=True))
    return z, y, x


def source_index(working: Working, index_zyx: tuple[int, int, int]) -> Shape3:
    """Index of the CT's voxel whose centre is nearest to that of a voxel of the working grid."""
    found = []
    for axis, index in enumerate(index_zyx):
        n, step = working.source_shape_zyx[axis], working.source_spacing_zyx_mm[axis]
        centres = _centres(working.hu.shape[axis], working.spacing_zyx_mm[axis], n, step)
        found.append(int(np.clip(np.rint(centres[index]), 0, n - 1)))
    return found[0], found[1], found[2]


def network_input(hu: NDArray[np.float32], windows_hu: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """What the network is given of HU (z, y, x): a channel a window, each from -1 to 1. float32 (windows, z, y, x)."""
    return np.stack([_windowed(hu, low, high) for low, high in windows_hu])


def _windowed(hu: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    scaled = (np.asarray(hu, np.float32) - np.float32((low + high) / 2)) * np.float32(2 / (high - low))
    return np.asarray(np.clip(scaled, np.float32(-1), np.float32(1)), np.float32)


def _shape3(shape: Any) -> Shape3:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape {tuple(shape)}: expected three axes with voxels")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _spacing(spacing_zyx_mm: Float3) -> Float3:
    z, y, x = (float(value) for value in spacing_zyx_mm)
    if not all(math.isfinite(value) and value > 0 for value in (z, y, x)):
        raise ValueError(f"spacing {spacing_zyx_mm} mm: expected three positive lengths")
    return z, y, x


def _count(n: int, spacing: float, target: float) -> int:
    return max(1, math.ceil(n * spacing / target - _SAME))


def _weights(n: int, spacing: float, m: int, target: float) -> sparse.csr_array:
    """(m, n) weights that take n voxels to m larger ones by averaging, or to m smaller ones linearly."""
    if spacing < target * (1 - _SAME):
        return _averaging(n, spacing, m, target)
    return _linear(n, spacing, m, target)


def _centres(m: int, target: float, n: int, spacing: float) -> NDArray[np.float64]:
    """Centres of m voxels as fractional indices of n others with the same centre of volume."""
    return np.asarray((np.arange(m) - (m - 1) / 2) * (target / spacing) + (n - 1) / 2, np.float64)


def _linear(n: int, spacing: float, m: int, target: float) -> sparse.csr_array:
    """Linear interpolation between voxel centres; beyond the last centre its value goes on."""
    at = np.clip(_centres(m, target, n, spacing), 0, n - 1)
    low = np.minimum(at.astype(np.intp), max(0, n - 2))
    share = at - low
    high = np.minimum(low + 1, n - 1)
    rows = np.arange(m)
    values = np.concatenate([1 - share, share]).astype(np.float32)
    return sparse.csr_array((values, (np.tile(rows, 2), np.concatenate([low, high]))), shape=(m, n))


def _averaging(n: int, spacing: float, m: int, target: float) -> sparse.csr_array:
    """Mean of the linear interpolant around each centre, over as much as makes its second moment that of the larger voxel.

    Unlike the overlap of voxels that are each constant this moves nothing: it is exact on a ramp wherever the centres lie.
    """
    centre = _centres(m, target, n, spacing)
    width = math.sqrt((target / spacing) ** 2 - 1)
    source = np.floor(centre - width / 2).astype(np.intp)[:, None] + np.arange(math.ceil(width) + 3)
    from_start, to_end = (centre - width / 2)[:, None] - source, (centre + width / 2)[:, None] - source
    share = (_hat_integral(to_end) - _hat_integral(from_start)) / width
    rows, kept = np.repeat(np.arange(m), source.shape[1]), share.ravel() > 0
    columns = np.clip(source.ravel(), 0, n - 1)  # beyond the CT its last value goes on
    return sparse.csr_array((share.ravel()[kept].astype(np.float32), (rows[kept], columns[kept])), shape=(m, n))


def _hat_integral(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral from the left up to u of the hat of linear interpolation, max(0, 1 - |u|)."""
    u = np.clip(u, -1.0, 1.0)
    return 0.5 + u - 0.5 * u * np.abs(u)


def _resampled(volume: NDArray[Any], along: list[sparse.csr_array]) -> NDArray[np.float32]:
    """Weights along z, y and x applied to a volume, slice by slice, along z on the side with the smaller planes."""
    along_z, along_y, along_x = along
    columns = along_x.T.tocsr()
    if along_y.shape[0] * along_x.shape[0] <= along_y.shape[1] * along_x.shape[1]:
        return _mixed_slices(np.stack([_plane(plane, along_y, columns) for plane in volume]), along_z)
    out = np.empty((along_z.shape[0], along_y.shape[0], along_x.shape[0]), np.float32)
    for k, plane in enumerate(_mixed_slices(np.asarray(volume, np.float32), along_z)):
        out[k] = _plane(plane, along_y, columns)
    return out


def _mixed_slices(stack: NDArray[np.float32], along_z: sparse.csr_array) -> NDArray[np.float32]:
    mixed = along_z @ stack.reshape(len(stack), -1)
    return np.asarray(mixed, np.float32).reshape(along_z.shape[0], *stack.shape[1:])


def _plane(plane: NDArray[Any], along_y: sparse.csr_array, columns: sparse.csr_array) -> NDArray[np.float32]:
    return np.asarray((along_y @ np.ascontiguousarray(plane, np.float32)) @ columns, np.float32)
