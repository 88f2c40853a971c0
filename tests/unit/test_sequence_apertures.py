"""The best aperture is the best one, and every aperture is one that the collimator can form."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from rtplan.domain.beams import Beam
from rtplan.domain.example_context import example_machine
from rtplan.domain.influence import Beamlets
from rtplan.domain.openings import open_area_cm2, open_pairs
from rtplan.errors import PlanningFailed
from rtplan.steps.apertures import beamlet_field, best_shape, shape_area_cm2
from rtplan.steps.closed_leaves import aperture_of, jaw_box


def machine_with(**mlc):
    machine = replace(example_machine(), min_segment_area_cm2=0.1)
    return replace(machine, mlc=replace(machine.mlc, **mlc))


def block(machine, pairs, columns, left_mm=0.0, width_mm=5.0, holes=()):
    """Beamlets on the given leaf pairs, except the (pair, column) in `holes`."""
    cells = [(k, c) for k in pairs for c in range(columns) if (k, c) not in holes]
    pair, column = (np.array(v) for v in zip(*cells, strict=True))
    bounds = machine.mlc.leaf_boundaries_mm
    x1 = left_mm + width_mm * column
    beams = (Beam("B", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0),)
    return Beamlets(beams, np.zeros(len(cells)), pair, x1, x1 + width_mm, bounds[pair], bounds[pair + 1])


def columns(shape, field):
    """First and last-plus-one column of each row; of closed pairs nothing."""
    left, right = (np.searchsorted(field.x_edges_mm, np.nan_to_num(x)) for x in (shape.x1_mm, shape.x2_mm))
    return list(zip(left.tolist(), right.tolist(), strict=True))


def brute_force(cells, interdigitation):
    rows, columns = cells.shape
    runs = [None, *((a, b) for a in range(columns) for b in range(a + 1, columns + 1))]
    best = 0.0
    for pick in itertools.product(runs, repeat=rows):
        opened = [i for i, run in enumerate(pick) if run]
        if not interdigitation and opened:
            joined = opened == list(range(opened[0], opened[-1] + 1))
            overlap = all(pick[i][0] < pick[i + 1][1] and pick[i + 1][0] < pick[i][1] for i in opened[:-1] if joined)
            if not (joined and overlap):
                continue
        best = max(best, sum(cells[i, run[0] : run[1]].sum() for i, run in enumerate(pick) if run))
    return best


@pytest.mark.parametrize("interdigitation", [True, False])
def test_no_other_aperture_is_worth_more(interdigitation):
    # mutants: rows taken without regard to their neighbours; a run that may not start below the first row
    machine = machine_with(interdigitation=interdigitation)
    field = beamlet_field(block(machine, (5, 6, 7), 4), 0, machine)
    rng = np.random.default_rng(4)
    for trial in range(12):
        benefit = rng.normal(size=12)
        if trial % 2:
            benefit[:4] = -5.0  # nothing to win in the first row
        shape = best_shape(benefit, field, machine)
        cells = benefit.reshape(3, 4)
        value = sum(cells[i, slice(*columns(shape, field)[i])].sum() for i in np.flatnonzero(shape.is_open))
        assert value == pytest.approx(brute_force(cells, interdigitation))


def test_nothing_is_opened_when_nothing_helps():
    machine = machine_with()
    field = beamlet_field(block(machine, (5, 6), 4), 0, machine)
    assert best_shape(-np.ones(8), field, machine) is None


def test_leaves_never_open_where_there_is_no_beamlet():
    machine = machine_with()
    field = beamlet_field(block(machine, (5, 6), 5, holes={(5, 2)}), 0, machine)
    shape = best_shape(np.ones(9), field, machine)
    assert (shape.x2_mm - shape.x1_mm).tolist() == [10.0, 25.0]


def test_an_opening_below_the_smallest_area_is_widened():
    machine = replace(machine_with(), min_segment_area_cm2=0.6)
    field = beamlet_field(block(machine, (5,), 6), 0, machine)
    shape = best_shape(np.array([-1.0, -1.0, 5.0, -0.5, -1.0, -1.0]), field, machine)
    assert shape_area_cm2(shape, field) >= 0.6 and shape.x1_mm[0] <= 10.0 < shape.x2_mm[0]


def test_openings_of_a_wide_field_stay_within_the_carriage():
    machine = machine_with()
    field = beamlet_field(block(machine, range(2, 12), 38, left_mm=-95.0), 0, machine)
    shape = best_shape(np.ones(380), field, machine)
    aperture = aperture_of(shape, field, jaw_box([shape], field, machine), machine)
    assert np.ptp(aperture.leaf_x1_mm) <= 150.0 and np.ptp(aperture.leaf_x2_mm) <= 150.0
    # A staircase would need both ends of both banks: it is cut down, not refused.
    stairs = np.full((10, 38), -1.0)
    for k in range(10):
        stairs[k, 3 * k : 3 * k + 10] = 1.0
    shape = best_shape(stairs.ravel(), field, machine)
    aperture = aperture_of(shape, field, jaw_box([shape], field, machine), machine)
    assert np.ptp(aperture.leaf_x1_mm) <= 150.0 and np.ptp(aperture.leaf_x2_mm) <= 150.0
    assert open_area_cm2(aperture, machine.mlc) == pytest.approx(shape_area_cm2(shape, field))


def test_closed_pairs_hide_under_a_jaw():
    machine = machine_with()
    field = beamlet_field(block(machine, range(2, 12), 8, left_mm=-20.0), 0, machine)
    benefit = np.ones((10, 8))
    benefit[4] = -1.0
    shape = best_shape(benefit.ravel(), field, machine)
    aperture = aperture_of(shape, field, jaw_box([shape], field, machine), machine)
    closed = ~open_pairs(aperture, machine.mlc)
    assert closed[6] and closed.sum() == 5
    outside = (aperture.leaf_x1_mm[closed] >= aperture.jaw_x2_mm) | (aperture.leaf_x2_mm[closed] <= aperture.jaw_x1_mm)
    assert outside.all()


def test_closed_pairs_of_a_field_as_wide_as_the_carriage_stand_beside_an_opening():
    machine = machine_with(max_span_mm=60.0)
    field = beamlet_field(block(machine, range(2, 12), 12, left_mm=-30.0), 0, machine)
    benefit = np.ones((10, 12))
    benefit[4] = -1.0
    shape = best_shape(benefit.ravel(), field, machine)
    jaws = (-30.0, 30.0, -25.0, 25.0)
    wide = aperture_of(shape, field, jaws, machine)
    assert np.ptp(wide.leaf_x1_mm) <= 60.0 and np.ptp(wide.leaf_x2_mm) <= 60.0
    assert wide.leaf_x1_mm[6] == pytest.approx(30.0)


def test_the_gap_that_photons_see_of_a_closed_pair_hides_as_well():
    # mutant: the gap's edge at the jaw's, half a leaf gap in the open
    machine = machine_with(max_span_mm=62.0, dosimetric_leaf_gap_mm=1.5)
    field = beamlet_field(block(machine, range(2, 12), 12, left_mm=-30.0), 0, machine)
    benefit = np.ones((10, 12))
    benefit[4] = -1.0
    shape = best_shape(benefit.ravel(), field, machine)
    aperture = aperture_of(shape, field, (-30.0, 30.0, -25.0, 25.0), machine)
    assert aperture.leaf_x1_mm[6] == pytest.approx(30.75)


def test_jaws_stand_at_the_openings_edges():
    machine = machine_with()
    field = beamlet_field(block(machine, range(3, 9), 8, left_mm=-15.0), 0, machine)
    shape = best_shape(np.ones(48), field, machine)
    bounds = machine.mlc.leaf_boundaries_mm
    assert jaw_box([shape], field, machine) == (-15.0, 25.0, bounds[3], bounds[9])


def test_a_jaw_that_cannot_come_in_that_far_stays_out():
    machine = machine_with()
    field = beamlet_field(block(machine, range(3, 9), 4, left_mm=40.0), 0, machine)
    shape = best_shape(np.ones(24), field, machine)
    assert jaw_box([shape], field, machine)[0] == 20.0


@pytest.mark.parametrize("left_mm", [-210.0, 190.0])
def test_a_target_beyond_the_leaves_is_refused(left_mm):
    machine = machine_with()
    with pytest.raises(PlanningFailed) as caught:
        beamlet_field(block(machine, range(3, 9), 4, left_mm=left_mm), 0, machine)
    assert caught.value.code == "TARGET_TOO_WIDE"


def test_overtravel_keeps_tips_on_their_side():
    machine = machine_with(max_overtravel_mm=10.0)
    field = beamlet_field(block(machine, (5,), 8, left_mm=0.0), 0, machine)
    benefit = np.array([-1.0, -1.0, -1.0, -1.0, 5.0, 5.0, 5.0, 5.0])
    shape = best_shape(benefit, field, machine)
    assert shape.x1_mm[0] == 10.0
