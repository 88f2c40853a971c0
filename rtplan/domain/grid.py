"""Voxel grids in DICOM patient coordinates. The only place that converts indices to points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float3 = tuple[float, float, float]
Int3 = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Grid:
    """A right-handed, axis-aligned voxel grid: arrays are [z, y, x], points are LPS (x, y, z) in mm.

    x grows to the patient's left, y to posterior, z to superior. `origin_xyz_mm` is the centre of voxel [0, 0, 0].
    Series stored along other axis directions are flipped at ingest, so that every Grid in the engine is this one.
    """

    shape_zyx: Int3
    spacing_zyx_mm: Float3
    origin_xyz_mm: Float3

    def __post_init__(self) -> None:
        if min(self.shape_zyx) < 1 or not all(np.isfinite(self.spacing_zyx_mm)) or min(self.spacing_zyx_mm) <= 0:
            raise ValueError(f"grid shape {self.shape_zyx} or spacing {self.spacing_zyx_mm} is not positive")
        if not all(np.isfinite(self.origin_xyz_mm)):
            raise ValueError(f"grid origin {self.origin_xyz_mm} is not finite")

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape_zyx))

    @property
    def voxel_cc(self) -> float:
        """Volume of one voxel, cm³."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000.0

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4 matrix that takes the index (x, y, z, 1) to LPS mm."""
        matrix = np.diag([*self.spacing_zyx_mm[::-1], 1.0])
        matrix[:3, 3] = self.origin_xyz_mm
        return matrix

    def x_mm(self) -> NDArray[np.float64]:
        """Voxel centres along x, (nx,) mm."""
        return self._centres_mm(2)

    def y_mm(self) -> NDArray[np.float64]:
        """Voxel centres along y, (ny,) mm."""
        return self._centres_mm(1)

    def z_mm(self) -> NDArray[np.float64]:
        """Voxel centres along z, (nz,) mm."""
        return self._centres_mm(0)

    def _centres_mm(self, axis: int) -> NDArray[np.float64]:
        steps = np.arange(self.shape_zyx[axis], dtype=np.float64)
        return self.origin_xyz_mm[2 - axis] + self.spacing_zyx_mm[axis] * steps

    def to_point_mm(self, index_zyx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Indices (..., 3) as (z, y, x), possibly fractional, to points (..., 3) as (x, y, z) mm."""
        index = np.asarray(index_zyx, dtype=np.float64)
        point: NDArray[np.float64] = index[..., ::-1] * np.array(self.spacing_zyx_mm[::-1]) + np.array(self.origin_xyz_mm)
        return point

    def to_index(self, point_xyz_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (..., 3) as (x, y, z) mm to fractional indices (..., 3) as (z, y, x)."""
        point = np.asarray(point_xyz_mm, dtype=np.float64)
        index: NDArray[np.float64] = ((point - np.array(self.origin_xyz_mm)) / np.array(self.spacing_zyx_mm[::-1]))[
            ..., ::-1
        ]
        return index

    def bounds_mm(self) -> tuple[Float3, Float3]:
        """Lowest and highest corner of the voxel boxes, (x, y, z) mm."""
        half = np.array(self.spacing_zyx_mm[::-1]) / 2
        low = np.array(self.origin_xyz_mm) - half
        high = low + np.array(self.shape_zyx[::-1]) * 2 * half
        return (float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2]))

    def cropped(self, start_zyx: Int3, stop_zyx: Int3) -> Grid:
        """The sub-grid [start, stop) of this grid."""
        shape = tuple(b - a for a, b in zip(start_zyx, stop_zyx, strict=True))
        origin = self.to_point_mm(np.array(start_zyx, dtype=np.float64))
        return Grid(
            (shape[0], shape[1], shape[2]), self.spacing_zyx_mm, (float(origin[0]), float(origin[1]), float(origin[2]))
        )


def grid_over(low_xyz_mm: Float3, high_xyz_mm: Float3, spacing_mm: float) -> Grid:
    """Isotropic grid whose voxel boxes cover [low, high], centred on it."""
    low, high = np.array(low_xyz_mm), np.array(high_xyz_mm)
    count = np.maximum(1, np.ceil((high - low) / spacing_mm - 1e-9)).astype(int)
    origin = (low + high) / 2 - (count - 1) * spacing_mm / 2
    return Grid(
        (int(count[2]), int(count[1]), int(count[0])),
        (spacing_mm, spacing_mm, spacing_mm),
        (float(origin[0]), float(origin[1]), float(origin[2])),
    )
