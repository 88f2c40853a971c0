"""Influence columns of the collapsed cone engine: the near field of each beamlet."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cones import N_TERMS, cone_kernels
from kernels.contract import Backend, fluence_table
from kernels.directions import direction_set
from kernels.lines import line_steps
from rtplan.domain.arrays import frozen
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import BeamModel
from rtplan.domain.progress import Progress
from rtplan.engines._beamline import GY_PER_MEV_PER_G, Beamline, beamline, grid_geometry, load_backend

NEAR_FIELD_CM = 6.0  # radiological length of the cone lines that columns follow; what lies beyond is the caller's to add
THRESHOLD = 5e-4  # of a column's largest value: smaller entries are left out
DIRECTIONS = 86
NEGLIGIBLE_REST = 3e-4  # of the energy of all cones: with so little left a cone is followed no further
_SUB = 3  # points along each side of a voxel for its coverage by beamlets
_TABLE_STEP_CM = 0.02
_HARDNESS_STEP_CM = 3.0
_BLOCK = 48  # beamlets a thread works on at a time


@dataclass(frozen=True, slots=True, eq=False)
class ColumnInfluence:
    """InfluenceOperator whose columns are kept in 16 bits with one scale each, on one backend."""

    grid: Grid
    voxel_index: NDArray[np.int64]
    beamlets: Beamlets
    start: NDArray[np.int64]
    row: NDArray[np.int32]
    level: NDArray[np.uint16]
    scale: NDArray[np.float32]
    backend: Backend

    @property
    def n_nonzero(self) -> int:
        """Stored entries."""
        return len(self.row)

    def apply(self, weights_mu: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_beamlets,) MU per fraction to (n_voxels,) Gy per fraction."""
        weights = np.ascontiguousarray(weights_mu, dtype=np.float32)
        return self.backend.apply_columns(self.start, self.row, self.level, self.scale, weights, len(self.voxel_index))

    def adjoint(self, dose_gradient: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_voxels,) to (n_beamlets,)."""
        gradient = np.ascontiguousarray(dose_gradient, dtype=np.float32)
        return self.backend.adjoint_columns(self.start, self.row, self.level, self.scale, gradient)


@dataclass(frozen=True, slots=True, eq=False)
class _Cones:
    """Lines and cumulative kernels of one beam: offsets (K, N, 3), steps (K,) cm, kernels (B, K, M) by hardness bin B."""

    offset_zyx: NDArray[np.int16]
    step_cm: NDArray[np.float32]
    cumulative: NDArray[np.float32]
    reach: NDArray[np.int64]  # (K,) where each cone's walk ends in its curve
    softest_share: NDArray[np.float64]  # share of the lowest energy group in TERMA at each hardness bin, descending


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

    The same TERMA and kernels as the final dose, with 86 cones on the beam axis, a point source, and cone lines followed for
    6 cm of water: 95 % of the dose of a 10x10 field. The rest is smooth; the planner adds it as a measured residual.
    """
    kernels = load_backend(backend)
    row_of = np.full(density.grid.n_voxels, -1, dtype=np.int32)
    row_of[voxel_index] = np.arange(len(voxel_index), dtype=np.int32)
    scale = GY_PER_MEV_PER_G * model.energy_fluence_per_mu_mev_cm2
    mass = density.mass_density_g_cm3.reshape(-1)
    per_energy = np.divide(np.float32(scale), mass, out=np.zeros_like(mass), where=mass > 0)
    blocks: list[tuple[NDArray[Any], ...]] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for index, beam in enumerate(beamlets.beams):
            progress("influence", index / len(beamlets.beams), f"beam {beam.name}")
            own = np.flatnonzero(beamlets.beam_index == index)
            line = beamline(beam, model)
            cones = _cones(line, density.grid)
            sources = _sources(density, beamlets, own, line, model, kernels, cones)
            jobs = [
                pool.submit(
                    _block, kernels, sources, slice(a, min(a + _BLOCK, len(own))), density, per_energy, row_of, cones
                )
                for a in range(0, len(own), _BLOCK)
            ]
            blocks += [job.result() for job in jobs]
    count = np.concatenate([np.diff(b[0]) for b in blocks])
    progress("influence", 1.0, f"{len(beamlets)} beamlets, {count.sum() / 1e6:.1f} million values")
    return ColumnInfluence(
        density.grid,
        frozen(voxel_index, np.int64),
        beamlets,
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        np.concatenate([b[1] for b in blocks]),
        np.concatenate([b[2] for b in blocks]),
        np.concatenate([b[3] for b in blocks]),
        kernels,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Sources:
    """Voxels that the beamlets of one beam release energy in, beamlet by beamlet: `start` (n + 1,)."""

    start: NDArray[np.int64]
    voxel: NDArray[np.int64]
    energy: NDArray[np.float32]
    kernel: NDArray[np.uint8]


def _block(
    kernels: Backend,
    sources: _Sources,
    part: slice,
    density: DensityImage,
    per_energy: NDArray[np.float32],
    row_of: NDArray[np.int32],
    cones: _Cones,
) -> tuple[NDArray[Any], ...]:
    """Columns of neighbouring beamlets of one beam."""
    first, last = sources.start[part.start], sources.start[part.stop]
    columns: tuple[NDArray[Any], ...] = kernels.deposit_columns(
        sources.start[part.start : part.stop + 1] - first,
        sources.voxel[first:last],
        sources.energy[first:last],
        sources.kernel[first:last],
        density.electron_density_rel,
        per_energy,
        row_of,
        cones.offset_zyx,
        cones.step_cm,
        cones.cumulative,
        cones.reach,
        _TABLE_STEP_CM,
        THRESHOLD,
    )
    return columns


def _sources(
    density: DensityImage,
    beamlets: Beamlets,
    own: NDArray[np.int64],
    line: Beamline,
    model: BeamModel,
    kernels: Backend,
    cones: _Cones,
) -> _Sources:
    """TERMA of an open field, shared out to the beamlets by how much of each voxel they cover."""
    beam = beamlets.beams[int(beamlets.beam_index[own[0]])]
    grid = density.grid
    field = _open_field(beam, beamlets, own)
    released = kernels.terma(
        density.electron_density_rel,
        grid=grid_geometry(grid),
        beam=line.geometry,
        fluence=fluence_table(field.x_edges_mm, field.y_edges_mm, field.fluence_mu),
        tables=line.tables,
    )
    everywhere = np.zeros((len(released.energy), *grid.shape_zyx), dtype=np.float32)
    everywhere[(slice(None), *released.box)] = released.energy
    groups = everywhere.reshape(len(everywhere), -1)
    total = groups.sum(axis=0)
    voxel = np.flatnonzero(total > 0)
    share = groups[0, voxel] / total[voxel]
    hardness = np.abs(share[:, None] - cones.softest_share[None, :]).argmin(axis=1).astype(np.uint8)
    beamlet, place, fraction = _coverage(kernels, grid, beamlets, own, line, voxel)
    order = np.argsort(beamlet, kind="stable")
    where = place[order]
    return _Sources(
        np.searchsorted(beamlet[order], np.arange(len(own) + 1)).astype(np.int64),
        voxel[where],
        (total[voxel[where]] * fraction[order]).astype(np.float32),
        hardness[where],
    )


def _open_field(beam: Beam, beamlets: Beamlets, own: NDArray[np.int64]) -> FluenceMap:
    """A uniform field that reaches well beyond the beamlets, so that no voxel of theirs sees its edge."""
    reach = 30.0
    x = np.array([beamlets.x1_mm[own].min() - reach, beamlets.x2_mm[own].max() + reach])
    y = np.array([beamlets.y1_mm[own].min() - reach, beamlets.y2_mm[own].max() + reach])
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


def _cones(line: Beamline, grid: Grid) -> _Cones:
    """Lines through the grid and, along each, the energy deposited up to a radiological path, for rays on the axis."""
    radius = np.arange(0.0, NEAR_FIELD_CM + 2 * _TABLE_STEP_CM, _TABLE_STEP_CM)
    exponents = line.smallest_exponent_per_cm * 2.0 ** np.arange(line.kernels.per_sr.shape[2])
    depth = np.arange(0.0, 36.0, _HARDNESS_STEP_CM)
    place = np.minimum((depth / line.tables.depth_step_cm).astype(int), line.tables.terma_per_cm.shape[2] - 1)
    on_axis = line.tables.terma_per_cm[0][:, place]
    share = on_axis / on_axis.sum(axis=0)
    axis_only = cone_kernels(
        line.kernels.per_sr, line.theta_edges_rad, direction_set(DIRECTIONS), line.geometry.axes, (0.0, 0.0)
    )
    per_group = axis_only.reshape(len(direction_set(DIRECTIONS)), len(share), N_TERMS, -1)[:, :, 0]
    deposited = np.einsum("gb,kgi,im->bkm", share, per_group, 1 - np.exp(-np.outer(exponents, radius)))
    # A cone's walk ends where what it has left matters nowhere.
    rest = deposited[:, :, -1:] - deposited
    all_cones = deposited[:, :, -1].sum(axis=1)[:, None, None]
    reach = np.minimum((rest >= NEGLIGIBLE_REST * all_cones).sum(axis=2).max(axis=0) + 1, deposited.shape[2] - 1)
    # What stays where it is released comes as a first jump of every cone's curve.
    deposited += (line.kernels.local @ share)[:, None, None] / len(direction_set(DIRECTIONS))
    offsets, steps = zip(*(_offsets(d, grid) for d in direction_set(DIRECTIONS)), strict=True)
    longest = max(len(o) for o in offsets)
    # Shorter lines end outside any grid.
    offset = np.full((len(offsets), longest, 3), np.iinfo(np.int16).max, dtype=np.int16)
    for k, own in enumerate(offsets):
        offset[k, : len(own)] = own
    return _Cones(offset, np.array(steps, np.float32), np.ascontiguousarray(deposited, np.float32), reach, share[0])


def _offsets(direction: NDArray[np.float64], grid: Grid) -> tuple[NDArray[np.int16], float]:
    """Voxel offsets (n, 3) [z, y, x] along a direction, twice as far as the table reaches in water, for lung."""
    probe = line_steps(direction, (1, 1, 1), grid.spacing_zyx_mm)
    count = int(np.ceil(2 * NEAR_FIELD_CM / probe.step_cm)) + 1
    line = line_steps(direction, (count, count, count), grid.spacing_zyx_mm)
    offset = np.empty((count, 3), dtype=np.int16)
    offset[:, line.axes[0]] = line.planes - line.planes[0]
    offset[:, line.axes[1]] = line.row_shift
    offset[:, line.axes[2]] = line.column_shift
    return offset, line.step_cm
