"""Electrons from the head and the air: a surface term that is added to the photons' dose.

Depth curve and field-size dependence after the surface terms of Ahnesjö and Andreo (Phys Med Biol 34:1451, 1989) and of
Pinnacle as given by Bedford et al. (Br J Radiol 76:163, 2003): an exponential cut off at the electrons' range, under a
fluence blurred so widely that it grows with the field. The equation stands at `rtplan.domain.machine.ElectronContamination`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels.contract import Backend, BeamTables, FluenceTable
from rtplan.domain.beams import FluenceMap, beam_frame
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import BeamModel, ElectronContamination
from rtplan.engines._beamline import beam_geometry, grid_geometry
from rtplan.engines._broad import BroadField, broad_fields
from rtplan.engines._source_model import REFERENCE_HALF_FIELD_MM, seen_on_axis
from rtplan.library.water import load_attenuation

REACH = 2.5  # standard deviations of their spread beyond the map
DEPTH_STEP_CM = 0.05
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
    for field in broad_fields(fluence):
        released = backend.terma(
            density.electron_density_rel,
            grid=grid_geometry(density.grid),
            beam=beam_geometry(beam_frame(field.beam)),
            fluence=contamination_fluence(field, model.contamination),
            tables=tables,
        )
        energy[released.box] += released.energy[0]
    return energy


def contamination_tables(model: BeamModel) -> BeamTables:
    """The electrons' depth curve as the only group of a TERMA table, (1, 1, D) cm⁻¹; no off-axis factor or softening."""
    term = model.contamination
    depth = np.linspace(0.0, term.range_cm, int(np.ceil(term.range_cm / DEPTH_STEP_CM)) + 1)
    end = np.exp(-term.attenuation_per_cm * term.range_cm)
    curve = (np.exp(-term.attenuation_per_cm * depth) - end) / (1 - end)
    flat = np.array([0.0, _EVERYWHERE_MM]), np.array([1.0, 1.0])
    # The operations hold the last value of a table: it is zero.
    terma_per_cm = (term.amplitude * surface_terma_per_cm(model) * curve)[None, None]
    return BeamTables(float(depth[1]), np.array([0.0, _EVERYWHERE_MM]), np.repeat(terma_per_cm, 2, axis=0), *flat)


def surface_terma_per_cm(model: BeamModel) -> float:
    """TERMA at the surface of water per unit energy fluence: Σ ψ_E μ_E, cm⁻¹."""
    fluence = model.photon_fraction * model.energy_mev
    return float(fluence @ load_attenuation().at(model.energy_mev) / fluence.sum())


def contamination_fluence(field: BroadField, term: ElectronContamination) -> FluenceTable:
    """The maps blurred by the electrons' spread, 1 a MU on the axis of a 10x10 cm² field."""
    spread = field.table(term.sigma_mm, REACH * term.sigma_mm)
    reference = seen_on_axis(REFERENCE_HALF_FIELD_MM, term.sigma_mm)
    return FluenceTable(spread.x_edges_mm, spread.y_edges_mm, spread.integral / reference)
