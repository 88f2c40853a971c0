"""Reference of `terma`: NumPy float64, one voxel at a time. See `kernels.contract`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from kernels.contract import BeamGeometry, BeamTables, FluenceTable, GridGeometry, Released
from kernels.rays import lit_box, raster


def terma(
    electron_density_rel: NDArray[np.floating],
    *,
    grid: GridGeometry,
    beam: BeamGeometry,
    fluence: FluenceTable,
    tables: BeamTables,
) -> Released:
    """Energy released per cm³ by each group in the lit box. See `kernels.contract`."""
    box = lit_box(grid, beam, fluence)
    start = np.array([s.start for s in box])
    spacing_xyz, origin = np.array(grid.spacing_zyx_mm[::-1]), np.array(grid.origin_xyz_mm)
    depth_cm = _depths(electron_density_rel, grid, beam, fluence)
    released = np.zeros((tables.terma_per_cm.shape[1], *(s.stop - s.start for s in box)))
    for index in np.ndindex(*released.shape[1:]):
        place = start + index
        density = float(electron_density_rel[tuple(place)])
        relative = origin + place[::-1] * spacing_xyz - beam.source_xyz_mm
        x, y, z = beam.axes @ relative
        if density == 0 or z >= 0:
            continue
        scale = beam.sad_mm / -z
        width_x, width_y = (
            scale * np.sqrt(((beam.axes[i] + beam.axes[2] * c / -z) ** 2 * spacing_xyz**2).sum())
            for i, c in ((0, x), (1, y))
        )
        mean_fluence = _mean_over(fluence, x * scale, y * scale, width_x, width_y)
        if mean_fluence == 0:
            continue
        radius = np.hypot(x, y) * scale
        off_axis = np.interp(radius, tables.off_axis_radius_mm, tables.off_axis_factor)
        factor = density * mean_fluence * off_axis * beam.sad_mm**2 / (relative @ relative)
        released[(slice(None), *index)] = factor * _by_radius_and_depth(tables, radius, depth_cm(x * scale, y * scale, -z))
    return Released(tuple(int(i) for i in start), released.astype(np.float32))  # type: ignore[arg-type]


def _by_radius_and_depth(tables: BeamTables, radius_mm: float, depth_cm: float) -> NDArray[np.float64]:
    """t_g at a radius and a depth, (G,)."""
    depths = tables.depth_step_cm * np.arange(tables.terma_per_cm.shape[2])
    at_depth = np.array([[np.interp(depth_cm, depths, one) for one in groups] for groups in tables.terma_per_cm])
    return np.array([np.interp(radius_mm, tables.softening_radius_mm, one) for one in at_depth.T])


def _mean_over(fluence: FluenceTable, x_mm: float, y_mm: float, width_x_mm: float, width_y_mm: float) -> float:
    """Mean of a fluence map over a rectangle centred on a point; zero outside the map."""

    def integral(x: float, y: float) -> float:
        along_x = [np.interp(x, fluence.x_edges_mm, row) for row in fluence.integral]
        return float(np.interp(y, fluence.y_edges_mm, along_x))

    x1, x2, y1, y2 = x_mm - width_x_mm / 2, x_mm + width_x_mm / 2, y_mm - width_y_mm / 2, y_mm + width_y_mm / 2
    return (integral(x2, y2) - integral(x1, y2) - integral(x2, y1) + integral(x1, y1)) / (width_x_mm * width_y_mm)


def _depths(density: NDArray[np.floating], grid: GridGeometry, beam: BeamGeometry, fluence: FluenceTable):  # type: ignore[no-untyped-def]
    """Radiological depth in cm as a function of x, y on the isocentre plane and of the distance along the beam axis."""
    rays = raster(grid, beam, fluence)
    x = (rays.first_x + np.arange(rays.n_x) + 0.5) * rays.step_mm
    y = (rays.first_y + np.arange(rays.n_y) + 0.5) * rays.step_mm
    along = rays.start_mm + rays.node_mm * np.arange(rays.n_nodes)
    cut = _cut_ray(density, grid, beam)
    nodes = np.array([[cut(a, b, along) for a in x] for b in y])
    table = RegularGridInterpolator((y, x, along), nodes)

    def depth_cm(x_mm: float, y_mm: float, along_mm: float) -> float:
        return float(table((np.clip(y_mm, y[0], y[-1]), np.clip(x_mm, x[0], x[-1]), along_mm))[()])

    return depth_cm


def _cut_ray(density: NDArray[np.floating], grid: GridGeometry, beam: BeamGeometry):  # type: ignore[no-untyped-def]
    """∫ρe dl from the source along the ray through (x, y) to each distance, cut at every voxel face it crosses (Siddon)."""

    def cut(x_mm: float, y_mm: float, along_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        ray = (x_mm * beam.axes[0] + y_mm * beam.axes[1]) / beam.sad_mm - beam.axes[2]
        cuts = [np.array([0.0, along_mm[-1]])]
        for axis in range(3):
            spacing, count = grid.spacing_zyx_mm[2 - axis], grid.shape_zyx[2 - axis]
            faces = grid.origin_xyz_mm[axis] + (np.arange(count + 1) - 0.5) * spacing
            if abs(ray[axis]) > 1e-12:
                cuts.append((faces - beam.source_xyz_mm[axis]) / ray[axis])
        t = np.unique(np.clip(np.concatenate(cuts), 0.0, along_mm[-1]))
        middle = beam.source_xyz_mm + ((t[1:] + t[:-1]) / 2)[:, None] * ray
        index = np.rint((middle - np.array(grid.origin_xyz_mm)) / np.array(grid.spacing_zyx_mm[::-1])).astype(int)[:, ::-1]
        inside = np.all((index >= 0) & (index < np.array(grid.shape_zyx)), axis=1)
        pieces = np.where(inside, density[tuple(np.where(inside[:, None], index, 0).T)], 0.0) * np.diff(t)
        so_far = np.concatenate([[0.0], np.cumsum(pieces)])
        depth: NDArray[np.float64] = np.interp(along_mm, t, so_far) * np.linalg.norm(ray) / 10.0
        return depth

    return cut
