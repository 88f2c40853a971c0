"""Reference of `terma`: NumPy float64, one voxel at a time. See `kernels.contract`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, BeamTables, FluenceTable, GridGeometry


def terma(
    electron_density_rel: NDArray[np.floating],
    *,
    grid: GridGeometry,
    beam: BeamGeometry,
    fluence: FluenceTable,
    tables: BeamTables,
) -> NDArray[np.float32]:
    """Energy released per cm³ by energy group, (G, z, y, x). See `kernels.contract`."""
    n_groups, n_depths = tables.terma_per_cm.shape
    released = np.zeros((n_groups, *grid.shape_zyx))
    spacing_xyz, origin = np.array(grid.spacing_zyx_mm[::-1]), np.array(grid.origin_xyz_mm)
    depths = tables.depth_step_cm * np.arange(n_depths)
    for index in np.ndindex(*grid.shape_zyx):
        density = float(electron_density_rel[index])
        centre = origin + np.array(index[::-1]) * spacing_xyz
        if density == 0:
            continue
        relative = centre - beam.source_xyz_mm
        x, y, z = beam.axes @ relative
        scale = beam.sad_mm / -z
        width_x, width_y = (
            scale * np.sqrt(((beam.axes[i] + beam.axes[2] * c / -z) ** 2 * spacing_xyz**2).sum())
            for i, c in ((0, x), (1, y))
        )
        mean_fluence = _mean_over(fluence, x * scale, y * scale, width_x, width_y)
        if mean_fluence == 0:
            continue
        depth = _depth_cm(electron_density_rel, grid, beam.source_xyz_mm, centre)
        off_axis = np.interp(np.hypot(x, y) * scale, tables.off_axis_radius_mm, tables.off_axis_factor)
        factor = density * mean_fluence * off_axis * beam.sad_mm**2 / (relative @ relative)
        released[(slice(None), *index)] = [factor * np.interp(depth, depths, table) for table in tables.terma_per_cm]
    return released.astype(np.float32)


def _mean_over(fluence: FluenceTable, x_mm: float, y_mm: float, width_x_mm: float, width_y_mm: float) -> float:
    """Mean of a fluence map over a rectangle centred on a point; zero outside the map."""

    def integral(x: float, y: float) -> float:
        along_x = [np.interp(x, fluence.x_edges_mm, row) for row in fluence.integral]
        return float(np.interp(y, fluence.y_edges_mm, along_x))

    x1, x2, y1, y2 = x_mm - width_x_mm / 2, x_mm + width_x_mm / 2, y_mm - width_y_mm / 2, y_mm + width_y_mm / 2
    return (integral(x2, y2) - integral(x1, y2) - integral(x2, y1) + integral(x1, y1)) / (width_x_mm * width_y_mm)


def _depth_cm(
    density: NDArray[np.floating], grid: GridGeometry, source_xyz_mm: NDArray[np.float64], centre_xyz_mm: NDArray[np.float64]
) -> float:
    """∫ρe dl from the source to a point: the ray is cut at every voxel face it crosses (Siddon 1985)."""
    ray = centre_xyz_mm - source_xyz_mm
    cuts = [np.array([0.0, 1.0])]
    for axis in range(3):
        spacing, count = grid.spacing_zyx_mm[2 - axis], grid.shape_zyx[2 - axis]
        faces = grid.origin_xyz_mm[axis] + (np.arange(count + 1) - 0.5) * spacing
        if ray[axis] != 0:
            cuts.append((faces - source_xyz_mm[axis]) / ray[axis])
    t = np.unique(np.clip(np.concatenate(cuts), 0.0, 1.0))
    middle = source_xyz_mm + ((t[1:] + t[:-1]) / 2)[:, None] * ray
    index = np.rint((middle - np.array(grid.origin_xyz_mm)) / np.array(grid.spacing_zyx_mm[::-1])).astype(int)[:, ::-1]
    inside = np.all((index >= 0) & (index < np.array(grid.shape_zyx)), axis=1)
    lengths = np.diff(t)[inside] * np.linalg.norm(ray) / 10.0
    return float((lengths * density[tuple(index[inside].T)]).sum())
