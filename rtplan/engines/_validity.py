"""What no dose engine may calculate on: input that contradicts itself. It is refused before a single ray is traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import BeamModel
from rtplan.errors import CaseRejected, LibraryInvalid, SafetyStop

DENSEST_G_CM3 = 25.0  # nothing on earth is denser than osmium, 22.6: beyond, the unit is wrong
FARTHEST_MM = 300.0  # of an isocentre from the grid: beyond, a sign or a unit is wrong, or the image is another patient's


def refuse_bad_input(density: DensityImage, fluence: Sequence[FluenceMap], model: BeamModel) -> None:
    """Raise when a dose of these would be a wrong number.

    SafetyStop GRID_INVALID, DENSITY_INVALID, FLUENCE_INVALID, BEAM_INVALID; CaseRejected ISOCENTRE_FAR; LibraryInvalid
    BEAM_MODEL_INVALID. The grid of a phantom or a planning region may end short of the isocentre, so this bound is wide;
    that the isocentre of a plan lies in its CT is for those to check who have the CT.
    """
    _refuse_grid(density.grid)
    _refuse_density("mass density", density.mass_density_g_cm3)
    _refuse_density("relative electron density", density.electron_density_rel)
    _refuse_model(model)
    for field in fluence:
        _refuse_beam(field.beam, density.grid)
        _refuse_edges(field.beam.name, "x", field.x_edges_mm)
        _refuse_edges(field.beam.name, "y", field.y_edges_mm)
        if not np.all(np.isfinite(field.fluence_mu)) or float(field.fluence_mu.min(initial=0.0)) < 0:
            raise SafetyStop("FLUENCE_INVALID", f"{field.beam.name}: MU that are negative or not finite", "0 or more")


def refuse_bad_beamlets(density: DensityImage, beamlets: Beamlets, model: BeamModel, voxel_index: NDArray[np.int64]) -> None:
    """Raise when columns of these would hold wrong numbers: as `refuse_bad_input`, with BEAMLETS_INVALID, VOXELS_INVALID."""
    refuse_bad_input(density, (), model)
    for beam in beamlets.beams:
        _refuse_beam(beam, density.grid)
    wide = np.all(beamlets.x2_mm > beamlets.x1_mm) and np.all(beamlets.y2_mm > beamlets.y1_mm)
    # A comparison with NaN is false, infinite edges are left.
    if not wide or not all(np.all(np.isfinite(v)) for v in (beamlets.x1_mm, beamlets.x2_mm, beamlets.y1_mm, beamlets.y2_mm)):
        raise SafetyStop("BEAMLETS_INVALID", "beamlets without extent or with edges that are not finite", "x1 < x2, y1 < y2")
    if np.any((beamlets.beam_index < 0) | (beamlets.beam_index >= len(beamlets.beams))):
        raise SafetyStop("BEAMLETS_INVALID", "beamlets of a beam that is not there", f"0 to {len(beamlets.beams) - 1}")
    if np.any((voxel_index < 0) | (voxel_index >= density.grid.n_voxels)):
        raise SafetyStop("VOXELS_INVALID", "voxels of interest outside the grid", f"0 to {density.grid.n_voxels - 1}")


def refuse_bad_dose(dose_gy: NDArray[np.float32]) -> None:
    """Raise SafetyStop DOSE_NOT_FINITE: whatever went wrong on the way, what is no number is not handed out as a dose."""
    # NaN spreads to both ends.
    if not np.all(np.isfinite([dose_gy.min(), dose_gy.max()])):
        raise SafetyStop("DOSE_NOT_FINITE", f"{int(np.sum(~np.isfinite(dose_gy)))} voxels without a dose", "a finite dose")


def _refuse_grid(grid: Grid) -> None:
    # A Grid refuses this itself when it is made, but not when it arrives from another process.
    if not np.all(np.isfinite([*grid.spacing_zyx_mm, *grid.origin_xyz_mm])) or min(grid.spacing_zyx_mm) <= 0:
        found = f"spacing {grid.spacing_zyx_mm} mm, origin {grid.origin_xyz_mm} mm"
        raise SafetyStop("GRID_INVALID", found, "finite, and voxels of some size")


def _refuse_density(name: str, values: NDArray[np.float32]) -> None:
    """Smallest and largest say it all: NaN spreads to both."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= DENSEST_G_CM3):
        raise SafetyStop(
            "DENSITY_INVALID", f"{name} from {low:g} to {high:g}", f"0 to {DENSEST_G_CM3:g}, in g/cm³ or relative to water"
        )


def _refuse_model(model: BeamModel) -> None:
    """Every number of the model, whatever it is called, is finite; spectrum and output are there."""
    for field in fields(model):
        value = getattr(model, field.name)
        if isinstance(value, (float, int, np.ndarray)) and not np.all(np.isfinite(value)):
            raise LibraryInvalid("BEAM_MODEL_INVALID", f"{model.energy_id}: {field.name} is not finite", "finite numbers")
    output, spectrum = model.energy_fluence_per_mu_mev_cm2, model.photon_fraction
    if not (output > 0 and np.all(spectrum >= 0) and spectrum.sum() > 0):
        raise LibraryInvalid("BEAM_MODEL_INVALID", f"{model.energy_id}: no output or no spectrum", "both above 0")


def _refuse_beam(beam: Beam, grid: Grid) -> None:
    geometry = (beam.gantry_angle_deg, beam.collimator_angle_deg, beam.couch_angle_deg, beam.sad_mm, *beam.isocentre_xyz_mm)
    if not np.all(np.isfinite(geometry)) or beam.sad_mm <= 0:
        raise SafetyStop("BEAM_INVALID", f"{beam.name}: angles, isocentre or SAD not finite, or no SAD", "finite numbers")
    low, high = grid.bounds_mm()
    away = [max(a - v, v - b, 0.0) for v, a, b in zip(beam.isocentre_xyz_mm, low, high, strict=True)]
    if max(away) > FARTHEST_MM:
        at = ", ".join(f"{v:.1f}" for v in beam.isocentre_xyz_mm)
        raise CaseRejected(
            "ISOCENTRE_FAR",
            f"{beam.name}: isocentre ({at}) mm lies {max(away):.0f} mm outside the densities' grid",
            f"inside, or at most {FARTHEST_MM:g} mm away",
            "check that plan and CT belong together",
        )


def _refuse_edges(name: str, axis: str, edges_mm: NDArray[np.float64]) -> None:
    # A comparison with NaN is false; infinite ends are left.
    if len(edges_mm) < 2 or not np.all(np.diff(edges_mm) > 0) or not np.all(np.isfinite(edges_mm[[0, -1]])):
        raise SafetyStop("FLUENCE_INVALID", f"{name}: {axis} edges do not rise from pixel to pixel", "finite, ascending")
