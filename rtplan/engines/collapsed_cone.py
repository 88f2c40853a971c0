"""Collapsed-cone photon dose: polyenergetic TERMA, EGSnrc kernels in water stretched by electron density.

Dose to MEDIUM: the energy deposited in a voxel over the voxel's mass. A voxel of zero density receives none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.cones import cone_kernels
from kernels.contract import Backend, FluenceTable
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets, InfluenceOperator
from rtplan.domain.machine import BeamModel
from rtplan.domain.progress import Progress
from rtplan.engines._beamline import GY_PER_MEV_PER_G, Beamline, beamline, grid_geometry, load_backend
from rtplan.engines._cone_columns import near_field_columns
from rtplan.engines._contamination import contamination_energy
from rtplan.engines._source_model import blurred_fluence

DIRECTIONS = {"final": 170, "quick": 50}
BEAMS_AT_ONCE = 9  # beams that share a sweep: the released energy of all of them is held at once


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

        `quality` "final" uses 170 cones, "quick" 50. Raises BackendMissing.
        """
        kernels = load_backend(backend)
        energy = np.zeros(density.grid.shape_zyx, dtype=np.float32)
        for first in range(0, len(fluence), BEAMS_AT_ONCE):
            energy += _energy_per_cc(density, fluence[first : first + BEAMS_AT_ONCE], model, kernels, DIRECTIONS[quality])
        scale = GY_PER_MEV_PER_G * model.energy_fluence_per_mu_mev_cm2
        mass = density.mass_density_g_cm3
        dose_gy = np.zeros_like(energy)
        np.divide(energy * np.float32(scale), mass, out=dose_gy, where=mass > 0)
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
        return near_field_columns(density, beamlets, model, voxel_index, backend=backend, progress=progress)


def _energy_per_cc(
    density: DensityImage, fluence: Sequence[FluenceMap], model: BeamModel, kernels: Backend, n_directions: int
) -> NDArray[np.float32]:
    """Energy deposited per cm³ by some beams, per MeV/cm² of energy fluence a MU: cm⁻¹ MU."""
    grid = grid_geometry(density.grid)
    lines = [beamline(one.beam, model, n_directions) for one in fluence]
    tables = [blurred_fluence(one, model) for one in fluence]
    released = np.stack(
        [
            kernels.terma(density.electron_density_rel, grid=grid, beam=line.geometry, fluence=table, tables=line.tables)
            for line, table in zip(lines, tables, strict=True)
        ]
    )
    cones = np.stack([_cones(line, table) for line, table in zip(lines, tables, strict=True)])
    spread = kernels.superpose(
        density.electron_density_rel,
        released,
        cones,
        lines[0].directions,
        grid=grid,
        beams=[line.geometry for line in lines],
        smallest_exponent_per_cm=lines[0].smallest_exponent_per_cm,
    )
    local = np.tensordot(lines[0].kernels.local.astype(np.float32), released.sum(axis=0), axes=1)
    electrons = contamination_energy(density, fluence, model, kernels)
    return (spread + local + electrons).astype(np.float32)


def _cones(line: Beamline, table: FluenceTable) -> NDArray[np.float32]:
    """Cone kernels of one beam for the rays of its field."""
    largest = _max_slope(table, line.geometry.sad_mm)
    return cone_kernels(line.kernels.per_sr, line.theta_edges_rad, line.directions, line.geometry.axes, largest)


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
