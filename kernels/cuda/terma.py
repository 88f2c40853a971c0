"""CUDA `terma`: one thread a ray, then one thread a voxel of the lit box. See `kernels.contract`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kernels.contract import BeamGeometry, BeamTables, FluenceTable, GridGeometry, Released
from kernels.cuda.device import device
from kernels.cuda.released import DeviceReleased
from kernels.cuda.runtime import Buffer, Runtime, Source, packed
from kernels.rays import Raster, lit_box, raster

SOURCE = Source("terma.cu", (("PARALLEL", 1e-12), ("FAR", 1e300), ("DUST", 1e-12)))
SOURCES = (SOURCE,)


def terma(
    electron_density_rel: NDArray[np.floating],
    *,
    grid: GridGeometry,
    beam: BeamGeometry,
    fluence: FluenceTable,
    tables: BeamTables,
    runtime: Runtime | None = None,
) -> Released:
    """Energy released per cm³ by each group in the lit box, kept on the device until asked for. See `kernels.contract`."""
    on = runtime or device()
    box = lit_box(grid, beam, fluence)
    start = (box[0].start, box[1].start, box[2].start)
    n_groups = tables.terma_per_cm.shape[1]
    released = on.zeros((n_groups, *(s.stop - s.start for s in box)), np.float32)
    if released.size == 0:
        return DeviceReleased(start, released, on)
    rays = raster(grid, beam, fluence)
    parts = packed(
        on,
        (
            _geometry(grid, beam),
            np.array([rays.first_x, rays.first_y, rays.step_mm, rays.start_mm, rays.node_mm]),
            fluence.x_edges_mm,
            fluence.y_edges_mm,
            fluence.integral,
            tables.terma_per_cm,
            tables.softening_radius_mm,
            tables.off_axis_radius_mm,
            tables.off_axis_factor,
        ),
    )
    density = on.put(np.ascontiguousarray(electron_density_rel, dtype=np.float32))
    depth_cm = _ray_depths(on, density, parts, rays)
    _release(on, density, depth_cm, parts, rays, tables, start, released)
    return DeviceReleased(start, released, on)


def _geometry(grid: GridGeometry, beam: BeamGeometry) -> NDArray[np.float64]:
    """`Geometry` of the .cu file."""
    fields = grid.spacing_zyx_mm[::-1], grid.origin_xyz_mm, beam.source_xyz_mm, np.ravel(beam.axes), [beam.sad_mm]
    return np.concatenate([np.asarray(f, np.float64) for f in fields])


def _ray_depths(on: Runtime, density: Buffer, parts: list[Buffer], rays: Raster) -> Buffer:
    """∫ρe dl from the source to each node of each ray, cm: (n_nodes, n_y, n_x)."""
    depth_cm = on.zeros((rays.n_nodes, rays.n_y, rays.n_x), np.float32)
    arguments = (
        density,
        *(np.int32(n) for n in density.shape),
        parts[0],
        parts[1],
        *(np.int32(n) for n in (rays.n_y, rays.n_x, rays.n_nodes)),
        depth_cm,
    )
    on.start(SOURCE, "ray_depths", (rays.n_y * rays.n_x, 1), arguments)
    return depth_cm


def _release(
    on: Runtime,
    density: Buffer,
    depth_cm: Buffer,
    parts: list[Buffer],
    rays: Raster,
    tables: BeamTables,
    start: tuple[int, int, int],
    released: Buffer,
) -> None:
    """Fills `released` (G, z, y, x)."""
    geometry, raster_of, x_edges, y_edges, integral, terma_per_cm, softening, off_axis_radius, off_axis_factor = parts
    arguments = (
        density,
        *(np.int32(n) for n in density.shape[1:]),
        geometry,
        *(x_edges, np.int32(x_edges.size), y_edges, np.int32(y_edges.size), integral),
        *(depth_cm, raster_of, *(np.int32(n) for n in (rays.n_y, rays.n_x, rays.n_nodes))),
        *(terma_per_cm, *(np.int32(n) for n in tables.terma_per_cm.shape[1:]), np.float64(tables.depth_step_cm)),
        *(softening, np.int32(softening.size), off_axis_radius, off_axis_factor, np.int32(off_axis_radius.size)),
        *(np.int32(n) for n in (*start, *released.shape[1:])),
        released,
    )
    on.start(SOURCE, "release", (int(np.prod(released.shape[1:])), 1), arguments)
