"""Collapsed-cone photon dose: polyenergetic TERMA, EGSnrc kernels in water stretched by electron density.

Dose to MEDIUM: the energy deposited in a voxel over the voxel's mass. A voxel of zero density receives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.cones import cone_kernels
from kernels.contract import Backend, FluenceTable
from kernels.directions import direction_set
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets, InfluenceOperator
from rtplan.domain.machine import BeamModel
from rtplan.domain.progress import Progress
from rtplan.engines._beamline import GY_PER_MEV_PER_G, beamline, grid_geometry, load_backend
from rtplan.engines._broad import broad_fields, coarse_image, on_fine_grid
from rtplan.engines._cone_columns import near_field_columns
from rtplan.engines._contamination import contamination_energy
from rtplan.engines._extra_focal import extra_focal_fluence
from rtplan.engines._sectors import Source, Sources, kernel_sources
from rtplan.engines._source_model import primary_fluence
from rtplan.engines._validity import refuse_bad_beamlets, refuse_bad_dose, refuse_bad_input

DIRECTIONS = {"final": 170, "standard": 86, "quick": 50}
# Where along a line it steps aside: a final dose has every cone twice, half as strong, stepping half a voxel apart.
PHASES = {"final": (0.25, 0.75), "standard": (0.5,), "quick": (0.5,)}
RELEASED_AT_ONCE = 3e8  # values of released energy, 4 bytes each, of the beams that share a sweep


class CollapsedCone:
    """Collapsed-cone convolution/superposition on the shelf of dose engines."""

    kind = "collapsed_cone"

    def example(self) -> dict[str, object]:
        """What the contract tests run it on."""
        return {"backend": "cpu", "quality": "quick"}

    def cones(self, quality: str) -> int:
        """Number of cone directions of a quality."""
        return DIRECTIONS[quality]

    def dose(
        self, density: DensityImage, fluence: Sequence[FluenceMap], model: BeamModel, *, quality: str, backend: str
    ) -> NDArray[np.float32]:
        """Dose to medium per fraction of all fluence maps together, Gy on `density.grid` (z, y, x) float32.

        `quality` "final" uses 170 cones, "standard" 86, "quick" 50. Raises BackendMissing.
        """
        refuse_bad_input(density, fluence, model)
        energy = _energy_per_cc(density, fluence, model, load_backend(backend), cones_of(quality))
        scale = GY_PER_MEV_PER_G * model.energy_fluence_per_mu_mev_cm2
        mass = density.mass_density_g_cm3
        dose_gy = np.zeros_like(energy)
        np.divide(energy * np.float32(scale), mass, out=dose_gy, where=mass > 0)
        refuse_bad_dose(dose_gy)
        return dose_gy

    def influence(
        self,
        density: DensityImage,
        beamlets: Beamlets,
        model: BeamModel,
        voxel_index: NDArray[np.int64],
        *,
        backend: str,
        progress: Progress,
    ) -> InfluenceOperator:
        """Dose of each beamlet for 1 MU in the voxels `voxel_index`: its near field, see `_cone_columns`."""
        refuse_bad_beamlets(density, beamlets, model, voxel_index)
        return near_field_columns(density, beamlets, model, voxel_index, backend=backend, progress=progress)


@dataclass(frozen=True, slots=True, eq=False)
class Cones:
    """Directions (K, 3) of the cones, and the phases at which each of them is walked."""

    directions: NDArray[np.float64]
    phases: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """A fluence and the beam that it belongs to; `of_arc` as in `FluenceMap`."""

    beam: Beam
    of_arc: bool
    table: FluenceTable


def cones_of(quality: str) -> Cones:
    """The cones of a quality. Raises KeyError for one that is not known."""
    return Cones(direction_set(DIRECTIONS[quality]), PHASES[quality])


def _energy_per_cc(
    density: DensityImage, fluence: Sequence[FluenceMap], model: BeamModel, kernels: Backend, cones: Cones
) -> NDArray[np.float32]:
    """Energy deposited per cm³ by all beams, per MeV/cm² of energy fluence a MU: cm⁻¹ MU."""
    energy = contamination_energy(density, fluence, model, kernels)
    fields = [Field(f.beam, f.of_arc, primary_fluence(f, model)) for f in fluence]
    energy += _photons(density, fields, model, kernels, cones)
    if model.extra_focal.fraction > 0:
        coarse = coarse_image(density)
        fields = [Field(f.beam, f.of_arc, extra_focal_fluence(f, model)) for f in broad_fields(fluence)]
        energy += on_fine_grid(_photons(coarse, fields, model, kernels, cones_of("quick")), coarse, density)
    return energy


def _photons(
    density: DensityImage,
    fields: Sequence[Field],
    model: BeamModel,
    kernels: Backend,
    cones: Cones,
) -> NDArray[np.float32]:
    """Energy deposited per cm³ by photons of given fluences.

    Beams share a sweep, as many at a time as there is room for the energy they release.
    """
    sources = _released(density, fields, model, kernels)
    energy = np.zeros(density.grid.shape_zyx, dtype=np.float32)
    batch: list[Source] = []
    for number, source in enumerate(sources, start=1):
        batch.append(source)
        if number == len(sources) or sum(one.released.energy.size for one in batch) > RELEASED_AT_ONCE:
            _deposit(density, batch, model, kernels, cones, energy)
            batch.clear()
    return energy


def _released(density: DensityImage, fields: Sequence[Field], model: BeamModel, kernels: Backend) -> tuple[Source, ...]:
    """What all beams release, by the source whose kernels it spreads with."""
    sources = Sources()
    for field in fields:
        line = beamline(field.beam, model)
        released = kernels.terma(
            density.electron_density_rel,
            grid=grid_geometry(density.grid),
            beam=line.geometry,
            fluence=field.table,
            tables=line.tables,
        )
        for source, share in kernel_sources(field.beam, field.of_arc):
            sources.add(source, released, share, _max_slope(field.table, field.beam.sad_mm))
    return sources.all()


def _deposit(
    density: DensityImage,
    sources: Sequence[Source],
    model: BeamModel,
    kernels: Backend,
    cones: Cones,
    energy: NDArray[np.float32],
) -> None:
    """Adds what some sources deposit: along the cones and on the spot."""
    lines = [beamline(source.beam, model) for source in sources]
    shares = [
        cone_kernels(line.kernels.per_sr, line.theta_edges_rad, cones.directions, line.geometry.axes, source.max_slope)
        for line, source in zip(lines, sources, strict=True)
    ]
    n_phases = len(cones.phases)
    energy += kernels.superpose(
        density.electron_density_rel,
        [source.released for source in sources],
        np.tile(np.stack(shares) / np.float32(n_phases), (1, n_phases, 1, 1)),
        np.tile(cones.directions, (n_phases, 1)),
        grid=grid_geometry(density.grid),
        beams=[line.geometry for line in lines],
        phases=np.repeat(cones.phases, len(cones.directions)),
        smallest_exponent_per_cm=lines[0].smallest_exponent_per_cm,
    )
    local = lines[0].kernels.local.astype(np.float32)
    for source in sources:
        energy[source.released.box] += np.tensordot(local, source.released.energy, axes=1)


def _max_slope(table: FluenceTable, sad_mm: float) -> tuple[float, float]:
    """Largest slope of a ray through the fluence map, along beam X and Y."""
    return float(np.abs(table.x_edges_mm).max() / sad_mm), float(np.abs(table.y_edges_mm).max() / sad_mm)


PLUGIN = CollapsedCone()


def dose(
    density: DensityImage, fluence: Sequence[FluenceMap], model: BeamModel, *, quality: str, backend: str
) -> NDArray[np.float32]:
    """Dose to medium per fraction, Gy. See `CollapsedCone.dose`."""
    return PLUGIN.dose(density, fluence, model, quality=quality, backend=backend)


def reference_output(model: BeamModel, *, sad_mm: float = 1000.0, backend: str = "cpu") -> float:
    """Gy per MU at the reference conditions: water, SSD 100 cm, 10x10 cm² there, depth of maximum, on the axis.

    The largest mean over the central 5 x 5 mm² of a 2.5 mm grid, by depth, in a block of 24 x 24 x 15 cm³.
    """
    spacing = 2.5
    grid = Grid((96, 60, 96), (spacing, spacing, spacing), (-118.75, spacing / 2, -118.75))
    water = np.ones(grid.shape_zyx, dtype=np.float32)
    # The surface lies at y = 0, 100 cm below the source whatever the isocentre's distance.
    beam = Beam("reference", 0.0, 0.0, 0.0, (0.0, sad_mm - 1000.0, 0.0), sad_mm)
    half = 50.0 * sad_mm / 1000.0
    edges = np.array([-half, half])
    fluence = FluenceMap(beam, edges, edges, np.ones((1, 1)))
    dose_gy = PLUGIN.dose(DensityImage(grid, water, water), [fluence], model, quality="final", backend=backend)
    return float(dose_gy[47:49, :, 47:49].mean(axis=(0, 2)).max())
