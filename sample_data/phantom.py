"""What a phantom is, and the implicit shapes it is drawn with.

A shape is a field over the voxel centres, roughly its signed distance in mm and negative inside. Union is `np.minimum`,
intersection `np.maximum`, and `field - margin` grows it. The contour of a structure is the zero line of its field, so
rasterising the contour at voxel centres gives back the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from rtplan.domain.grid import Grid

Field = NDArray[np.float64]
AIR_HU = -1000
_ON_THE_LINE_MM = 0.05
_FAR_MM = 15.0


@dataclass(frozen=True, slots=True)
class Roi:
    """A structure of a phantom: the sender's name, the RT ROI interpreted type, and its field (z, y, x) mm."""

    name: str
    interpreted_type: str
    field: Field

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels whose centre is inside."""
        return self.field < 0


@dataclass(frozen=True, slots=True)
class Phantom:
    """A CT volume (z, y, x) int16 HU on a grid, and its structures. Head first supine."""

    name: str
    title: str
    protocol_id: str
    body_part: str  # DICOM Body Part Examined; empty for no body
    grid: Grid
    hu: NDArray[np.int16]
    rois: tuple[Roi, ...]
    with_targets_alone: bool = False  # whether there is a second structure set that leaves the organs to a model

    @property
    def masks(self) -> Mapping[str, NDArray[np.bool_]]:
        """Masks by the sender's structure name."""
        return {roi.name: roi.mask for roi in self.rois}


def roi(name: str, interpreted_type: str, field: Field) -> Roi:
    """A structure whose surface passes through no voxel centre, so that no rounding decides about a voxel."""
    return Roi(name, interpreted_type, np.where(np.abs(field) < _ON_THE_LINE_MM, _ON_THE_LINE_MM, field))


def centred_grid(
    shape_zyx: tuple[int, int, int], spacing_zyx_mm: tuple[float, float, float], centre_z_mm: float = 0.0
) -> Grid:
    """Grid centred on x = y = 0 and the given z."""
    half = [(n - 1) * s / 2 for n, s in zip(shape_zyx, spacing_zyx_mm, strict=True)]
    return Grid(shape_zyx, spacing_zyx_mm, (-half[2], -half[1], centre_z_mm - half[0]))


def axes(grid: Grid) -> tuple[Field, Field, Field]:
    """z, y and x of the voxel centres, mm, shaped to broadcast to (z, y, x)."""
    return grid.z_mm()[:, None, None], grid.y_mm()[None, :, None], grid.x_mm()[None, None, :]


def slab(coordinate: Field, low_mm: float, high_mm: float) -> Field:
    """What lies between two planes."""
    return np.maximum(low_mm - coordinate, coordinate - high_mm)


def ellipsoid(grid: Grid, centre_xyz_mm: Sequence[float], semi_xyz_mm: Sequence[float]) -> Field:
    """An axis-aligned ellipsoid; distances are right on the surface's short axes and approximate elsewhere."""
    z, y, x = axes(grid)
    (cx, cy, cz), (ax, ay, az) = centre_xyz_mm, semi_xyz_mm
    radius = np.sqrt(((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 + ((z - cz) / az) ** 2)
    return (radius - 1.0) * min(ax, ay, az)


def loft(grid: Grid, knots: Sequence[tuple[float, float, float, float, float]], exponent: float = 2.0) -> Field:
    """A tube of (super)ellipses through knots (z, centre x, centre y, semi-axis x, semi-axis y) mm, sorted by z.

    Between knots by monotone cubics, flat ends.
    """
    z, y, x = axes(grid)
    table = np.array(knots)
    inside = np.clip(z, table[0, 0], table[-1, 0])
    cx, cy, ax, ay = (PchipInterpolator(table[:, 0], table[:, i])(inside) for i in range(1, 5))
    radius = (np.abs((x - cx) / ax) ** exponent + np.abs((y - cy) / ay) ** exponent) ** (1.0 / exponent)
    return np.maximum((radius - 1.0) * np.minimum(ax, ay), slab(z, table[0, 0], table[-1, 0]))


def tube(grid: Grid, points_xyz_mm: Sequence[Sequence[float]], radius_mm: float) -> Field:
    """A round rod along straight pieces between points. Beyond `_FAR_MM` from a piece the field only says "far"."""
    nearest = np.full(grid.shape_zyx, (radius_mm + _FAR_MM) ** 2)
    for start, end in pairwise(points_xyz_mm):
        a, b = np.array(start, dtype=float), np.array(end, dtype=float)
        reach = radius_mm + _FAR_MM
        corners = grid.to_index(np.array([np.minimum(a, b) - reach, np.maximum(a, b) + reach]))
        low = np.clip(np.floor(corners[0]), 0, None).astype(int)
        box = tuple(slice(i, int(j) + 2) for i, j in zip(low, np.maximum(corners[1], 0), strict=True))
        z, y, x = (axis[tuple(box[i] if i == n else slice(None) for i in range(3))] for n, axis in enumerate(axes(grid)))
        along = b - a
        t = np.clip(((x - a[0]) * along[0] + (y - a[1]) * along[1] + (z - a[2]) * along[2]) / (along @ along), 0, 1)
        squared = (x - a[0] - t * along[0]) ** 2 + (y - a[1] - t * along[1]) ** 2 + (z - a[2] - t * along[2]) ** 2
        nearest[box] = np.minimum(nearest[box], squared)
    return np.sqrt(nearest) - radius_mm


def blend(first: Field, second: Field, width_mm: float) -> Field:
    """Union with a rounded groove of about `width_mm` (polynomial smooth minimum)."""
    overlap = np.maximum(width_mm - np.abs(first - second), 0.0) / width_mm
    return np.minimum(first, second) - overlap**2 * width_mm / 4.0


def without(field: Field, *others: Field) -> Field:
    """What of `field` lies in none of the others."""
    for other in others:
        field = np.maximum(field, -other)
    return field


def noise_hu(shape_zyx: tuple[int, int, int], sigma_hu: float) -> Field:
    """Reproducible noise: the sum of the eight bytes of a hash of the voxel's index (splitmix64), scaled to `sigma_hu`.

    No random generator of a library, whose stream may change with its version.
    """
    h = np.arange(1, int(np.prod(shape_zyx)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h = h ^ (h >> np.uint64(31))
    total = h.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)
    one_byte_sigma = np.sqrt((256**2 - 1) / 12.0)
    return ((total - 8 * 127.5) / (one_byte_sigma * np.sqrt(8.0)) * sigma_hu).reshape(shape_zyx)
