"""What any photon dose must do, whatever the algorithm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from water_beam import beam_model, block, open_field, patchwork

from rtplan.domain.beams import FluenceMap
from rtplan.domain.image import DensityImage
from rtplan.engines._source_model import blurred_fluence, source_blur_mm
from rtplan.engines.collapsed_cone import dose
from rtplan.errors import BackendMissing


def calculate(density, *fluence, model=None):
    return dose(density, fluence, model or beam_model(), quality="quick", backend="cpu")


def test_dose_falls_with_the_inverse_square_of_the_distance():
    # mutant: SAD/r instead of (SAD/r)²
    thin = block(np.full((11, 11, 11), 1e-3, dtype=np.float32))
    near, far = (
        calculate(thin, open_field(isocentre=(0.0, y, 0.0), half_x_mm=80, half_y_mm=80))[5, 5, 5] for y in (200.0, -200.0)
    )
    assert near / far == pytest.approx((1200.0 / 800.0) ** 2, rel=5e-3)


def test_dose_is_linear_in_the_fluence():
    # mutant: the second beam overwrites the first
    body, first, second = block(patchwork()), open_field(20.0), open_field(130.0, half_x_mm=15.0)
    tripled = FluenceMap(first.beam, first.x_edges_mm, first.y_edges_mm, 3 * first.fluence_mu)
    together = calculate(body, tripled, second)
    apart = 3 * calculate(body, first) + calculate(body, second)
    np.testing.assert_allclose(together, apart, atol=2e-6 * apart.max())


def test_dose_scales_with_the_energy_fluence_of_the_model():
    # mutant: energy fluence per MU left out
    body, field = block(patchwork()), open_field()
    brighter = replace(beam_model(), energy_fluence_per_mu_mev_cm2=2.5)
    np.testing.assert_allclose(calculate(body, field, model=brighter), 2.5 * calculate(body, field), rtol=1e-6)


def test_mirrored_patient_gets_mirrored_dose():
    # mutant: one direction of the set left out; shifts rounded up instead of to the nearest
    density = patchwork()
    field = FluenceMap(open_field(35.0).beam, [-30, -5, 25], [-20, 10, 30], [[1.0, 0.2], [0.5, 2.0]])
    image = FluenceMap(replace(field.beam, gantry_angle_deg=-35.0), [-25, 5, 30], [-20, 10, 30], [[0.2, 1.0], [2.0, 0.5]])
    straight, mirrored = calculate(block(density), field), calculate(block(density[:, :, ::-1]), image)
    np.testing.assert_allclose(mirrored[:, :, ::-1], straight, atol=1e-4 * straight.max())


@pytest.mark.parametrize("gantry_deg", [0.0, 35.0])
def test_patient_and_gantry_turned_by_a_quarter_turn_the_dose(gantry_deg):
    # mutant: path in a voxel of x-dominant lines without the slope
    density = patchwork()
    straight = calculate(block(density), open_field(gantry_deg, 25.0, 15.0))
    # The gantry turns from -y (above) towards +x (left): index (y, x) -> (x, ny - 1 - y) turns the patient the same way.
    turned = calculate(block(np.rot90(density, k=-1, axes=(1, 2))), open_field(gantry_deg + 90.0, 25.0, 15.0))
    np.testing.assert_allclose(np.rot90(turned, k=1, axes=(1, 2)), straight, atol=1e-4 * straight.max())


def test_nothing_outside_the_body_receives_dose():
    # mutant: a row's body one column short; cavity's density floored in attenuation and in the mass
    density = patchwork()
    density[9:12, 9:12, 9:12] = 0
    result = calculate(block(density), open_field())
    assert np.all(result[density == 0] == 0)
    assert np.all(result[density > 0] > 0)


def test_dose_to_medium_is_energy_over_mass():
    # mutant: energy over relative electron density
    density = patchwork()
    image = block(density)
    heavier = DensityImage(image.grid, 2 * density, density)
    np.testing.assert_allclose(2 * calculate(heavier, open_field()), calculate(image, open_field()), rtol=1e-5)


def test_a_finite_source_blurs_the_fluence_and_loses_none():
    # mutant: sigma projected with (SAD - d) / SAD
    field, model = open_field(half_x_mm=30.0), beam_model(sigma_mm=2.0)
    sigma_mm = source_blur_mm(model, 1000.0)[0]
    assert sigma_mm == pytest.approx(2.0)
    table = blurred_fluence(field, model)
    assert table.integral[-1, -1] == pytest.approx(60.0 * 60.0, rel=1e-4)
    profile = np.diff(table.integral[-1]) / np.diff(table.x_edges_mm) / 60.0
    middle = (table.x_edges_mm[1:] + table.x_edges_mm[:-1]) / 2
    slope = -np.diff(profile)[middle[1:] > 10]
    place = ((middle[1:] + middle[:-1]) / 2)[middle[1:] > 10]
    mean = (slope * place).sum() / slope.sum()
    assert mean == pytest.approx(30.0, abs=0.05)
    spread = np.sqrt((slope * (place - mean) ** 2).sum() / slope.sum())
    assert spread == pytest.approx(np.hypot(sigma_mm, 1 / np.sqrt(6)), rel=0.02)  # two pixels' widths come on top


def test_a_missing_device_is_an_error_not_a_fallback():
    # mutant: unknown backends fall back to the CPU
    with pytest.raises(BackendMissing):
        dose(block(patchwork()), [open_field()], beam_model(), quality="quick", backend="cuda")
