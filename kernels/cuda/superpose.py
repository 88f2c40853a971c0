"""CUDA `superpose`: one thread a line of voxels, several directions a launch. See `kernels.contract` and `superpose.cu`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels.cones import N_TERMS
from kernels.contract import BeamGeometry, GridGeometry, Released
from kernels.cuda.device import device
from kernels.cuda.released import on_device
from kernels.cuda.runtime import SERIES_BELOW, Buffer, Runtime, Source
from kernels.lines import PLANE_ROW_COLUMN, line_steps
from kernels.rays import beam_coordinates

VOLUMES = 8  # directions a launch: enough lines to fill a large device, few enough volumes for its second-level cache
NATIVE, TURNED = (0, 1, 2), (0, 2, 1)  # order of the array axes in memory: columns of lines are always the last


@dataclass(frozen=True, slots=True)
class _Layout:
    """The patient on the device with its axes in an order: density, bits of the beams that light a voxel, energies."""

    order: tuple[int, int, int]
    shape_zyx: tuple[int, int, int]
    density: Buffer
    lit: Buffer
    energies: tuple[Buffer, ...]

    def strides(self, shape_zyx: Sequence[int]) -> dict[int, int]:
        """Elements from one voxel to the next by axis, in an array of this order."""
        _, middle, last = (shape_zyx[a] for a in self.order)
        return dict(zip(self.order, (middle * last, last, 1), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """Lines of the directions with the same axes: `chosen` of all, shifts (K, row or column, plane) on entering a plane.

    Arrays are read-only: the device keeps them from one dose to the next.
    """

    axes: tuple[int, int, int]
    chosen: NDArray[np.int64]
    shifts: NDArray[np.int8]
    forward: NDArray[np.int32]
    step_cm: NDArray[np.float64]


def source_of(n_groups: int, n_components: int) -> Source:
    """`superpose.cu` for so many energy groups and components."""
    sizes = ("COMPONENTS", n_components), ("GROUPS", n_groups), ("N_TERMS", N_TERMS)
    return Source("superpose.cu", (*sizes, ("SERIES_BELOW", SERIES_BELOW)))


SOURCES = (source_of(2, 9),)


def superpose(
    electron_density_rel: NDArray[np.floating],
    released: Sequence[Released],
    cone_kernels: NDArray[np.floating],
    directions: NDArray[np.float64],
    *,
    grid: GridGeometry,
    beams: Sequence[BeamGeometry],
    phases: NDArray[np.float64],
    smallest_exponent_per_cm: float,
    runtime: Runtime | None = None,
) -> NDArray[np.float32]:
    """Energy deposited per cm³ (z, y, x), collapsed cones along lines of voxels. See `kernels.contract`."""
    on = runtime or device()
    n_fields, n_comp = cone_kernels.shape[2:]
    source = source_of(n_fields // N_TERMS, n_comp)
    walks = _walks(np.column_stack([directions, phases]).tobytes(), grid.shape_zyx, grid.spacing_zyx_mm)
    total = on.zeros(grid.shape_zyx, np.float32)
    native = _native(on, source, electron_density_rel, released, grid)
    for order in (NATIVE, TURNED):
        own = [w for w in walks if (w.axes[2] == 2) == (order == NATIVE)]
        if not own:
            continue
        lying = native if order == NATIVE else _turned(on, source, native)
        volumes = on.zeros((VOLUMES, int(np.prod(grid.shape_zyx))), np.float32)
        for walk in own:
            kernels = np.ascontiguousarray(cone_kernels[:, walk.chosen].swapaxes(0, 1), dtype=np.float32)
            path = (walk.step_cm * smallest_exponent_per_cm).astype(np.float32)
            affine = np.stack([beam_coordinates(beam, grid, walk.axes) for beam in beams]).astype(np.float32)
            _sweep(on, source, lying, released, affine, kernels, walk, path, volumes)
        sizes = (np.int32(n) for n in grid.shape_zyx)
        arguments = (volumes, np.int32(VOLUMES), *sizes, np.int32(order == TURNED), total)
        on.start(source, "gather", (int(np.prod(grid.shape_zyx)), 1), arguments)
    return on.get(total)


@lru_cache(maxsize=8)
def _walks(
    directions_phases: bytes, shape_zyx: tuple[int, int, int], spacing_zyx_mm: tuple[float, float, float]
) -> tuple[_Walk, ...]:
    """Lines of all directions and phases (K, 4) float64, class by class of their axes."""
    rows = np.frombuffer(directions_phases).reshape(-1, 4)
    steps = [line_steps(row[:3], shape_zyx, spacing_zyx_mm, float(row[3])) for row in rows]
    walks = []
    for axes in PLANE_ROW_COLUMN:
        chosen = np.array([k for k, s in enumerate(steps) if s.axes == axes], np.int64)
        if not chosen.size:
            continue
        own = [steps[k] for k in chosen]
        shifts = np.stack([[np.diff(a, prepend=0) for a in (s.row_shift, s.column_shift)] for s in own]).astype(np.int8)
        forward = np.array([s.planes[0] == 0 for s in own], np.int32)
        for array in (shifts, forward):
            array.flags.writeable = False
        walks.append(_Walk(axes, chosen, shifts, forward, np.array([s.step_cm for s in own])))
    return tuple(walks)


def _native(
    on: Runtime, source: Source, density: NDArray[np.floating], released: Sequence[Released], grid: GridGeometry
) -> _Layout:
    """The patient as the host keeps it, [z, y, x]."""
    energies = tuple(on_device(one, on) for one in released)
    words = -(-len(released) // 32)
    lit = on.zeros((max(words, 1), *grid.shape_zyx), np.uint32)
    layout = _Layout(NATIVE, grid.shape_zyx, on.put(np.ascontiguousarray(density, dtype=np.float32)), lit, energies)
    boxes = on.put(_boxes(on, layout, released, (0, 1, 2)))
    arguments = (boxes, np.int32(len(released)), *(np.int32(n) for n in grid.shape_zyx), lit)
    on.start(source, "find_lit", (int(np.prod(grid.shape_zyx)), 1), arguments)
    return layout


def _turned(on: Runtime, source: Source, native: _Layout) -> _Layout:
    """The patient as [z, x, y], for lines across x: neighbouring threads then read neighbouring memory there too."""

    def turned(buffer: Buffer) -> Buffer:
        *outer, n_y, n_x = buffer.shape
        to = on.zeros((*outer, n_x, n_y), np.uint32)
        sizes = (np.int32(np.prod(outer)), np.int32(n_y), np.int32(n_x))
        on.start(source, "turn", (int(np.prod(buffer.shape)), 1), (buffer.view(np.uint32), *sizes, to))
        return to

    energies = tuple(turned(e).view(np.float32) for e in native.energies)
    return _Layout(TURNED, native.shape_zyx, turned(native.density).view(np.float32), turned(native.lit), energies)


def _boxes(on: Runtime, layout: _Layout, released: Sequence[Released], axes: tuple[int, int, int]) -> NDArray[np.int64]:
    """`Box` of the .cu file for each beam, planes, rows and columns along `axes`: (B, 11)."""
    boxes = np.zeros((len(released), 11), np.int64)
    for box, one, energy in zip(boxes, released, layout.energies, strict=True):
        shape = [s.stop - s.start for s in one.box]
        strides = layout.strides(shape)
        along = [strides[a] for a in axes]
        first = [one.start_zyx[a] for a in axes]
        box[:5] = on.address(energy), along[0], along[1], int(np.prod(shape)), int(np.dot(first, along))
        box[5::2] = first
        box[6::2] = [f + shape[a] for f, a in zip(first, axes, strict=True)]
    return boxes


def _sweep(
    on: Runtime,
    source: Source,
    layout: _Layout,
    released: Sequence[Released],
    affine: NDArray[np.float32],
    kernels: NDArray[np.float32],
    walk: _Walk,
    path: NDArray[np.float32],
    volumes: Buffer,
) -> None:
    """Adds the directions of one class of axes, `VOLUMES` a launch, each to the volume of its place in the launch."""
    axes = walk.axes
    n_planes, n_rows, n_columns = (layout.shape_zyx[a] for a in axes)
    strides = layout.strides(layout.shape_zyx)
    boxes, sources = on.put(_boxes(on, layout, released, axes)), (on.put(affine), on.put(kernels))
    lines = on.put(walk.shifts), on.put(walk.forward), on.put(path)
    for first in range(0, len(path), VOLUMES):
        part = slice(first, min(first + VOLUMES, len(path)))
        arguments = (
            *(layout.density, layout.lit, boxes, sources[0], sources[1][part], np.int32(len(released))),
            *(a[part] for a in lines),
            *(np.int32(n) for n in (n_planes, n_rows, n_columns, strides[axes[0]], strides[axes[1]])),
            volumes,
        )
        on.start(source, "sweep", (n_rows * n_columns, part.stop - part.start), arguments)
