"""CT images and what the dose engine makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.case import SeriesReference
from rtplan.domain.grid import Grid
from rtplan.domain.verdict import Finding


@dataclass(frozen=True, slots=True, eq=False)
class CtImage:
    """A CT volume: (z, y, x) int16 Hounsfield units on a Grid, with the series it came from."""

    grid: Grid
    hu: NDArray[np.int16]
    series: SeriesReference
    patient_position: str
    sha256: str  # over voxels, geometry and identity: the same series in any file order gives the same hash
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "hu", frozen(self.hu, np.int16))
        if self.hu.shape != self.grid.shape_zyx:
            raise ValueError(f"voxels {self.hu.shape} do not fit the grid {self.grid.shape_zyx}")


@dataclass(frozen=True, slots=True, eq=False)
class DensityImage:
    """Densities for the dose engine: mass density in g/cm³ and electron density relative to water, (z, y, x) float32.

    Outside the body both are zero (vacuum), so that couch, mask and air neither attenuate nor receive dose.
    """

    grid: Grid
    mass_density_g_cm3: NDArray[np.float32]
    electron_density_rel: NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mass_density_g_cm3", frozen(self.mass_density_g_cm3, np.float32))
        object.__setattr__(self, "electron_density_rel", frozen(self.electron_density_rel, np.float32))
        if not self.mass_density_g_cm3.shape == self.electron_density_rel.shape == self.grid.shape_zyx:
            raise ValueError("density arrays do not fit the grid")


@dataclass(frozen=True, slots=True)
class HuCalibration:
    """A named CT calibration: HU to mass density and relative electron density, linear between the points."""

    calibration_id: str
    status: str
    source: str
    hu: tuple[float, ...]
    mass_density_g_cm3: tuple[float, ...]
    electron_density_rel: tuple[float, ...]
