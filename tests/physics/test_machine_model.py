"""The head of the accelerator: each term of the model does what it is there for, and nothing when it is not there."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from water_beam import beam_model, block, open_field

from benchmarks.bench_machine import on_axis_in_air, water_dose
from benchmarks.machine_spectra import BEAMS, spectrum
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.example_context import example_machine
from rtplan.domain.machine import NO_CONTAMINATION, NO_EXTRA_FOCAL_SOURCE, ElectronContamination, ExtraFocalSource
from rtplan.domain.plan import Aperture, ControlPoint, DeliverablePlan, PlanBeam
from rtplan.engines._broad import broad_fields
from rtplan.engines._contamination import contamination_energy, surface_terma_per_cm
from rtplan.engines._extra_focal import extra_focal_fluence
from rtplan.engines._source_model import primary_fluence, reference_share
from rtplan.engines.collapsed_cone import dose, load_backend
from rtplan.library.machines import load_machine
from rtplan.steps.fluence import plan_fluence

ENERGIES = ("6X", "6FFF", "10X", "10FFF", "15X")
HEAD = ExtraFocalSource(0.08, 28.0, 125.0, 400.0)
ELECTRONS = ElectronContamination(0.03, 1.3, 2.2, 65.0)
BEAM = Beam("B", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)


def in_air(model, side_mm):
    return on_axis_in_air(open_field(half_x_mm=side_mm / 2, half_y_mm=side_mm / 2), model)


def extra_focal(field, model):
    """Fluence by the middles of its pixels along x, at y = 0, and the whole of it."""
    table = extra_focal_fluence(broad_fields([field])[0], model)
    row = np.searchsorted(table.y_edges_mm, 0.0)
    line = np.diff(table.integral[row + 1] - table.integral[row]) / np.diff(table.x_edges_mm) / 5.0
    return (table.x_edges_mm[1:] + table.x_edges_mm[:-1]) / 2, line, table.integral[-1, -1]


# ---- extra-focal source


def test_output_in_air_rises_with_the_field_because_of_the_extra_focal_source():
    # mutant: extra-focal share left out (all 1); normalised to the open field instead of 10x10
    with_head = replace(beam_model(sigma_mm=0.8), extra_focal=HEAD)
    found = [in_air(with_head, side) for side in (20.0, 50.0, 100.0, 200.0, 400.0)]
    assert np.all(np.diff(found) > 0.002)
    assert found[2] == pytest.approx(1.0, abs=1e-4)
    assert found[0] == pytest.approx((0.92 + 0.08 * 0.027) / (0.92 + 0.08 * reference_share(HEAD, 1000.0)), abs=2e-3)
    without = [in_air(beam_model(sigma_mm=0.8), side) for side in (20.0, 100.0, 400.0)]
    np.testing.assert_allclose(without, 1.0, atol=1e-6)


def test_head_scatter_reaches_beyond_the_edge_as_far_as_the_aperture_lets_the_source_be_seen():
    # mutant: extra-focal image not magnified (m = 1)
    model, field = replace(beam_model(sigma_mm=0.8), extra_focal=HEAD), open_field(half_x_mm=50.0, half_y_mm=50.0)
    scale = 1000.0 * (400.0 - 125.0) / (400.0 * (1000.0 - 125.0))
    x, line, whole = extra_focal(field, model)
    assert 0.01 < np.interp(60.0, x, line) < 0.08
    # Energy: the primary's area, and the image of the aperture widened by 1/m on either side.
    reference = 0.92 + 0.08 * reference_share(HEAD, 1000.0)
    assert primary_fluence(field, model).integral[-1, -1] == pytest.approx(100.0**2 * 0.92 / reference, rel=1e-3)
    assert whole == pytest.approx(100.0**2 * 0.08 / scale**2 / reference, rel=0.03)


def test_the_off_axis_factor_belongs_to_the_primary_photons_only():
    # mutant: extra-focal part not divided by the off-axis factor
    level = replace(beam_model(sigma_mm=0.8), extra_focal=HEAD)
    cone = replace(level, off_axis_radius_mm=np.array([0.0, 300.0]), off_axis_factor=np.array([1.0, 0.4]))
    field = open_field(half_x_mm=100.0, half_y_mm=100.0)
    (x, flat, _), (x_peaked, peaked, _) = extra_focal(field, level), extra_focal(field, cone)
    near = np.abs(x_peaked) < 150.0
    factor = 1 - 0.6 * np.hypot(x_peaked[near], 2.5) / 300
    np.testing.assert_allclose(peaked[near] * factor, np.interp(x_peaked[near], x, flat), atol=1e-4)


def test_a_point_source_without_head_keeps_the_map_to_the_last_bit():
    # mutant: the reference beam's map resampled
    model = load_machine("point_source_mohan6").beam
    assert (model.extra_focal, model.contamination) == (NO_EXTRA_FOCAL_SOURCE, NO_CONTAMINATION)
    assert np.all(model.softening_mu_ratio == 1)
    field = FluenceMap(BEAM, [-30.0, -7.0, 25.0], [-20.0, 11.0], [[0.3, 1.7]])
    table = primary_fluence(field, model)
    assert table.x_edges_mm.tolist() == [-30.0, -7.0, 25.0] and table.y_edges_mm.tolist() == [-20.0, 11.0]
    assert table.integral[-1].tolist() == np.cumsum([0.0, 0.3 * 713.0, 1.7 * 992.0]).tolist()


# ---- electrons


def electrons_on_axis(side_mm, term=ELECTRONS):
    model = replace(beam_model(), contamination=term)
    water = block(np.ones((3, 16, 3), dtype=np.float32), 2.5)
    field = open_field(half_x_mm=side_mm / 2, half_y_mm=side_mm / 2, isocentre=(0.0, -20.0, 0.0))  # the surface
    return model, contamination_energy(water, [field], model, load_backend("cpu"))[1, :, 1]


def test_electrons_give_the_surface_its_dose_and_nothing_beyond_their_range():
    # mutant: depth curve held at its last value but one; amplitude of the open field instead of 10x10
    model, found = electrons_on_axis(100.0)
    depth = (np.arange(16) + 0.5) * 0.25
    end = np.exp(-1.3 * 2.2)
    curve = np.maximum(np.exp(-1.3 * depth) - end, 0) / (1 - end)
    expected = 0.03 * surface_terma_per_cm(model) * curve * (1000 / (1000 + 10 * depth)) ** 2
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=1e-7)
    assert np.all(found[depth > 2.2] == 0) and np.all(found[depth < 2.0] > 0)


def test_electrons_grow_with_the_field():
    # mutant: fluence not blurred
    found = [electrons_on_axis(side)[1][0] for side in (50.0, 100.0, 200.0, 400.0)]
    assert found[1] / found[0] > 2 and found[2] / found[1] > 1.8 and found[3] / found[2] > 1.1


def test_electrons_are_added_to_the_photons_and_only_near_the_surface():
    # mutant: contamination not called by the engine
    water = block(np.ones((8, 12, 8), dtype=np.float32), 5.0)
    field = open_field(isocentre=(0.0, -30.0, 0.0), half_x_mm=50.0, half_y_mm=50.0)
    photons = dose(water, [field], beam_model(), quality="quick", backend="cpu")
    both = dose(water, [field], replace(beam_model(), contamination=ELECTRONS), quality="quick", backend="cpu")
    added = (both - photons)[4, :, 4]
    assert added[0] > 0.03 * photons[4, :, 4].max()
    assert np.all(added[:4] > 0) and np.all(added[5:] == 0)


# ---- leaves


def fluence(machine, *points):
    beam = PlanBeam(1, BEAM, tuple(ControlPoint(mu, 0.0, aperture) for mu, aperture in points))
    return plan_fluence(DeliverablePlan(machine.machine_id, machine.beam.energy_id, 1, (beam,)), machine, pixel_mm=1.0)[0]


def leaves(low, high, pairs=slice(None), *, rest=(120.0, 120.5)):
    """Some pairs open from `low` to `high`, the others closed under the X2 jaw."""
    x1, x2 = np.full(60, rest[0]), np.full(60, rest[1])
    x1[pairs], x2[pairs] = low, high
    return Aperture(x1, x2, -100.0, 100.0, -100.0, 100.0)


def column(field, x_mm):
    """Fluence of a column of pixels and the rows' edges."""
    return field.fluence_mu[:, np.searchsorted(field.x_edges_mm, x_mm, side="right") - 1], field.y_edges_mm


def area_along_y(field, x_mm, y1_mm, y2_mm):
    """Integral of the column over a stretch that ends on rows, mm."""
    values, edges = column(field, x_mm)
    inside = (edges[:-1] >= y1_mm - 1e-9) & (edges[1:] <= y2_mm + 1e-9)
    return float(values[inside].sum())


@pytest.mark.parametrize("energy", ENERGIES)
def test_a_sweeping_gap_delivers_more_than_it_measures_by_the_leaf_gap(energy):
    # mutant: leaf tips as sharp edges where they stand
    machine = load_machine(f"generic_carm:{energy}")
    gap = machine.mlc.dosimetric_leaf_gap_mm
    field = fluence(machine, (0.0, leaves(-80.0, -70.0)), (1.0, leaves(80.0, 90.0)))
    leak = machine.mlc.transmission
    found = field.fluence_mu[np.searchsorted(field.y_edges_mm, 2.0), np.searchsorted(field.x_edges_mm, 0.0)]
    assert (found - leak) / (1 - leak) * 160.0 == pytest.approx(10.0 + gap, abs=1e-9)
    assert 1.0 <= gap <= 2.0


def test_fields_that_complement_each_other_leave_a_furrow_at_their_joint():
    # mutant: no overlap of neighbouring leaves; overlap of one leaf taken as its full height
    machine = load_machine("generic_carm:6X")
    mlc = machine.mlc
    lower, upper = leaves(-50.0, 50.0, slice(20, 30)), leaves(-50.0, 50.0, slice(30, 40))  # joint at y = 0
    together = fluence(machine, (0.0, lower), (1.0, lower), (1.0, upper), (2.0, upper))
    whole = leaves(-50.0, 50.0, slice(20, 40))
    at_once = fluence(machine, (0.0, whole), (1.0, whole))
    found = area_along_y(together, 0.5, -3.0, 3.0) - area_along_y(at_once, 0.5, -3.0, 3.0)
    # Away from the joint the closed field adds its leakage; in the overlap each gives its root instead of one giving 1.
    expected = (6 - mlc.tongue_mm) * mlc.transmission + mlc.tongue_mm * (2 * sqrt(mlc.transmission) - 1)
    assert found == pytest.approx(expected, abs=1e-9)
    assert found < -0.2
    values, edges = column(together, 0.5)
    rows = np.searchsorted(edges, [-0.5, 0.5]) - 1
    assert np.all(values[rows] < 0.86) and values[rows[0] - 1] > 1.0


def test_a_closed_collimator_leaks_within_and_between_its_leaves():
    # mutant: interleaf leakage as within a leaf
    machine = load_machine("generic_carm:10X")
    mlc = machine.mlc
    assert mlc.interleaf_transmission > mlc.transmission
    field = fluence(machine, (0.0, leaves(110.0, 110.5)), (1.0, leaves(110.0, 110.5)))
    found = area_along_y(field, 0.5, -50.0, 50.0)
    between = 20 * mlc.tongue_mm  # 19 whole overlaps and two halves
    assert found == pytest.approx((100 - between) * mlc.transmission + between * mlc.interleaf_transmission, rel=1e-9)
    values, edges = column(field, 0.5)
    assert values[np.searchsorted(edges, 2.0)] == pytest.approx(mlc.transmission)
    assert 0.01 < mlc.mean_transmission < 0.02


def test_motion_with_overlaps_equals_many_still_steps():
    # mutant: neighbours' tips that pass each other taken in one piece
    machine = example_machine()
    machine = replace(machine, mlc=replace(machine.mlc, tongue_mm=2.0, dosimetric_leaf_gap_mm=1.5))
    random = np.random.default_rng(4)

    def ragged():
        low = random.uniform(-30, 0, 14)
        return Aperture(low, low + random.uniform(0.5, 30, 14), -50.0, 50.0, -40.0, 40.0)

    start, end = ragged(), ragged()
    moving = fluence(machine, (0.0, start), (1.0, end))
    steps = 400
    still = np.zeros_like(moving.fluence_mu)
    for k in range(steps):
        t = (k + 0.5) / steps
        low = start.leaf_x1_mm + t * (end.leaf_x1_mm - start.leaf_x1_mm)
        high = start.leaf_x2_mm + t * (end.leaf_x2_mm - start.leaf_x2_mm)
        here = replace(start, leaf_x1_mm=low, leaf_x2_mm=high)
        part = fluence(machine, (0.0, here), (1 / steps, here))
        columns = np.searchsorted(part.x_edges_mm, moving.x_edges_mm[:-1] + 0.5) - 1
        rows = np.searchsorted(part.y_edges_mm, moving.y_edges_mm[:-1] + 0.5) - 1
        still += part.fluence_mu[np.ix_(rows, columns)]
    np.testing.assert_allclose(moving.fluence_mu, still, atol=4e-3)


# ---- the beams


def test_flattened_beams_are_flat_and_unflattened_ones_fall():
    # mutant: the flattened beam's profile in an unflattened beam's file
    for energy in ENERGIES:
        beam = load_machine(f"generic_carm:{energy}").beam
        far = np.interp([50.0, 100.0, 200.0], beam.off_axis_radius_mm, beam.off_axis_factor)
        if beam.unflattened:
            assert 0.8 < far[0] < 0.95 and np.all(np.diff(beam.off_axis_factor) < 0) and far[2] < 0.6
        else:
            assert np.all(np.abs(far - 1) < [0.02, 0.04, 0.1])  # in air: horns make up for the softening


def test_filters_make_head_scatter_and_soften_the_beam_off_axis():
    # mutant: a flattened beam's head in an unflattened beam's file
    for filtered, bare in (("6X", "6FFF"), ("10X", "10FFF")):
        a, b = (load_machine(f"generic_carm:{energy}").beam for energy in (filtered, bare))
        assert a.extra_focal.fraction > 2 * b.extra_focal.fraction
        assert a.energy_mev @ a.photon_fraction > 1.15 * (b.energy_mev @ b.photon_fraction)
        at_15cm = [np.interp(150.0, m.softening_radius_mm, m.softening_mu_ratio) for m in (a, b)]
        # Tailor et al. 1998: the half-value layer falls by 9 % at 8.5 degrees.
        assert at_15cm[0] == pytest.approx(1.10, abs=0.01) and 1.0 < at_15cm[1] < 1.03


@pytest.mark.parametrize("energy", ENERGIES)
def test_the_spectra_in_the_files_are_those_of_their_form(energy):
    # mutant: another effective aluminium in the file's spectrum
    beam = load_machine(f"generic_carm:{energy}").beam
    edges, photons = spectrum(BEAMS[energy])
    np.testing.assert_allclose(beam.energy_mev, (edges[1:] + edges[:-1]) / 2, atol=5e-3)
    np.testing.assert_allclose(beam.photon_fraction, photons, atol=2e-8)


@pytest.mark.physics
@pytest.mark.parametrize(
    ("energy", "at_10cm_pct", "maximum_mm"),
    [("6X", 66.4, 15), ("6FFF", 63.5, 13), ("10X", 73.7, 24), ("10FFF", 71.0, 22), ("15X", 77.0, 28)],
)
def test_depth_dose_is_what_a_physicist_knows(energy, at_10cm_pct, maximum_mm):
    # mutant: effective aluminium of the spectrum by table 5 (6X: 65.3 %)
    beam = load_machine(f"generic_carm:{energy}").beam
    grid, found = water_dose(beam, 100.0, ssd_mm=1000.0, spacing_mm=3.0, depth_mm=180.0, width_mm=210.0)
    middle = found.shape[0] // 2
    axis = found[middle - 1 : middle + 1, :, middle - 1 : middle + 1].mean(axis=(0, 2))
    assert 100 * np.interp(100.0, grid.y_mm(), axis) / axis.max() == pytest.approx(at_10cm_pct, abs=0.6)
    assert grid.y_mm()[axis.argmax()] == pytest.approx(maximum_mm, abs=3.0)
