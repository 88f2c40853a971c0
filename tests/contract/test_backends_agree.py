"""Every backend's dose and influence, through the engine, are the reference's to 0.1 % of the maximum."""

from __future__ import annotations

import numpy as np
import pytest
from backends import every_backend, require
from water_beam import beam_model

from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.progress import silent
from rtplan.engines.collapsed_cone import PLUGIN, dose

TOLERANCE = 1e-3  # of the maximum
OTHERS = [p for p in every_backend() if p.values != ("reference",)]
GRID = Grid((9, 12, 10), (5.0, 4.0, 6.0), (-29.0, -23.0, -18.0))
OBLIQUE = Beam("oblique", 205.0, 20.0, 15.0, (3.0, -4.0, 2.0), 1000.0)
SIDE = Beam("side", 80.0, 0.0, 0.0, (0.0, 2.0, 0.0), 1000.0)


def body() -> DensityImage:
    """Soft lumps with a surface, a cavity of air, nothing at all in a corner, and a piece of metal."""
    mass = np.random.default_rng(11).uniform(0.2, 1.7, GRID.shape_zyx).astype(np.float32)
    mass[:, 0], mass[4:6, 5:7, 4:6], mass[:3, :, :2], mass[7, 8, 6] = 0.0, 0.0012, 0.0, 7.0
    return DensityImage(GRID, mass, (0.93 * mass).astype(np.float32))


def fields() -> tuple[FluenceMap, ...]:
    """A modulated field with dark pixels, and an open one from the side."""
    fluence = np.random.default_rng(12).uniform(0.0, 2.0, (4, 5))
    fluence[1, 2] = 0.0
    modulated = FluenceMap(OBLIQUE, [-21, -12, -3, 0, 9, 20], [-18, -8, 0, 5, 17], fluence)
    return modulated, FluenceMap(SIDE, [-15.0, 18.0], [-10.0, 14.0], [[0.7]])


def beamlets() -> Beamlets:
    """Four beamlets of 10 mm in one leaf pair each of two, by the oblique beam; two by the other."""
    x = np.array([-10.0, 0.0, -10.0, 0.0, -5.0, 5.0])
    y = np.array([-10.0, -10.0, 0.0, 0.0, 0.0, 0.0])
    return Beamlets((OBLIQUE, SIDE), [0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1], x, x + 10.0, y, y + 10.0)


@pytest.mark.parametrize("source_sigma_mm", [0.0, 1.5])
@pytest.mark.parametrize("name", OTHERS)
def test_dose_is_the_references(name: str, source_sigma_mm: float):
    # mutant: 0.2 % more released by one backend; one direction of 50 left out by it
    model = beam_model(sigma_mm=source_sigma_mm)
    expected, found = (
        dose(body(), fields(), model, quality="quick", backend=backend) for backend in ("reference", require(name))
    )
    assert expected.max() > 0
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * expected.max(), rtol=0)
    # Where there is nothing, there is no dose on any of them.
    assert np.all(found[body().mass_density_g_cm3 == 0] == 0)


@pytest.mark.parametrize("name", OTHERS)
def test_influence_is_the_references(name: str):
    # mutant: scale of the neighbouring column in one backend's apply, or in its adjoint
    voxels = np.flatnonzero(body().mass_density_g_cm3 > 0)[::2]  # rows are not voxels
    expected, found = (
        PLUGIN.influence(body(), beamlets(), beam_model(), voxels, backend=backend, progress=silent)
        for backend in ("reference", require(name))
    )
    draw = np.random.default_rng(13)
    weights, gradient = draw.uniform(0.5, 2.0, 6), draw.standard_normal(len(voxels))
    forward, back = expected.apply(weights), expected.adjoint(gradient)
    assert forward.max() > 0
    np.testing.assert_allclose(found.apply(weights), forward, atol=TOLERANCE * forward.max(), rtol=0)
    np.testing.assert_allclose(found.adjoint(gradient), back, atol=TOLERANCE * np.abs(back).max(), rtol=0)
