"""The accuracy benchmark's figures on doses whose differences are known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from water_beam import beam_model

from benchmarks.dose_comparison import compare, depth_curve, depth_figures, view
from benchmarks.dose_profiles import profile_figures
from benchmarks.egsnrc_cases import ReferenceField
from benchmarks.failure_regions import failure_table
from benchmarks.gamma_index import Criterion, averaged, gamma_index
from rtplan.domain.beams import Beam, FluenceMap, beam_frame
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage

SPACING_MM = 2.5
HALF_MM = 30.0
EDGE_MM = 4.0


def grid():
    return Grid((40, 64, 40), (SPACING_MM,) * 3, (-48.75, 1.25, -48.75))


def edges(on, step_mm=SPACING_MM):
    low, high = on.bounds_mm()
    return tuple(np.arange(low[a], high[a] + 1e-6, step_mm) for a in (2, 1, 0))


def beam_dose(on, widen_mm=0.0, half_mm=HALF_MM):
    """A field of 60 x 60 mm at the surface that dies off with depth, edges 4 mm wide; wider by `widen_mm` a side."""
    z, y, x = np.meshgrid(on.z_mm(), on.y_mm(), on.x_mm(), indexing="ij")
    at = 1000.0 / (1000.0 + y)
    inside = [1 / (1 + np.exp((np.abs(v) * at - half_mm - widen_mm) / EDGE_MM)) for v in (x, z)]
    return np.exp(-0.005 * y) * inside[0] * inside[1]


def reference(dose=None, sigma=0.0, mass=None, **changes):
    """A Monte Carlo field in water on the engine's own voxels, SSD 1 m."""
    on = grid()
    dose = beam_dose(on) if dose is None else dose
    mass = np.ones(on.shape_zyx, np.float32) if mass is None else mass
    side = np.array([-HALF_MM, HALF_MM])
    fluence = FluenceMap(Beam("b", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0), side, side, np.ones((1, 1)))
    field = ReferenceField(
        "b", DensityImage(on, mass, mass), fluence, beam_model(), edges(on), dose, np.full(dose.shape, sigma), dose >= 0
    )
    return replace(field, **changes)


def slices(start, stop):
    """Scored voxels: some slices only, for speed."""
    scored = np.zeros(grid().shape_zyx, dtype=bool)
    scored[start:stop] = True
    return scored


def ramp(slope_per_mm):
    on = grid()
    return np.broadcast_to(100.0 + slope_per_mm * on.x_mm(), on.shape_zyx).copy()


def middle(on):
    chosen = np.zeros(on.shape_zyx, dtype=bool)
    chosen[20, 30, 15:25] = True
    return chosen


def test_a_dose_is_averaged_over_the_parts_of_its_voxels_that_overlap():
    # mutant: centres instead of overlaps
    on = grid()
    dose = np.broadcast_to(on.x_mm(), on.shape_zyx)
    others = (np.array([0.0, 5.0]), np.array([10.0, 20.0]), np.array([0.0, 2.5, 4.0, 60.0, 70.0]))
    along_x = averaged(dose, on, others)[0, 0]
    # Voxels are constant: [2.5, 4] lies in the one about 3.75, of [4, 60] only 4 to 50 lies in the grid.
    assert along_x[:2] == pytest.approx([1.25, 3.75])
    assert along_x[2] == pytest.approx((1.0 * 3.75 + 45.0 * 27.5) / 46.0)
    assert np.isnan(along_x[3])


@pytest.mark.parametrize("offset_mm", [1.0, 2.5, 3.5])
def test_gamma_of_a_shifted_ramp_is_the_distance_to_a_line(offset_mm):
    """Low 1998: for a dose of slope s the nearest point in (x/2 mm, D/limit) lies at sΔ/L / sqrt(1 + (2 mm s/L)²)."""
    # mutant: distance not divided by its criterion; the search ends at one criterion; box of the wrong voxel
    slope, limit = 1.5, 2.0
    gamma = gamma_index(
        ramp(slope), grid(), ramp(slope) + slope * offset_mm, edges(grid()), middle(grid()), Criterion(limit, 2.0)
    )
    wanted = slope * offset_mm / limit / np.hypot(1.0, 2.0 * slope / limit)
    start = slope * offset_mm / limit
    np.testing.assert_allclose(gamma, wanted if start > 1 else start, atol=0.01)


def test_gamma_of_a_flat_dose_is_its_difference_over_the_limit_and_two_at_most():
    # mutant: relative to the local dose instead of the limit
    flat = np.full(grid().shape_zyx, 50.0)
    for difference, wanted in ((1.99, 0.995), (-2.4, 1.2), (9.0, 2.0)):
        gamma = gamma_index(flat, grid(), flat + difference, edges(grid()), middle(grid()), Criterion(2.0, 2.0))
        np.testing.assert_allclose(gamma, wanted, rtol=1e-6)


def test_a_sharp_edge_passes_within_the_distance_and_fails_beyond_it():
    # mutant: shifts along one axis only; search half as far
    on = grid()
    for axis in range(3):
        for shift_mm, passes in ((1.5, True), (2.2, False)):
            shape = [1, 1, 1]
            shape[axis] = -1
            place = (on.z_mm(), on.y_mm() - 80.0, on.x_mm())[axis].reshape(shape)
            engine, truth = (np.broadcast_to(np.clip(s - 10 * place, -1e3, 1e3), on.shape_zyx) for s in (0, 10 * shift_mm))
            gamma = gamma_index(engine, on, truth, edges(on), middle(on), Criterion(0.5, 2.0))
            assert (gamma <= 1).all() == passes


def test_large_monte_carlo_voxels_are_compared_with_the_engines_average():
    # mutant: the engine at the voxel's centre
    on, coarse = grid(), edges(grid(), 10.0)
    curved = np.broadcast_to(on.x_mm() ** 2, on.shape_zyx)
    truth = averaged(curved, on, coarse)
    gamma = gamma_index(curved, on, truth, coarse, np.ones(truth.shape, bool), Criterion(1e-9, 1e-9))
    assert gamma.max() < 1e-3


def test_the_same_dose_has_no_differences():
    figures = compare(reference(), beam_dose(grid()))
    for key in ("axis_2.5cm_mean", "axis_2.5cm_worst_3cm", "axis_1cm_max", "idd_mae", "mae_above_10pct"):
        assert figures[key] == pytest.approx(0.0, abs=1e-9)
    assert figures["gamma_2pct_2mm"] == figures["noise_gamma_2pct_2mm"] == 100.0


def test_a_dose_one_per_cent_too_high_is_told_in_per_cent_of_the_maximum():
    # mutant: relative to the local dose; absolute value in the mean
    field = reference()
    figures = compare(field, 1.01 * field.dose)
    curve = depth_curve(view(field, field.dose), 12.5).reference
    assert curve.max() == pytest.approx(100.0)
    assert figures["axis_2.5cm_mean"] == pytest.approx(0.01 * curve[1:].mean())
    assert figures["axis_2.5cm_max"] == pytest.approx(0.01 * curve[1:6].mean())
    assert figures["axis_2.5cm_worst_3cm"] == pytest.approx(0.01 * curve[1:7].mean())
    assert figures["axis_2.5cm_layer_max"] == pytest.approx(0.01 * curve[1])
    high = field.dose > 0.1 * field.dose.max()
    assert figures["mean_above_10pct"] == pytest.approx(field.dose[high].mean() / view(field, field.dose).top, rel=5e-3)
    low = compare(field, 0.99 * field.dose)
    assert low["axis_1cm_mean"] == pytest.approx(-figures["axis_1cm_mean"])
    assert low["mae_above_10pct"] == pytest.approx(-low["mean_above_10pct"]) and low["idd_mean"] < 0
    # The field widens with depth, by the square of the distance from the source.
    depth_mm = (np.arange(32) + 0.5) * 5
    layers = np.exp(-0.005 * depth_mm) * (1 + depth_mm / 1000) ** 2
    assert figures["idd_mae"] == pytest.approx(np.mean(layers / layers[0]), rel=0.02)


def test_a_departure_over_three_centimetres_is_told_and_one_over_half_a_centimetre_is_not():
    # mutant: the largest layer instead of a mean over 3 cm
    field = reference()
    depth = grid().y_mm()[None, :, None]
    for length_mm, wanted in ((30.0, 2.0), (5.0, 2.0 / 6)):
        bump = np.where((depth > 60) & (depth < 60 + length_mm), 0.02, 0.0) * field.dose[20, 0, 20]
        assert abs(compare(field, field.dose + bump)["axis_2.5cm_worst_3cm"]) == pytest.approx(wanted, rel=0.05)


def test_a_wider_field_shifts_the_penumbra_outwards_and_adds_dose_outside():
    # mutant: sign by side; only one of the two axes
    figures = profile_figures(view(reference(), beam_dose(grid(), widen_mm=1.0)))
    assert figures["penumbra_shift_mm"] == pytest.approx(1.0, abs=0.05)
    assert figures["penumbra_shift_max_mm"] == pytest.approx(1.0, abs=0.1)
    assert figures["out_of_field_mean"] > 0.05
    for axis in (0, 2):
        both = profile_figures(view(reference(), np.roll(beam_dose(grid()), 1, axis=axis)))
        # One voxel aside: out by 2.5 mm (a little less at the isocentre plane) on one side, in on the other.
        assert both["penumbra_shift_mm"] == pytest.approx(0.0, abs=0.05)
        assert 2.1 < both["penumbra_shift_max_mm"] < 2.6


def test_noise_alone_fails_the_voxels_that_it_must():
    """A flat dose whose 1 sigma is the dose limit: Gauss says 68.3 % pass; a flat dose has no better neighbours."""
    # mutant: the replica's noise taken twice
    flat = np.ones(grid().shape_zyx)
    field = reference(dose=flat, sigma=0.02, scored=slices(20, 22))
    figures = compare(field, flat)
    assert figures["gamma_2pct_2mm"] == 100.0
    assert figures["noise_gamma_2pct_2mm"] == pytest.approx(68.3, abs=1.5)
    assert figures["noise_gamma_3pct_2mm"] == pytest.approx(86.6, abs=1.5)
    assert figures["noise_above_10pct"] == pytest.approx(2.0 * np.sqrt(2 / np.pi), rel=1e-6)


def test_noise_that_voxels_share_is_seen_in_the_spread_of_symmetric_parts():
    # mutant: noise always as if voxels were independent
    flat, rng = np.ones(grid().shape_zyx), np.random.default_rng(1)
    alone = depth_figures(depth_curve(view(reference(dose=flat, sigma=0.02), flat), 12.5))["noise"]
    assert alone == pytest.approx(2.0 / np.sqrt(10 * 10 * 10), rel=0.1)
    shared = flat + 0.02 * rng.normal(size=(40, 1, 40))  # the same along each column of depth
    field = reference(dose=flat, sigma=0.02, unfolded=shared, mirrored_in_x=True)
    noise = depth_figures(depth_curve(view(field, flat), 12.5))["noise"]
    assert noise > 1.5 * alone


def test_failures_are_told_by_where_they_lie():
    # mutant: material of the phantom's first voxel; places by depth alone
    mass = np.ones(grid().shape_zyx, np.float32)
    mass[:, 24:44] = 0.26
    field = reference(mass=mass, scored=slices(19, 21))
    wrong = field.dose.copy()
    wrong[:, 27:41] *= 1.2
    rows = {(r.material, r.place): r for r in failure_table(view(field, wrong), wrong)}
    lung = rows["low density", "in field"]
    assert lung.fail_pct > 60 and lung.mean_pct > 5 and lung.noise_fail_pct == 0
    for place in (("soft", "build-up"), ("soft", "in field"), ("behind low", "in field")):
        assert rows[place].fail_pct == 0 and abs(rows[place].mean_pct) < 1e-6
    assert sum(r.voxels for r in rows.values()) == (field.scored & (field.dose > 0.1 * view(field, wrong).top)).sum()


def test_the_middle_of_an_asymmetric_field_is_its_own():
    # mutant: profiles about the beam's axis
    field = reference()
    aside = np.array([-HALF_MM + 10.0, HALF_MM + 10.0])
    moved = replace(field, fluence=replace(field.fluence, x_edges_mm=aside))
    seen = view(moved, field.dose)
    x, _, _ = beam_frame(field.fluence.beam).to_bev(field.centres_xyz_mm())
    np.testing.assert_allclose(seen.x, x - 10.0)
