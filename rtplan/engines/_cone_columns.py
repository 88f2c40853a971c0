"""Influence columns of the collapsed cone engine: the near field of each beamlet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels.column_data import BeamletSources, Columns, ConeKernels, ConeLines, cone_lines, joined, only_rows
from kernels.cones import N_TERMS, cone_kernels, tilt_terms
from kernels.contract import Backend, BeamTables, fluence_table
from kernels.directions import direction_set
from rtplan.domain.arrays import frozen
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import BeamModel
from rtplan.domain.progress import Progress
from rtplan.engines._beamline import GY_PER_MEV_PER_G, Beamline, beamline, grid_geometry, load_backend
from rtplan.library.water import load_kernel_table

REACH_CM = 20.0  # radiological length of the cone lines beyond the last source; what lies beyond is the caller's to add
THRESHOLD = 5e-4  # of a column's largest value: smaller entries are left out
DIRECTIONS = 86
NEGLIGIBLE = 5e-4  # of a beamlet's largest release in a voxel: with less to deposit a line is followed no further
_HARDNESS_BINS = 12
_DEEP_CM = 36.0
_SUB = 3  # points along each side of a voxel for its coverage by beamlets
_TILE = (4, 4)  # rows and columns of beamlets in a block
_BLOCKS_A_JOB = 4


@dataclass(frozen=True, slots=True, eq=False)
class ColumnInfluence:
    """InfluenceOperator whose columns are kept in 16 bits with one scale each, on one backend.

    `beamlet_of` (n,) is the beamlet of each column: neighbours of a block follow one another.
    """

    grid: Grid
    voxel_index: NDArray[np.int64]
    beamlets: Beamlets
    beamlet_of: NDArray[np.int64]
    columns: Columns
    backend: Backend

    @property
    def n_nonzero(self) -> int:
        """Stored entries."""
        return len(self.columns.level)

    @property
    def n_bytes(self) -> int:
        """Bytes that the matrix takes."""
        return self.columns.n_bytes

    def apply(self, weights_mu: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_beamlets,) MU per fraction to (n_voxels,) Gy per fraction."""
        weights = np.asarray(weights_mu, dtype=np.float32)[self.beamlet_of]
        return self.backend.apply_columns(self.columns, weights, len(self.voxel_index))

    def adjoint(self, dose_gradient: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_voxels,) to (n_beamlets,)."""
        gradient = np.ascontiguousarray(dose_gradient, dtype=np.float32)
        out = np.empty(len(self.beamlets), np.float32)
        out[self.beamlet_of] = self.backend.adjoint_columns(self.columns, gradient)
        return out

    def only(self, rows: NDArray[np.bool_]) -> ColumnInfluence:
        """The operator whose dose is nothing but in `rows` (n_voxels,)."""
        return replace(self, columns=only_rows(self.columns, rows))


@dataclass(frozen=True, slots=True, eq=False)
class _Patient:
    """What all beams share: the body's part of the image, dose per energy (z, y, x), each voxel's row, cone lines."""

    density: DensityImage
    dose_per_energy: NDArray[np.float32]
    row_of: NDArray[np.int32]
    lines: ConeLines


def near_field_columns(
    density: DensityImage,
    beamlets: Beamlets,
    model: BeamModel,
    voxel_index: NDArray[np.int64],
    *,
    backend: str,
    progress: Progress,
) -> ColumnInfluence:
    """Dose of every beamlet for 1 MU in the voxels `voxel_index` of `density.grid`, Gy per fraction.

    The same TERMA, kernels and recursion as the final dose, with 86 cones tilted to each beamlet's own axis and a point
    source; a cone's line is followed as long as it has something to deposit. The rest is smooth; the planner adds it as a
    measured residual.
    """
    kernels = load_backend(backend)
    n_beams = len(beamlets.beams)
    patient = _patient(density, model, voxel_index)
    groups = [np.flatnonzero(beamlets.beam_index == index) for index in range(n_beams)]
    blocks = [_blocks(beamlets, own) for own in groups if own.size]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:

        def parts() -> Iterator[Columns]:
            """Columns of all beams in order; a beam is prepared while the one before is worked on."""
            waiting: list[Future[Columns]] = []
            for own, block in blocks:
                beam = beamlets.beams[int(beamlets.beam_index[own[0]])]
                progress("influence", int(beamlets.beam_index[own[0]]) / n_beams, f"beam {beam.name}")
                line = beamline(beam, model)
                jobs = _jobs(pool, kernels, patient, beamlets, own, block, line)
                yield from _results(waiting)
                waiting = jobs
            yield from _results(waiting)

        columns = joined(parts())
    progress("influence", 1.0, f"{len(beamlets)} beamlets, {len(columns.level) / 1e6:.1f} million values")
    beamlet_of = frozen(np.concatenate([own for own, _ in blocks]), np.int64)
    return ColumnInfluence(density.grid, frozen(voxel_index, np.int64), beamlets, beamlet_of, columns, kernels)


def _results(waiting: list[Future[Columns]]) -> Iterator[Columns]:
    """Results in order, each let go as soon as it is taken."""
    while waiting:
        yield waiting.pop(0).result()


def _patient(density: DensityImage, model: BeamModel, voxel_index: NDArray[np.int64]) -> _Patient:
    """The box of the image that has any density: rays and scatter cross vacuum unchanged."""
    some = density.electron_density_rel > 0
    low, high = [], []
    for axis in range(3):
        filled = np.flatnonzero(some.any(axis=tuple(a for a in range(3) if a != axis)))
        low.append(int(filled[0]) if filled.size else 0)
        high.append(int(filled[-1]) + 1 if filled.size else 1)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    part = DensityImage(
        density.grid.cropped((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        density.mass_density_g_cm3[box],
        density.electron_density_rel[box],
    )
    row_of = np.full(density.grid.shape_zyx, -1, dtype=np.int32)
    row_of.reshape(-1)[voxel_index] = np.arange(len(voxel_index), dtype=np.int32)
    scale = GY_PER_MEV_PER_G * model.energy_fluence_per_mu_mev_cm2
    mass = part.mass_density_g_cm3
    per_energy = np.divide(np.float32(scale), mass, out=np.zeros_like(mass), where=mass > 0)
    lines = cone_lines(direction_set(DIRECTIONS), grid_geometry(part.grid))
    return _Patient(part, per_energy, np.ascontiguousarray(row_of[box]).reshape(-1), lines)


def _blocks(beamlets: Beamlets, own: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A beam's beamlets in rectangular blocks of neighbours, and where each block starts (m + 1,)."""
    row = np.searchsorted(np.unique(beamlets.leaf_pair[own]), beamlets.leaf_pair[own]) // _TILE[0]
    width = float(beamlets.x2_mm[own[0]] - beamlets.x1_mm[own[0]])
    column = np.rint((beamlets.x1_mm[own] - beamlets.x1_mm[own].min()) / width).astype(int) // _TILE[1]
    order = np.lexsort((column, row))
    tile = (row * (column.max() + 1) + column)[order]
    block = np.concatenate([[0], np.flatnonzero(np.diff(tile)) + 1, [len(own)]])
    return own[order], block.astype(np.int64)


def _jobs(
    pool: ThreadPoolExecutor,
    backend: Backend,
    patient: _Patient,
    beamlets: Beamlets,
    own: NDArray[np.int64],
    block: NDArray[np.int64],
    line: Beamline,
) -> list[Future[Columns]]:
    """Starts the work on one beam, a few blocks a job."""
    density = patient.density
    released, hardness, mixture = _released(density, beamlets, own, line, backend)
    start, voxel, fraction = _sources(density.grid, beamlets, own, line, backend, np.flatnonzero(released > 0))
    cones = _cone_kernels(line, beamlets, own, mixture)

    def columns(first: int) -> Columns:
        part = block[first : first + _BLOCKS_A_JOB + 1]
        a, b = part[0], part[-1]
        entries = slice(start[a], start[b])
        sources = BeamletSources(start[a : b + 1] - start[a], voxel[entries], fraction[entries], part - a)
        result: Columns = backend.deposit_columns(
            density.electron_density_rel,
            released,
            hardness,
            sources,
            replace(cones, per_cone=cones.per_cone[a:b]),
            patient.lines,
            patient.dose_per_energy,
            patient.row_of,
            THRESHOLD,
        )
        return result

    return [pool.submit(columns, first) for first in range(0, len(block) - 1, _BLOCKS_A_JOB)]


def _released(
    density: DensityImage, beamlets: Beamlets, own: NDArray[np.int64], line: Beamline, backend: Backend
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float64]]:
    """TERMA of an open field (z, y, x), the hardness bin of each voxel's, and each bin's mixture of the kernels (H, G)."""
    beam = beamlets.beams[int(beamlets.beam_index[own[0]])]
    field = _open_field(beam, beamlets, own, 2.0 * max(density.grid.spacing_zyx_mm))
    released = backend.terma(
        density.electron_density_rel,
        grid=grid_geometry(density.grid),
        beam=line.geometry,
        fluence=fluence_table(field.x_edges_mm, field.y_edges_mm, field.fluence_mu),
        tables=line.tables,
    )
    total = np.zeros(density.grid.shape_zyx, dtype=np.float32)
    total[released.box] = released.energy.sum(axis=0)
    soft = np.zeros_like(total)
    soft[released.box] = released.energy[0]
    np.divide(soft, total, out=soft, where=total > 0)
    softest = _soft_shares(line.tables)
    hardness = np.rint((softest[0] - soft) / max(softest[0] - softest[-1], 1e-6) * (_HARDNESS_BINS - 1))
    mixture = np.stack([softest, 1 - softest], axis=1)
    return total, np.clip(hardness, 0, _HARDNESS_BINS - 1).astype(np.uint8), mixture


def _soft_shares(tables: BeamTables) -> NDArray[np.float64]:
    """Shares of the soft kernel from the largest that the tables hold down to the smallest within 36 cm, in equal steps."""
    shallow = tables.terma_per_cm[:, :, : int(_DEEP_CM / tables.depth_step_cm)]
    share = shallow[:, 0] / shallow.sum(axis=1)
    return np.linspace(share.max(), share.min(), _HARDNESS_BINS)


def _sources(
    grid: Grid, beamlets: Beamlets, own: NDArray[np.int64], line: Beamline, backend: Backend, voxel: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Beamlet by beamlet (n + 1,) the voxels, of those given, that it covers, and how much of each."""
    beamlet, place, fraction = _coverage(backend, grid, beamlets, own, line, voxel)
    order = np.argsort(beamlet, kind="stable")
    start = np.searchsorted(beamlet[order], np.arange(len(own) + 1)).astype(np.int64)
    return start, voxel[place[order]], fraction[order]


def _open_field(beam: Beam, beamlets: Beamlets, own: NDArray[np.int64], reach_mm: float) -> FluenceMap:
    """A uniform field that reaches well beyond the beamlets, so that no voxel of theirs sees its edge."""
    x = np.array([beamlets.x1_mm[own].min() - reach_mm, beamlets.x2_mm[own].max() + reach_mm])
    y = np.array([beamlets.y1_mm[own].min() - reach_mm, beamlets.y2_mm[own].max() + reach_mm])
    return FluenceMap(beam, x, y, np.ones((1, 1)))


def _coverage(
    kernels: Backend, grid: Grid, beamlets: Beamlets, own: NDArray[np.int64], line: Beamline, voxel: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    """Which part of each voxel (by its place in `voxel`) each beamlet of one beam covers."""
    pairs = np.unique(beamlets.leaf_pair[own])
    width = float(beamlets.x2_mm[own[0]] - beamlets.x1_mm[own[0]])
    origin = np.array([beamlets.x1_mm[own].min(), beamlets.y1_mm[own].min()])
    column = np.rint((beamlets.x1_mm[own] - origin[0]) / width).astype(int)
    table = np.full((len(pairs), column.max() + 1), -1, dtype=np.int32)
    table[np.searchsorted(pairs, beamlets.leaf_pair[own]), column] = np.arange(len(own))
    # Leaf pairs have two widths; a raster of the smallest edge spacing finds the row of a point.
    edges = np.unique(np.round(np.concatenate([beamlets.y1_mm[own], beamlets.y2_mm[own]]), 6))
    raster = float(np.diff(edges).min())
    middle = origin[1] + (np.arange(round((edges[-1] - edges[0]) / raster)) + 0.5) * raster
    low = np.array([beamlets.y1_mm[own][beamlets.leaf_pair[own] == p][0] for p in pairs])
    high = np.array([beamlets.y2_mm[own][beamlets.leaf_pair[own] == p][0] for p in pairs])
    inside = (middle[:, None] > low) & (middle[:, None] < high)
    row_of_y = np.where(inside.any(axis=1), inside.argmax(axis=1), -1).astype(np.int32)
    centre = grid.to_point_mm(np.stack(np.unravel_index(voxel, grid.shape_zyx), axis=1).astype(np.float64))
    beamlet, place, fraction = kernels.split_field(
        np.arange(len(voxel)),
        centre.astype(np.float32),
        np.array(grid.spacing_zyx_mm, dtype=np.float32),
        line.geometry.source_xyz_mm,
        line.geometry.axes,
        line.geometry.sad_mm,
        row_of_y,
        table,
        origin,
        np.array([width, raster]),
        _SUB,
    )
    return beamlet, place, fraction


def _cone_kernels(line: Beamline, beamlets: Beamlets, own: NDArray[np.int64], mixture: NDArray[np.float64]) -> ConeKernels:
    """Cone kernels about each beamlet's own axis."""
    sad_mm = line.geometry.sad_mm
    u = (beamlets.x1_mm[own] + beamlets.x2_mm[own]) / (2 * sad_mm)
    v = (beamlets.y1_mm[own] + beamlets.y2_mm[own]) / (2 * sad_mm)
    largest = (float(np.abs(u).max()), float(np.abs(v).max()))
    directions = direction_set(DIRECTIONS)
    fitted = cone_kernels(line.kernels.per_sr, line.theta_edges_rad, directions, line.geometry.axes, largest)
    n_groups, n_bins = len(line.kernels.local), len(mixture)
    by_term = fitted.reshape(len(directions), n_groups, N_TERMS, -1)
    mixed = np.einsum("hg,kgti->tkhi", mixture, by_term).reshape(N_TERMS, -1)
    per_cone = (np.stack(tilt_terms(u, v), axis=1) @ mixed).astype(np.float32)
    return ConeKernels(
        per_cone.reshape(len(own), len(directions), n_bins, -1),
        (mixture @ line.kernels.local).astype(np.float32),
        load_kernel_table().exponents_per_cm,
        REACH_CM,
        NEGLIGIBLE,
    )
