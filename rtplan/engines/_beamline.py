"""One beam as the kernel operations of the collapsed-cone engine want it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kernels.backend import get_backend
from kernels.contract import Backend, BackendUnavailable, BeamGeometry, BeamTables, GridGeometry
from kernels.polyenergetic import DoseTables, dose_tables, softened, water_spectrum
from rtplan.domain.beams import Beam, BeamFrame, beam_frame
from rtplan.domain.grid import Grid
from rtplan.domain.machine import BeamModel
from rtplan.errors import BackendMissing, LibraryInvalid
from rtplan.library.water import load_attenuation, load_kernel_table

GY_PER_MEV_PER_G = 1.602176634e-10
DEPTH_STEP_CM = 0.1
DEPTH_MAX_CM = 120.0


@dataclass(frozen=True, slots=True, eq=False)
class Beamline:
    """Everything of one beam and its model that the kernel operations need."""

    geometry: BeamGeometry
    tables: BeamTables
    kernels: DoseTables
    theta_edges_rad: NDArray[np.float64]
    smallest_exponent_per_cm: float


def load_backend(name: str) -> Backend:
    """The kernel operations of a device. Raises BackendMissing when it is not there."""
    try:
        return get_backend(name)
    except BackendUnavailable as error:
        raise BackendMissing(
            "BACKEND_MISSING", str(error), "a backend of this installation", "choose --device cpu"
        ) from error


@lru_cache(maxsize=8)
def _spectrum_tables(model: BeamModel) -> tuple[BeamTables, DoseTables]:
    """TERMA by radius and depth and the two kernels it is split between."""
    axis = water_spectrum(model.energy_mev, model.photon_fraction, load_attenuation())
    try:
        spectra = [softened(axis, float(ratio)) for ratio in model.softening_mu_ratio]
    except ValueError as error:
        raise LibraryInvalid("BEAM_MODEL_INVALID", str(error), "a softening that the spectrum can have") from error
    depths = np.arange(0.0, DEPTH_MAX_CM + DEPTH_STEP_CM, DEPTH_STEP_CM)
    tables = dose_tables(spectra, load_kernel_table(), depths)
    profile = model.off_axis_radius_mm, model.off_axis_factor
    return BeamTables(DEPTH_STEP_CM, model.softening_radius_mm, tables.terma_per_cm, *profile), tables


def beamline(beam: Beam, model: BeamModel) -> Beamline:
    """Geometry, spectrum tables and kernels of a beam."""
    tables, kernels = _spectrum_tables(model)
    table = load_kernel_table()
    return Beamline(
        beam_geometry(beam_frame(beam)),
        tables,
        kernels,
        table.theta_edges_rad,
        table.smallest_exponent_per_cm,
    )


def beam_geometry(frame: BeamFrame) -> BeamGeometry:
    """A beam's frame as the kernels want it."""
    return BeamGeometry(frame.source_xyz_mm, np.stack([frame.axis_x, frame.axis_y, frame.axis_z]), frame.sad_mm)


def grid_geometry(grid: Grid) -> GridGeometry:
    """A grid as the kernels want it."""
    return GridGeometry(grid.shape_zyx, grid.spacing_zyx_mm, grid.origin_xyz_mm)
