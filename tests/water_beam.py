"""A point-source beam of three photon energies, water blocks and open fields, for the dose tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, BeamModel

NO_HEAD = (NO_EXTRA_FOCAL_SOURCE, NO_CONTAMINATION)


def beam_model(
    energy_mev: tuple[float, ...] = (0.6, 1.5, 4.0),
    photon_fraction: tuple[float, ...] = (0.4, 0.4, 0.2),
    sigma_mm: float = 0.0,
) -> BeamModel:
    """1 MeV/cm² a MU, no horns."""
    flat = (np.array([0.0, 500.0]), np.array([1.0, 1.0]))
    return BeamModel("t", 6.0, energy_mev, photon_fraction, 1.0, sigma_mm, sigma_mm, 500.0, *flat, *flat, *NO_HEAD, "")


def open_field(
    gantry_deg: float = 0.0,
    half_x_mm: float = 30.0,
    half_y_mm: float = 30.0,
    isocentre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> FluenceMap:
    """One MU through a rectangle that is centred on the axis."""
    beam = Beam("field", gantry_deg, 0.0, 0.0, isocentre, 1000.0)
    return FluenceMap(beam, [-half_x_mm, half_x_mm], [-half_y_mm, half_y_mm], [[1.0]])


def block(density: NDArray[np.floating], spacing_mm: float = 5.0) -> DensityImage:
    """A density array centred on the origin; mass and electron density alike."""
    shape = density.shape
    origin = tuple(-(n - 1) * spacing_mm / 2 for n in shape[::-1])
    return DensityImage(Grid(shape, (spacing_mm,) * 3, origin), density, density)


def patchwork(seed: int = 7, shape: tuple[int, int, int] = (20, 20, 20)) -> NDArray[np.float32]:
    """A body of lumps of 0.2 to 1.8 g/cm³ in a box of nothing."""
    random = np.random.default_rng(seed)
    lumps = random.uniform(0.2, 1.8, tuple(-(-n // 4) for n in shape))
    density = np.kron(lumps, np.ones((4, 4, 4)))[: shape[0], : shape[1], : shape[2]].astype(np.float32)
    density[:2], density[-2:], density[:, :2], density[:, -2:], density[:, :, :2], density[:, :, -2:] = (0,) * 6
    return density
