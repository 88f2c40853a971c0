"""The kernels' tables: energy is conserved, hardening is exact, cones follow the ray."""

from __future__ import annotations

import numpy as np
import pytest
from water_beam import beam_model

from kernels.backend import get_backend
from kernels.cones import N_TERMS, cone_kernels, tilt_terms
from kernels.contract import BeamGeometry, BeamTables, GridGeometry, Released, fluence_table
from kernels.directions import DIRECTION_COUNTS, cell_weights, direction_set
from kernels.polyenergetic import dose_tables, softened, water_spectrum
from rtplan.library.water import KERNEL_TABLE, load_attenuation, load_kernel_table

AXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # gantry 0: the beam runs along +y


def spectrum():
    model = beam_model()
    return water_spectrum(model.energy_mev, model.photon_fraction, load_attenuation())


def tables_of(*spectra, depth=np.linspace(0, 40, 41)):
    return dose_tables(spectra, load_kernel_table(), depth)


def test_fitted_kernels_deposit_what_monte_carlo_deposited():
    # mutant: solid angle of a bin by its middle's sine times a wrong width; local share left out
    table = load_kernel_table()
    within = 1 - np.exp(-60 * table.exponents_per_cm)
    fitted = np.einsum("eti,t,i->e", table.fraction_per_sr, table.solid_angle_sr, within) + table.local_fraction
    np.testing.assert_allclose(fitted, np.load(KERNEL_TABLE)["deposited_fraction_60cm"], atol=0.004)


def test_no_kernel_takes_energy_back():
    # mutant: the fit without its constraint
    table = load_kernel_table()
    radius, step = np.linspace(0, 30, 400, retstep=True)
    decay = np.exp(-np.outer(table.exponents_per_cm, radius))
    per_path = np.einsum("eti,ir->etr", table.fraction_per_sr * table.exponents_per_cm, decay)
    taken_back = -np.minimum(per_path, 0).sum(axis=2) * step
    assert np.all(taken_back < 1e-3 * table.fraction_per_sr.sum(axis=2))
    assert np.all(table.local_fraction >= 0)


def test_kernel_energy_within_a_radius_grows_with_the_electrons_range():
    # mutant: energies of the table in descending order
    table = load_kernel_table()
    near = np.einsum("eti,t,i->e", table.fraction_per_sr, table.solid_angle_sr, 1 - np.exp(-0.3 * table.exponents_per_cm))
    share = (near + table.local_fraction) / (table.fraction_per_sr.sum(axis=2) @ table.solid_angle_sr + table.local_fraction)
    fast = table.energy_mev >= 1.5
    assert np.all(np.diff(share[fast]) < 0)


@pytest.mark.parametrize("count", DIRECTION_COUNTS)
def test_the_cones_of_a_set_share_out_the_whole_sphere(count):
    # mutant: one orbit left out
    directions, edges = direction_set(count), np.linspace(0, np.pi, 13)
    assert directions.shape == (count, 3)
    np.testing.assert_allclose(directions.sum(axis=0), 0, atol=1e-12)
    weights = cell_weights(directions, np.stack([AXES[0], AXES[1], -AXES[2]]), edges)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-12)
    solid_angle = weights @ (2 * np.pi * -np.diff(np.cos(edges)))
    assert solid_angle.max() < 1.6 * 4 * np.pi / count


def test_cone_kernels_hold_the_whole_kernel_for_every_ray():
    # mutant: cells weighted without their solid angle
    table, kernels = load_kernel_table(), tables_of(spectrum())
    cones = cone_kernels(kernels.per_sr, table.theta_edges_rad, direction_set(50), AXES, (0.1, 0.1))
    whole = np.einsum("gti,t->gi", kernels.per_sr, table.solid_angle_sr)
    for u, v in ((0.0, 0.0), (0.09, -0.05)):
        terms = np.array([float(t) for t in tilt_terms(np.array(u), np.array(v))])
        summed = np.einsum("kgti,t->gi", cones.reshape(50, 2, N_TERMS, -1), terms)
        np.testing.assert_allclose(summed, whole, atol=1e-5)


@pytest.mark.parametrize("slope", [-0.1, 0.1])
def test_energy_leaves_along_the_divergent_ray(slope):
    # mutant: tilt terms dropped: the mean direction stays on the axis
    table, kernels = load_kernel_table(), tables_of(spectrum())
    directions = direction_set(170)
    cones = cone_kernels(kernels.per_sr, table.theta_edges_rad, directions, AXES, (0.1, 0.1)).reshape(170, 2, N_TERMS, -1)
    terms = np.array([float(t) for t in tilt_terms(np.array(slope), np.array(0.0))])
    mean = np.einsum("kgti,t,kx->x", cones, terms, directions)
    assert mean[0] / mean[1] == pytest.approx(slope, abs=0.01)
    assert mean[2] / mean[1] == pytest.approx(0.0, abs=0.005)


def test_beam_hardens_with_depth_as_its_spectrum_says():
    # mutant: one mean attenuation coefficient for the whole spectrum
    model, attenuation = beam_model(), load_attenuation()
    depth = np.array([0.0, 5.0, 20.0])
    mu = attenuation.at(model.energy_mev)
    fluence = model.energy_mev * model.photon_fraction
    expected = (fluence[:, None] * mu[:, None] * np.exp(-np.outer(mu, depth))).sum(axis=0) / fluence.sum()
    table = tables_of(spectrum(), depth=depth).terma_per_cm[0].sum(axis=0)
    np.testing.assert_allclose(table, expected, rtol=1e-12)
    first, later = np.log(table[0] / table[1]) / 5.0, np.log(table[1] / table[2]) / 15.0
    assert first > 1.05 * later


def test_kernels_harden_with_depth_as_the_spectrum_does():
    # mutant: the share of the hard kernel fixed at its value at one depth
    table, depth = load_kernel_table(), np.array([0.0, 5.0, 15.0, 30.0])
    tables = tables_of(spectrum(), depth=depth)
    within = 1 - np.exp(-1.5 * table.exponents_per_cm)
    near = np.einsum("gti,t,i->g", tables.per_sr, table.solid_angle_sr, within) + tables.local
    mixed = near @ tables.terma_per_cm[0] / tables.terma_per_cm[0].sum(axis=0)
    exact = []
    for d in depth:
        photons = spectrum()
        weight = photons.energy_fluence * photons.mu_cm2_g * np.exp(-photons.mu_cm2_g * d)
        one = np.einsum("eti,t,i->e", table.fraction_per_sr, table.solid_angle_sr, within) + table.local_fraction
        each = np.interp(np.log(photons.energy_mev), np.log(table.energy_mev), one)
        exact.append(weight @ each / weight.sum())
    assert exact[-1] > 1.05 * exact[0]  # harder photons scatter less of their energy away
    np.testing.assert_allclose(mixed, exact, atol=1e-3)


def test_a_softened_spectrum_attenuates_as_told_and_keeps_its_energy():
    # mutant: the power's sign; photon number kept instead of energy
    axis = spectrum()
    softer = softened(axis, 1.05)
    assert softer.energy_fluence.sum() == pytest.approx(1.0)
    one, other = (np.log(s.energy_fluence @ np.exp(-10 * s.mu_cm2_g)) for s in (axis, softer))
    assert other / one == pytest.approx(1.05, abs=1e-6)
    assert softer.energy_fluence @ softer.energy_mev < axis.energy_fluence @ axis.energy_mev
    off = tables_of(axis, softer).terma_per_cm
    assert off[1, :, 0].sum() > off[0, :, 0].sum()
    assert off[1, 1, 0] / off[1, :, 0].sum() < off[0, 1, 0] / off[0, :, 0].sum()


def test_a_beam_that_is_harder_off_its_axis_keeps_its_kernels():
    # mutant: the last radius taken as the softest spectrum: the axis then falls off the line of kernels and gets its end
    axis = spectrum()
    table, depth = load_kernel_table(), np.array([0.0, 10.0])
    within = 1 - np.exp(-1.5 * table.exponents_per_cm)

    def near(tables):
        each = np.einsum("gti,t,i->g", tables.per_sr, table.solid_angle_sr, within) + tables.local
        return each @ tables.terma_per_cm[0] / tables.terma_per_cm[0].sum(axis=0)

    alone = near(tables_of(axis, depth=depth))
    np.testing.assert_allclose(near(tables_of(axis, softened(axis, 0.9), depth=depth)), alone, atol=1e-3)


def test_a_softening_that_no_spectrum_can_have_is_refused():
    # mutant: the largest power tried is taken whatever it gives
    one_line = water_spectrum(np.array([2.0]), np.array([1.0]), load_attenuation())
    assert softened(one_line, 1.0) is one_line
    with pytest.raises(ValueError, match=r"1\.1 times"):
        softened(one_line, 1.1)


def test_attenuation_agrees_with_the_klein_nishina_electron_cross_section():
    # mutant: table entry or interpolation off by a few per cent. Compton dominates water at 1 MeV: 0.2112 b per electron
    # (Klein and Nishina), 3.343e23 electrons per gram.
    assert float(load_attenuation().at(np.array([1.0]))[0]) == pytest.approx(0.2112e-24 * 3.343e23, rel=3e-3)


def test_superposition_loses_no_energy_in_a_large_medium():
    # mutant: Q (1 - g) deposited but Q instead of Q g passed on
    shape = (25, 25, 25)
    dense = np.full(shape, 60.0, dtype=np.float32)
    released = (Released((12, 12, 12), np.ones((1, 1, 1, 1), dtype=np.float32)),)
    kernels = np.zeros((1, 86, N_TERMS, 6), dtype=np.float32)
    kernels[:, :, 0] = np.random.default_rng(1).uniform(0, 1, (86, 6))
    grid, beam = (
        GridGeometry(shape, (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)),
        BeamGeometry(np.array([0.0, -1000.0, 0.0]), AXES, 1000.0),
    )
    total = get_backend("reference").superpose(
        dense,
        released,
        kernels,
        direction_set(86),
        grid=grid,
        beams=(beam,),
        phases=np.full(86, 0.5),
        smallest_exponent_per_cm=0.04,
    )
    assert total.sum() == pytest.approx(kernels.sum(), rel=1e-3)


def test_released_energy_is_that_of_the_attenuated_beam():
    # mutant: depth taken at the voxel's far face; density left out
    shape, depth_step = (3, 20, 3), 0.05
    grid = GridGeometry(shape, (4.0, 4.0, 4.0), (-4.0, 2.0, -4.0))
    beam = BeamGeometry(np.array([0.0, -1000.0, 0.0]), AXES, 1000.0)
    decay = np.exp(-0.06 * depth_step * np.arange(600))[None]
    flat = np.array([0.0, 100.0]), np.array([1.0, 1.0])
    tables = BeamTables(depth_step, np.zeros(1), decay[None], *flat)
    edges = np.array([-50.0, 50.0])
    heavy = np.full(shape, 1.7, dtype=np.float32)
    released = get_backend("cpu").terma(
        heavy, grid=grid, beam=beam, fluence=fluence_table(edges, edges, np.ones((1, 1))), tables=tables
    )
    depth_mm = 2.0 + 4.0 * np.arange(20)
    expected = 1.7 * np.exp(-0.06 * 1.7 * depth_mm / 10) * (1000 / (1000 + depth_mm)) ** 2
    np.testing.assert_allclose(released.energy[0, 1, :, 1], expected, rtol=1e-4)


def test_a_voxel_cut_by_a_sharp_edge_gets_the_share_that_is_lit():
    # mutant: fluence taken at the voxel's centre; shadow of the voxel twice as wide
    grid = GridGeometry((3, 1, 9), (3.0, 3.0, 3.0), (0.0, 0.0, -3.0))
    beam = BeamGeometry(np.array([0.0, -1000.0, 0.0]), AXES, 1000.0)
    flat = (np.array([0.0, 100.0]), np.array([1.0, 1.0]))
    tables = BeamTables(1.0, np.zeros(1), np.ones((1, 1, 100)), *flat)
    fluence = fluence_table(np.array([-10.0, 10.0]), np.array([-50.0, 50.0]), np.ones((1, 1)))
    water = np.ones((3, 1, 9), dtype=np.float32)
    released = get_backend("cpu").terma(water, grid=grid, beam=beam, fluence=fluence, tables=tables)
    lit = np.zeros(9)
    lit[released.box[2]] = released.energy[0, 1, 0]
    np.testing.assert_allclose(lit, [1, 1, 1, 2.5 / 3, 0, 0, 0, 0, 0], atol=1e-3)
