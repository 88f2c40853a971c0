"""Each physical term of the photon dose by what only it can do in water.

Kernel tilt, hardening of the beam and the inverse square stand in test_dose_kernels.py and test_dose_nature.py, electrons
and head in test_machine_model.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from water_beam import open_field

from kernels import polyenergetic
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.engines import _beamline
from rtplan.engines.collapsed_cone import dose
from rtplan.library.machines import load_machine
from rtplan.library.water import load_attenuation, load_kernel_table

MOHAN6 = load_machine("point_source_mohan6").beam


def water(spacing_mm, half_width_mm, depth_mm):
    """A block whose surface lies at y = 0."""
    n, deep = round(2 * half_width_mm / spacing_mm), round(depth_mm / spacing_mm)
    corner = -(n - 1) * spacing_mm / 2
    density = np.ones((n, deep, n), dtype=np.float32)
    return DensityImage(Grid(density.shape, (spacing_mm,) * 3, (corner, spacing_mm / 2, corner)), density, density)


def on_axis(image, half_mm, model=MOHAN6, x_mm=0.0):
    """Depth dose of a square field at SSD 100 cm, along a line at x."""
    found = dose(image, [open_field(0.0, half_mm, half_mm)], model, quality="quick", backend="cpu")
    n = found.shape[0] // 2
    column = np.argmin(np.abs(image.grid.x_mm() - x_mm))
    return found[n - 1 : n + 1, :, column - 1 : column + 1].mean(axis=(0, 2))


@pytest.mark.physics
def test_scatter_from_afar_makes_the_output_of_large_fields():
    # mutant: the two longest exponentials of the kernels left out. EGSnrc, the same beam: dose per fluence on the axis at
    # 10 cm depth relative to 10x10 is 0.880 for 3x3 and 1.063 for 20x20 cm².
    image = water(5.0, 160.0, 200.0)
    small, middle, large = (np.interp(100.0, image.grid.y_mm(), on_axis(image, half)) for half in (15.0, 50.0, 100.0))
    assert small / middle == pytest.approx(0.880, abs=0.012)
    assert large / middle == pytest.approx(1.063, abs=0.008)


def test_build_up_does_not_depend_on_the_size_of_the_voxels():
    # mutant: energy of a voxel released at its entrance (all of it passes the voxel): dose rises half a voxel too soon
    coarse, fine = water(6.0, 60.0, 120.0), water(2.0, 60.0, 120.0)
    curves = [on_axis(image, 40.0) for image in (coarse, fine)]
    averaged = curves[1].reshape(-1, 3).mean(axis=1)
    top = curves[1].max()
    np.testing.assert_allclose(curves[0][1:12] / top, averaged[1:12] / top, atol=0.012)
    assert curves[0][0] / top == pytest.approx(averaged[0] / top, abs=0.03)


def test_a_softened_beam_falls_faster_off_its_axis():
    # mutant: the table of the axis for every radius
    image = water(6.0, 150.0, 240.0)
    radius, ratio = np.array([0.0, 50.0, 52.0, 150.0]), np.array([1.0, 1.0, 1.04, 1.04])
    softened = replace(MOHAN6, softening_radius_mm=radius, softening_mu_ratio=ratio)
    ratios = []
    for model in (MOHAN6, softened):
        curve = on_axis(image, 130.0, model, x_mm=90.0)
        ratios.append(curve[33] / curve[8])  # 20 and 5 cm
        axis = on_axis(image, 130.0, model)
        ratios.append(axis[33] / axis[8])
    # TERMA alone, by the tables; the scatter of the unsoftened middle is in the dose too.
    axis_spectrum = polyenergetic.water_spectrum(MOHAN6.energy_mev, MOHAN6.photon_fraction, load_attenuation())
    off_axis = polyenergetic.softened(axis_spectrum, 1.04)
    depth = np.array([5.1, 20.1])
    tables = [polyenergetic.dose_tables((one,), load_kernel_table(), depth) for one in (axis_spectrum, off_axis)]
    terma = [one.terma_per_cm[0].sum(axis=0) for one in tables]
    primary = terma[1][1] / terma[1][0] / (terma[0][1] / terma[0][0])
    assert primary < 0.99
    assert primary - 0.002 < ratios[2] / ratios[0] < 1 - 0.5 * (1 - primary)
    assert ratios[3] / ratios[1] == pytest.approx(1.0, abs=0.006)


def test_the_kernel_hardens_with_depth(monkeypatch):
    # mutant: all TERMA to the kernel of the softest photons. Softer photons give more of their energy to scatter: with one
    # kernel the axis of a small field gets less at depth.
    image = water(5.0, 60.0, 300.0)
    hardening = on_axis(image, 15.0)

    def one_kernel(spectra, table, depth_cm):
        tables = polyenergetic.dose_tables(spectra, table, depth_cm)
        everything = tables.terma_per_cm.sum(axis=1, keepdims=True)
        return replace(tables, terma_per_cm=np.concatenate([everything, np.zeros_like(everything)], axis=1))

    monkeypatch.setattr(_beamline, "dose_tables", one_kernel)
    _beamline._spectrum_tables.cache_clear()
    try:
        soft = on_axis(image, 15.0, replace(MOHAN6))
    finally:
        _beamline._spectrum_tables.cache_clear()
    change = hardening / soft
    assert change[50] / change[4] > 1.02
