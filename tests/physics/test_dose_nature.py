"""What any photon dose must do, whatever the algorithm and wherever it runs."""

from __future__ import annotations

import os
from dataclasses import replace

import numba
import numpy as np
import pytest
from backends import SLOW, every_backend, require
from water_beam import beam_model, block, open_field, patchwork

from kernels.contract import BackendUnavailable
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets
from rtplan.domain.progress import silent
from rtplan.engines._source_model import primary_fluence, source_blur_mm
from rtplan.engines.collapsed_cone import PLUGIN, dose
from rtplan.errors import BackendMissing

GY_PER_MEV_PER_G = 1.602176634e-10


def calculate(density, *fluence, model=None, backend="cpu", quality="quick"):
    return dose(density, fluence, model or beam_model(), quality=quality, backend=require(backend))


def lumps(backend):
    """A heterogeneous body, small enough for the backend."""
    return patchwork(shape=(12, 12, 12)) if backend in SLOW else patchwork()


@pytest.mark.parametrize("backend", every_backend())
def test_dose_falls_with_the_inverse_square_of_the_distance(backend):
    # mutant: SAD/r instead of (SAD/r)²
    thin = block(np.full((11, 11, 11), 1e-3, dtype=np.float32))
    near, far = (
        calculate(thin, open_field(isocentre=(0.0, y, 0.0), half_x_mm=80, half_y_mm=80), backend=backend)[5, 5, 5]
        for y in (200.0, -200.0)
    )
    assert near / far == pytest.approx((1200.0 / 800.0) ** 2, rel=5e-3)


@pytest.mark.parametrize("backend", every_backend())
def test_dose_is_linear_in_the_fluence(backend):
    # mutant: the second beam overwrites the first
    body, first, second = block(lumps(backend)), open_field(20.0), open_field(130.0, half_x_mm=15.0)
    tripled = FluenceMap(first.beam, first.x_edges_mm, first.y_edges_mm, 3 * first.fluence_mu)
    together = calculate(body, tripled, second, backend=backend)
    apart = 3 * calculate(body, first, backend=backend) + calculate(body, second, backend=backend)
    np.testing.assert_allclose(together, apart, atol=2e-6 * apart.max())


@pytest.mark.parametrize("backend", every_backend())
def test_no_fluence_no_dose(backend):
    # mutant: 1e-4 MU everywhere
    field = open_field(20.0)
    dark = FluenceMap(field.beam, field.x_edges_mm, field.y_edges_mm, 0 * field.fluence_mu)
    assert np.all(calculate(block(lumps(backend)), dark, backend=backend) == 0)


def test_dose_scales_with_the_energy_fluence_of_the_model():
    # mutant: energy fluence per MU left out
    body, field = block(patchwork()), open_field()
    brighter = replace(beam_model(), energy_fluence_per_mu_mev_cm2=2.5)
    np.testing.assert_allclose(calculate(body, field, model=brighter), 2.5 * calculate(body, field), rtol=1e-6)


@pytest.mark.parametrize("backend", every_backend(slow=False))
def test_what_shines_in_is_what_is_deposited(backend):
    # mutant: GY_PER_MEV_PER_G 3 % too high; what stays on the spot left out.
    # 2 MeV on 175 cm of water: 1 MeV/cm² on 16 cm². Some 2 % leave again through the front.
    dense = np.full((40, 70, 40), 5.0, dtype=np.float32)
    model = beam_model((1.9, 2.0, 2.1), (0.3, 0.4, 0.3))
    gray = calculate(block(dense), open_field(half_x_mm=20.0, half_y_mm=20.0), model=model, backend=backend)
    deposited_mev = float((gray.astype(np.float64) * dense).sum()) * 0.5**3 / GY_PER_MEV_PER_G
    assert 0.965 * 16.0 < deposited_mev < 1.0 * 16.0


@pytest.mark.parametrize("backend", every_backend(slow=False))
def test_energy_goes_from_a_to_b_as_it_goes_from_b_to_a(backend):
    # Reciprocity: a beam through A sends B what the opposed beam through B sends A. Light matter, so that neither fades.
    # mutant: kernels that do not turn with the gantry (0.68)
    density = (0.1 * patchwork()).astype(np.float32)
    model, middle = beam_model((3.9, 4.0, 4.1), (0.3, 0.4, 0.3)), np.linspace(-47.5, 47.5, 20)

    def sent(gantry_deg, of, to):
        beam = Beam("c", gantry_deg, 0.0, 0.0, (middle[of[1]], 0.0, middle[of[0]]), 1e5)
        field = FluenceMap(beam, [-12.5, 12.5], [-12.5, 12.5], [[1.0]])
        energy = calculate(block(density), field, model=model, backend=backend, quality="final") * density
        return float(energy[to[0] - 2 : to[0] + 3, :, to[1] - 2 : to[1] + 3].sum())

    a, b = (8, 12), (12, 6)
    assert sent(0.0, a, b) / sent(180.0, b, a) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("backend", every_backend())
def test_half_the_density_doubles_every_length(backend):
    # O'Connor: the same dose at points twice as far apart, from a source twice as far away, in matter half as dense.
    # mutant: the path of a cone by the voxel's size alone
    density, field = lumps(backend), open_field(35.0, 20.0, 15.0)
    wide = FluenceMap(replace(field.beam, sad_mm=2000.0), 2 * field.x_edges_mm, 2 * field.y_edges_mm, field.fluence_mu)
    straight = calculate(block(density), field, backend=backend)
    stretched = calculate(block(density / 2, spacing_mm=10.0), wide, backend=backend)
    np.testing.assert_allclose(stretched, straight, atol=1e-5 * straight.max())


@pytest.mark.parametrize("backend", every_backend())
def test_mirrored_patient_gets_mirrored_dose(backend):
    # mutant: one direction of the set left out; shifts rounded up instead of to the nearest
    density = lumps(backend)
    field = FluenceMap(open_field(35.0).beam, [-30, -5, 25], [-20, 10, 30], [[1.0, 0.2], [0.5, 2.0]])
    image = FluenceMap(replace(field.beam, gantry_angle_deg=-35.0), [-25, 5, 30], [-20, 10, 30], [[0.2, 1.0], [2.0, 0.5]])
    straight = calculate(block(density), field, backend=backend)
    mirrored = calculate(block(density[:, :, ::-1]), image, backend=backend)
    np.testing.assert_allclose(mirrored[:, :, ::-1], straight, atol=1e-4 * straight.max())


@pytest.mark.parametrize("backend", every_backend())
@pytest.mark.parametrize("gantry_deg", [0.0, 35.0])
def test_patient_and_gantry_turned_by_a_quarter_turn_the_dose(backend, gantry_deg):
    # mutant: path in a voxel of x-dominant lines without the slope
    density = lumps(backend)
    straight = calculate(block(density), open_field(gantry_deg, 25.0, 15.0), backend=backend)
    # The gantry turns from -y (above) towards +x (left): index (y, x) -> (x, ny - 1 - y) turns the patient the same way.
    patient = block(np.rot90(density, k=-1, axes=(1, 2)))
    turned = calculate(patient, open_field(gantry_deg + 90.0, 25.0, 15.0), backend=backend)
    np.testing.assert_allclose(np.rot90(turned, k=1, axes=(1, 2)), straight, atol=1e-4 * straight.max())


@pytest.mark.parametrize("backend", every_backend())
def test_where_the_origin_of_coordinates_lies_is_nothing_to_the_dose(backend):
    # mutant: the isocentre left out of the source's position
    image, field = block(lumps(backend)), open_field(35.0, 25.0, 15.0)
    by = np.array([5.0, -70.0, 132.5])
    grid = Grid(image.grid.shape_zyx, image.grid.spacing_zyx_mm, tuple(np.array(image.grid.origin_xyz_mm) + by))
    moved = DensityImage(grid, image.mass_density_g_cm3, image.electron_density_rel)
    straight = calculate(image, field, backend=backend)
    there = calculate(moved, open_field(35.0, 25.0, 15.0, isocentre=tuple(by)), backend=backend)
    np.testing.assert_allclose(there, straight, atol=2e-5 * straight.max())


WATER = np.pad(np.ones((20, 20, 20), dtype=np.float32), 2)


def shifted(density, voxels, axis):
    """Matter moved by a whole or half a voxel: half of it is in either of two voxels."""
    whole = int(voxels)
    part = np.float32(voxels - whole)
    return (1 - part) * np.roll(density, whole, axis) + part * np.roll(density, whole + 1, axis)


def pair_of_doses(voxels, axis):
    """Final dose of a 40 x 40 mm field in water and, with patient and isocentre moved by some voxels, the dose there."""
    isocentre = tuple(5.0 * voxels if 2 - axis == i else 0.0 for i in range(3))
    straight = calculate(block(WATER), open_field(0.0, 20.0, 20.0), quality="final")
    patient = block(shifted(WATER, voxels, axis))
    return straight, calculate(patient, open_field(0.0, 20.0, 20.0, isocentre=isocentre), quality="final")


def edges_voxels(profile):
    """Where a profile rises and falls through half of its middle value, voxels."""
    half = profile[len(profile) // 2] / 2
    left, right = np.flatnonzero(profile > half)[[0, -1]]
    return np.array(
        [
            left - (profile[left] - half) / (profile[left] - profile[left - 1]),
            right + (profile[right] - half) / (profile[right] - profile[right + 1]),
        ]
    )


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("voxels", [0.5, 1.0])
def test_dose_follows_a_patient_across_the_beam(axis, voxels):
    # mutant: the source rounded to whole centimetres
    straight, moved = pair_of_doses(voxels, axis)
    along = [np.swapaxes(d, axis, 0)[:, 6:18, 10:14].mean(axis=(1, 2)) for d in (straight, moved)]
    np.testing.assert_allclose(edges_voxels(along[1]) - edges_voxels(along[0]), voxels, atol=0.06)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_whole_voxel_across_the_beam_changes_no_dose(axis):
    # mutant: as above. Cones are lines of voxels that start at the grid's border, so a small part depends on where they do.
    straight, moved = pair_of_doses(1.0, axis)
    difference = np.roll(straight, 1, axis) - moved
    lit = moved > 0.1 * moved.max()
    assert np.abs(difference).max() < 0.015 * moved.max()
    assert np.sqrt((difference[lit] ** 2).mean()) < 0.003 * moved.max()


@pytest.mark.parametrize(("voxels", "tolerance"), [(0.5, 0.008), (1.0, 0.012)])
def test_dose_follows_a_patient_along_the_beam(voxels, tolerance):
    # mutant: voxels that are less than 60 % full taken as empty; the source moved further than the isocentre.
    # Away from the field's edge, see the next test.
    straight, moved = pair_of_doses(voxels, 1)
    curve, there = (d[10:14, :, 10:14].mean(axis=(0, 2)) for d in (straight, moved))
    depth = np.arange(24.0)
    np.testing.assert_allclose(there[7:20], np.interp(depth - voxels, depth, curve)[7:20], atol=tolerance * curve.max())


def test_edges_waver_little_when_the_patient_moves_along_the_beam():
    # mutant: every cone walked at one phase (single voxels of 5 mm then differ by 8.6 % of the maximum, 2.6 % rms). All
    # lines of a direction step aside in the same planes, which are other planes of the patient now.
    straight, moved = pair_of_doses(1.0, 1)
    difference = (np.roll(straight, 1, 1) - moved)[:, 3:-3] / moved.max()
    lit = moved[:, 3:-3] > 0.1 * moved.max()
    assert np.abs(difference[lit]).max() < 0.05
    assert np.sqrt((difference[lit] ** 2).mean()) < 0.015


@pytest.mark.parametrize("backend", every_backend())
def test_a_calculation_gives_the_same_bits_again(backend):
    # mutant: random noise of 1e-6
    image, field = block(lumps(backend)), open_field(35.0, 25.0, 15.0)
    assert np.array_equal(calculate(image, field, backend=backend), calculate(image, field, backend=backend))


def test_bits_do_not_depend_on_the_number_of_threads(all_threads, monkeypatch):
    # mutant: as many lanes as threads
    image, field, one = block(patchwork()), open_field(35.0, 25.0, 15.0), beamlets_of(35.0)
    many = calculate(image, field), columns(image, one, "cpu").apply(np.ones(len(one)))
    before = numba.get_num_threads()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    try:
        numba.set_num_threads(1)
        alone = calculate(image, field), columns(image, one, "cpu").apply(np.ones(len(one)))
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(many[0], alone[0])
    assert np.array_equal(many[1], alone[1])


def beamlets_of(gantry_deg, count=4):
    """`count` by `count` beamlets of 10 mm."""
    low = 10.0 * (np.arange(count) - count / 2)
    y, x = (a.ravel() for a in np.meshgrid(low, low, indexing="ij"))
    beam = Beam("b", gantry_deg, 15.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    return Beamlets((beam,), np.zeros(x.size), np.repeat(np.arange(count), count), x, x + 10.0, y, y + 10.0)


def columns(image, beamlets, backend):
    voxels = np.flatnonzero(image.mass_density_g_cm3 > 0)
    return PLUGIN.influence(image, beamlets, beam_model(), voxels, backend=require(backend), progress=silent)


def small_columns(backend):
    shape, count = ((8, 8, 8), 2) if backend in SLOW else ((20, 20, 20), 4)
    return columns(block(patchwork(shape=shape)), beamlets_of(205.0, count), backend)


@pytest.mark.parametrize("backend", every_backend())
def test_adjoint_is_the_transpose_of_what_beamlets_do(backend):
    # mutant: the adjoint without the columns' scales
    operator = small_columns(backend)
    draw = np.random.default_rng(2)
    weights, gradient = draw.random(len(operator.beamlets)), draw.standard_normal(len(operator.voxel_index))
    forward, back = operator.apply(weights).astype(np.float64), operator.adjoint(gradient).astype(np.float64)
    size = np.linalg.norm(forward) * np.linalg.norm(gradient)
    assert forward.max() > 0
    assert abs(forward @ gradient - weights @ back) < 1e-6 * size


@pytest.mark.parametrize("backend", every_backend())
def test_beamlets_are_linear_and_dark_ones_give_nothing(backend):
    # mutant: a threshold on the sum of the columns
    operator = small_columns(backend)
    count = len(operator.beamlets)
    one, other = np.eye(count)[1], np.random.default_rng(3).random(count)
    together, apart = operator.apply(3 * one + other), 3 * operator.apply(one) + operator.apply(other)
    np.testing.assert_allclose(together, apart, atol=2e-6 * apart.max())
    assert np.all(operator.apply(np.zeros(count)) == 0)


@pytest.mark.parametrize("backend", every_backend())
def test_nothing_outside_the_body_receives_dose(backend):
    # mutant: a row's body one column short; cavity's density floored in attenuation and in the mass
    density = lumps(backend)
    density[5:7, 5:7, 5:7] = 0
    result = calculate(block(density), open_field(), backend=backend)
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
    table = primary_fluence(field, model)
    assert table.integral[-1, -1] == pytest.approx(60.0 * 60.0, rel=1e-4)
    profile = np.diff(table.integral[-1]) / np.diff(table.x_edges_mm) / 60.0
    middle = (table.x_edges_mm[1:] + table.x_edges_mm[:-1]) / 2
    slope = -np.diff(profile)[middle[1:] > 10]
    place = ((middle[1:] + middle[:-1]) / 2)[middle[1:] > 10]
    mean = (slope * place).sum() / slope.sum()
    assert mean == pytest.approx(30.0, abs=0.05)
    spread = np.sqrt((slope * (place - mean) ** 2).sum() / slope.sum())
    assert spread == pytest.approx(np.hypot(sigma_mm, 1 / np.sqrt(6)), rel=0.02)  # two pixels' widths come on top


@pytest.mark.parametrize("name", ["cuda", "tpu"])
def test_a_missing_device_is_an_error_not_a_fallback(monkeypatch, name):
    # mutant: unknown backends fall back to the CPU
    def absent(asked):
        raise BackendUnavailable(f"{asked} is not here")

    monkeypatch.setattr("rtplan.engines._beamline.get_backend", absent)
    with pytest.raises(BackendMissing):
        dose(block(patchwork()), [open_field()], beam_model(), quality="quick", backend=name)
