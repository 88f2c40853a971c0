"""Where a beam's light falls: the box of voxels it reaches, and the raster of rays that radiological depth is taken on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, FluenceTable, GridGeometry

RAY_STEP = 1.0  # of the smallest voxel side: distance between rays on the isocentre plane, and between nodes along a ray
LEAST_RAY_STEP_MM = 1.0


@dataclass(frozen=True, slots=True)
class Raster:
    """Rays from the source through the points ((first_x + i + 1/2) h, (first_y + j + 1/2) h) of the isocentre plane.

    Half a step off the axis, so that no ray of a beam along the grid runs in the face between two voxels. Node n of each
    ray lies `start_mm + n * node_mm` from the source along the beam axis.
    """

    step_mm: float
    first_x: int
    first_y: int
    n_x: int
    n_y: int
    start_mm: float
    node_mm: float
    n_nodes: int


def raster(grid: GridGeometry, beam: BeamGeometry, fluence: FluenceTable) -> Raster:
    """The raster that covers the fluence map and two voxels more on every side."""
    smallest = min(grid.spacing_zyx_mm)
    step = max(RAY_STEP * smallest, LEAST_RAY_STEP_MM)
    near, far = _reach_mm(grid, beam)
    margin = 2 * max(grid.spacing_zyx_mm) * beam.sad_mm / near
    first_x, n_x = _cover(fluence.x_edges_mm, margin, step)
    first_y, n_y = _cover(fluence.y_edges_mm, margin, step)
    node = RAY_STEP * smallest
    return Raster(step, first_x, first_y, n_x, n_y, near, node, int(np.ceil((far - near) / node)) + 2)


def lit_box(grid: GridGeometry, beam: BeamGeometry, fluence: FluenceTable) -> tuple[slice, slice, slice]:
    """The smallest box of voxels (z, y, x) that holds every voxel whose shadow can touch the fluence map."""
    near, far = _reach_mm(grid, beam)
    # The shadow of a voxel reaches at most its diagonal from its centre's.
    margin = float(np.linalg.norm(grid.spacing_zyx_mm)) * beam.sad_mm / near
    x = fluence.x_edges_mm[0] - margin, fluence.x_edges_mm[-1] + margin
    y = fluence.y_edges_mm[0] - margin, fluence.y_edges_mm[-1] + margin
    corners = np.array(
        [
            beam.source_xyz_mm + distance * (a / beam.sad_mm * beam.axes[0] + b / beam.sad_mm * beam.axes[1] - beam.axes[2])
            for a, b, distance in product(x, y, (near, far))
        ]
    )
    index = ((corners - np.array(grid.origin_xyz_mm)) / np.array(grid.spacing_zyx_mm[::-1]))[:, ::-1]
    low = np.clip(np.floor(index.min(axis=0)), 0, grid.shape_zyx).astype(int)
    high = np.clip(np.ceil(index.max(axis=0)) + 1, low, grid.shape_zyx).astype(int)
    z, y_box, x_box = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y_box, x_box


def beam_coordinates(beam: BeamGeometry, grid: GridGeometry, axes: tuple[int, int, int]) -> NDArray[np.float64]:
    """Beam coordinates (x, y, away from the source; mm) of voxel (plane, row, column): constant and a step each, (3, 4)."""
    towards = np.stack([beam.axes[0], beam.axes[1], -beam.axes[2]])
    origin = towards @ (np.array(grid.origin_xyz_mm) - beam.source_xyz_mm)
    per_index = towards[:, ::-1] * np.array(grid.spacing_zyx_mm)  # columns z, y, x
    affine: NDArray[np.float64] = np.concatenate([origin[:, None], per_index[:, list(axes)]], axis=1)
    return affine


def _reach_mm(grid: GridGeometry, beam: BeamGeometry) -> tuple[float, float]:
    """Least and largest distance of a voxel's centre from the source along the beam axis, mm; beyond the source."""
    last = np.array(grid.origin_xyz_mm) + (np.array(grid.shape_zyx[::-1]) - 1) * np.array(grid.spacing_zyx_mm[::-1])
    corners = np.array(list(product(*zip(grid.origin_xyz_mm, last, strict=True))))
    along = -(corners - beam.source_xyz_mm) @ beam.axes[2]
    nearest = 0.02 * beam.sad_mm  # a patient that reaches into the source has no shadow there
    return max(float(along.min()), nearest), max(float(along.max()), nearest)


def _cover(edges_mm: NDArray[np.float64], margin_mm: float, step_mm: float) -> tuple[int, int]:
    """First index and count of the points (i + 1/2) step that reach beyond the edges by the margin."""
    first = int(np.floor((edges_mm[0] - margin_mm) / step_mm - 0.5))
    last = int(np.ceil((edges_mm[-1] + margin_mm) / step_mm - 0.5))
    return first, last - first + 1
