"""Electrons from the head and the air: a surface term that is added to the photons' dose.

Depth curve and field-size dependence after the surface terms of Ahnesjö and Andreo (Phys Med Biol 34:1451, 1989) and of
Pinnacle as given by Bedford et al. (Br J Radiol 76:163, 2003): an exponential cut off at the electrons' range, under a
fluence blurred so widely that it grows with the field. The equation stands at `rtplan.domain.machine.ElectronContamination`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from kernels.contract import Backend, BeamGeometry, BeamTables, FluenceTable, GridGeometry, fluence_table
from rtplan.domain.beams import FluenceMap, beam_frame
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import BeamModel, ElectronContamination
from rtplan.engines._beamline import beam_geometry, grid_geometry
from rtplan.engines._source_model import REFERENCE_HALF_FIELD_MM, blurred, reach_mm, seen_on_axis, uniform_edges
from rtplan.library.water import load_attenuation

PIXEL_MM = 5.0
DEPTH_STEP_CM = 0.05
COARSER = 4
_DEPTHS = 20  # of the search for what lies within the range
_EVERYWHERE_MM = 1e4


def contamination_energy(
    density: DensityImage, fluence: Sequence[FluenceMap], model: BeamModel, backend: Backend
) -> NDArray[np.float32]:
    """Energy that the electrons of all beams deposit per cm³, in the unit of the photons' TERMA: cm⁻¹ MU, (z, y, x).

    The operation `terma` with one group whose depth table is the electrons' curve: what it releases is deposited there.
    """
    energy = np.zeros(density.grid.shape_zyx, dtype=np.float32)
    if model.contamination.amplitude == 0:
        return energy
    tables = contamination_tables(model)
    for one in fluence:
        beam, table = beam_geometry(beam_frame(one.beam)), contamination_fluence(one, model.contamination)
        near = _near_the_surface(density, beam, table, model.contamination.range_cm, backend)
        # No ray to a voxel within the range has passed one beyond it, so what lies deeper need not be there.
        shell = np.where(near, density.electron_density_rel, np.float32(0))
        energy += backend.terma(shell, grid=grid_geometry(density.grid), beam=beam, fluence=table, tables=tables)[0]
    return energy


def _near_the_surface(
    density: DensityImage, beam: BeamGeometry, fluence: FluenceTable, range_cm: float, backend: Backend
) -> NDArray[np.bool_]:
    """Voxels that the electrons may reach and some more, (z, y, x): by depths on a grid four times coarser."""
    grid = density.grid
    padding = [(0, -n % COARSER) for n in grid.shape_zyx]
    padded = np.pad(density.electron_density_rel, padding)
    n_z, n_y, n_x = (n // COARSER for n in padded.shape)
    coarse = padded.reshape(n_z, COARSER, n_y, COARSER, n_x, COARSER).mean(axis=(1, 3, 5))
    spacing = tuple(COARSER * s for s in grid.spacing_zyx_mm)
    shift = [(COARSER - 1) / 2 * s for s in grid.spacing_zyx_mm[::-1]]
    origin = tuple(o + d for o, d in zip(grid.origin_xyz_mm, shift, strict=True))
    geometry = GridGeometry((n_z, n_y, n_x), (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))
    # As far again as a coarse voxel is long, and its neighbours: the depth of its middle is not that of its corners.
    deepest = range_cm + float(np.linalg.norm(spacing)) / 10.0
    here = np.where(np.arange(_DEPTHS + 2) <= _DEPTHS, 1.0, 0.0)[None]
    tables = BeamTables(deepest / _DEPTHS, here, np.array([0.0, _EVERYWHERE_MM]), np.array([1.0, 1.0]))
    found = backend.terma(coarse, grid=geometry, beam=beam, fluence=fluence, tables=tables)[0] > 0
    wide: NDArray[np.bool_] = maximum_filter(found, size=3)
    for axis in range(3):
        wide = wide.repeat(COARSER, axis=axis)
    return wide[: grid.shape_zyx[0], : grid.shape_zyx[1], : grid.shape_zyx[2]]


def contamination_tables(model: BeamModel) -> BeamTables:
    """The electrons' depth curve as the only group of a TERMA table, (1, D) cm⁻¹; no off-axis factor."""
    term = model.contamination
    depth = np.linspace(0.0, term.range_cm, int(np.ceil(term.range_cm / DEPTH_STEP_CM)) + 1)
    end = np.exp(-term.attenuation_per_cm * term.range_cm)
    curve = (np.exp(-term.attenuation_per_cm * depth) - end) / (1 - end)
    flat = np.array([0.0, _EVERYWHERE_MM]), np.array([1.0, 1.0])
    # The operations hold the last value of a table: it is zero.
    return BeamTables(float(depth[1]), (term.amplitude * surface_terma_per_cm(model) * curve)[None], *flat)


def surface_terma_per_cm(model: BeamModel) -> float:
    """TERMA at the surface of water per unit energy fluence: Σ ψ_E μ_E, cm⁻¹."""
    fluence = model.photon_fraction * model.energy_mev
    return float(fluence @ load_attenuation().at(model.energy_mev) / fluence.sum())


def contamination_fluence(fluence: FluenceMap, term: ElectronContamination) -> FluenceTable:
    """The map blurred by the electrons' spread, 1 a MU on the axis of a 10x10 cm² field."""
    # Relative to TERMA, which is about twice the dose maximum; the share of the axis doubles in large fields.
    reach = reach_mm(4 * term.amplitude, term.sigma_mm)
    x_edges = uniform_edges(fluence.x_edges_mm[0] - reach, fluence.x_edges_mm[-1] + reach, PIXEL_MM)
    y_edges = uniform_edges(fluence.y_edges_mm[0] - reach, fluence.y_edges_mm[-1] + reach, PIXEL_MM)
    spread = blurred(fluence, x_edges, y_edges, (term.sigma_mm, term.sigma_mm))
    return fluence_table(x_edges, y_edges, spread / seen_on_axis(REFERENCE_HALF_FIELD_MM, term.sigma_mm))
