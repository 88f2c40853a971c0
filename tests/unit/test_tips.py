"""Leaf tips open what they seem to, pull where they stand, and go only where the machine lets them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtplan.domain.beams import Beam
from rtplan.domain.example_context import example_machine
from rtplan.domain.influence import Beamlets
from rtplan.steps.apertures import Shape, beamlet_field, shape_area_cm2
from rtplan.steps.closed_leaves import aperture_of, jaw_box
from rtplan.steps.tips import AREA_MARGIN, CLOSED_MM, Tips, first_tips, legal_tips, roughness

PAIRS, COLUMNS = range(3, 9), 8


def machine_with(area_cm2=1.0, **mlc):
    machine = replace(example_machine(), min_segment_area_cm2=area_cm2)
    return replace(machine, mlc=replace(machine.mlc, **mlc))


def field_of(machine, pairs=PAIRS, columns=COLUMNS, left_mm=-20.0, holes=()):
    cells = [(k, c) for k in pairs for c in range(columns) if (k, c) not in holes]
    pair, column = (np.array(v) for v in zip(*cells, strict=True))
    bounds = machine.mlc.leaf_boundaries_mm
    x1 = left_mm + 5.0 * column
    beams = (Beam("B", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0),)
    return beamlet_field(
        Beamlets(beams, np.zeros(len(cells)), pair, x1, x1 + 5.0, bounds[pair], bounds[pair + 1]), 0, machine
    )


def random_tips(field, machine, seed, n=4):
    """Open shapes with a closed row here and there."""
    rng = np.random.default_rng(seed)
    rows, low, high = len(field.row_height_mm), field.x_edges_mm[0], field.x_edges_mm[-1]
    shapes = []
    for _ in range(n):
        x = np.sort(rng.uniform(low, high, (2, rows)), axis=0)
        x[1] = np.minimum(x[1] + 2.0, high)
        closed = np.zeros(rows, dtype=bool)
        if machine.mlc.interdigitation:
            closed = (rng.random(rows) < 0.2) & (np.arange(rows) > 0)
        else:
            x = np.stack([np.minimum(x[0], -3.0), np.maximum(x[1], 3.0)])
        shapes.append(Shape(0, np.where(closed, np.nan, x[0]), np.where(closed, np.nan, x[1])))
    return shapes, first_tips(shapes, field, machine)


def test_what_lies_between_the_tips_is_open():
    """Against counting points 0.01 mm apart, also where the leaf gap sets the tips back. mutant: back_mm forgotten"""
    for gap_mm in (0.0, 3.0):
        machine = machine_with(dosimetric_leaf_gap_mm=gap_mm)
        field = field_of(machine)
        tips = random_tips(field, machine, 1)[1]
        x = np.arange(-20.0, 20.0, 0.01) + 0.005
        seen = tips.x2_mm > tips.x1_mm
        low, high = tips.x1_mm - gap_mm / 2 * seen, tips.x2_mm + gap_mm / 2 * seen
        points = (x > low[..., None]) & (x < high[..., None])
        expected = points.reshape(*low.shape, COLUMNS, 500).mean(axis=-1)
        np.testing.assert_allclose(tips.open_share(field), expected, atol=2.1e-3)


def test_closed_pairs_open_nothing():
    # mutant: back_mm added to closed pairs too
    machine = machine_with(dosimetric_leaf_gap_mm=3.0)
    field = field_of(machine)
    x = np.where(np.arange(6) < 3, -5.0, np.nan), np.where(np.arange(6) < 3, 5.0, np.nan)
    share = first_tips([Shape(0, *x)], field, machine).open_share(field)
    assert share[0, :3].sum() > 0 and not share[0, 3:].any()


@pytest.mark.parametrize("gap_mm", [0.0, 1.5])
def test_the_pull_on_a_tip_agrees_with_finite_differences(gap_mm):
    """Off the edges of the beamlets, where the opening has a slope. mutants: sign of the left bank; floor for ceil"""
    machine = machine_with(dosimetric_leaf_gap_mm=gap_mm)
    field = field_of(machine)
    cells = np.random.default_rng(2).normal(size=(6, COLUMNS))
    tips = random_tips(field, machine, 3)[1]
    found = tips.gradient(field, cells)
    checked = 0
    for bank, name, outward in ((0, "x1_mm", -1.0), (1, "x2_mm", 1.0)):
        at = getattr(tips, name)
        edge = at + outward * gap_mm / 2
        off = (np.abs((edge + 20.0) / 5.0 - np.rint((edge + 20.0) / 5.0)) > 1e-3) & (np.abs(edge) < 20.0)
        off &= tips.x2_mm - tips.x1_mm > 0.1
        for i, k in np.argwhere(off):
            value = []
            for step in (1e-4, -1e-4):
                moved = at.copy()
                moved[i, k] += step
                value.append(float((replace(tips, **{name: moved}).open_share(field)[i] * cells).sum()))
            assert found[bank][i, k] == pytest.approx((value[0] - value[1]) / 2e-4, abs=1e-6)
            checked += 1
    assert checked > 20


def test_on_an_edge_the_pull_is_that_of_opening_further():
    # mutant: the beamlet inside
    machine = machine_with()
    field = field_of(machine)
    cells = np.zeros((6, COLUMNS))
    cells[:, 1], cells[:, 6] = 1.0, 2.0
    x1, x2 = first_tips([Shape(0, np.full(6, -10.0), np.full(6, 10.0))], field, machine).gradient(field, cells)
    assert x1[0].tolist() == [-1.0 / 5.0] * 6 and x2[0].tolist() == [2.0 / 5.0] * 6


def test_roughness_is_nothing_for_even_edges_and_its_gradient_agrees_with_finite_differences():
    # mutant: slope of one neighbour only
    machine = machine_with()
    field = field_of(machine)
    assert roughness(np.full((1, 6), -10.0), np.full((1, 6), 10.0), 2.0)[0] == 0.0
    tips = random_tips(field, machine, 4)[1]
    _, *found = roughness(tips.x1_mm, tips.x2_mm, 2.0)
    for gradient, name in zip(found, ("x1_mm", "x2_mm"), strict=True):
        for k in range(6):
            total = []
            for step in (1e-4, -1e-4):
                moved = {"x1_mm": tips.x1_mm.copy(), "x2_mm": tips.x2_mm.copy()}
                moved[name][:, k] += step
                total.append(roughness(moved["x1_mm"], moved["x2_mm"], 2.0)[0])
            np.testing.assert_allclose(gradient[:, k], (total[0] - total[1]) / 2e-4, atol=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    interdigitation=st.booleans(),
    overtravel_mm=st.sampled_from([5.0, 160.0]),
    span_mm=st.sampled_from([23.0, 150.0]),
    gap_mm=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_whatever_is_wished_for_the_tips_are_legal(seed, interdigitation, overtravel_mm, span_mm, gap_mm):
    """mutants: crossed tips kept; neighbours' tips passed; no limits; too small segments taken"""
    machine = machine_with(
        interdigitation=interdigitation, max_overtravel_mm=overtravel_mm, max_span_mm=span_mm, min_gap_mm=gap_mm
    )
    field = field_of(machine, holes=((3, 0), (8, 7), (8, 6)))
    rng = np.random.default_rng(seed)
    tips = start = _within(random_tips(field, machine, seed)[0], field, machine)
    for _ in range(3):
        wish = [x + rng.normal(0.0, 12.0, x.shape) for x in (tips.x1_mm, tips.x2_mm)]
        tips = legal_tips(tips, *wish, field, machine)
        assert np.all(tips.x1_mm <= tips.x2_mm)
        for x in (tips.x1_mm, tips.x2_mm):
            assert np.all(np.ptp(x, axis=1) <= span_mm)
        assert tips.x1_mm.max() <= overtravel_mm and tips.x2_mm.min() >= -overtravel_mm
        assert np.all(tips.x1_mm[:, 0] >= -15.0) and np.all(tips.x2_mm[:, 5] <= 10.0)  # no beamlet beyond
        if not interdigitation:
            assert np.all(tips.x1_mm[:, 1:] <= tips.x2_mm[:, :-1] - gap_mm)
            assert np.all(tips.x1_mm[:, :-1] <= tips.x2_mm[:, 1:] - gap_mm)
        for i, shape in enumerate(tips.shapes(0)):
            unmoved = np.array_equal(tips.x1_mm[i], start.x1_mm[i])
            assert aperture_of(shape, field, jaw_box([shape], field, machine), machine) is not None
            assert unmoved or shape_area_cm2(shape, field) >= AREA_MARGIN * machine.min_segment_area_cm2


def _within(shapes, field, machine):
    """First tips of shapes that the machine can form: within overtravel, span and the field's own beamlets."""
    most = min(machine.mlc.max_overtravel_mm - 2.5, machine.mlc.max_span_mm - 20.0)
    cut = []
    for s in shapes:
        x1, x2 = np.clip(s.x1_mm, None, most), np.clip(s.x2_mm, -most, None)
        x1[0], x2[5] = max(x1[0], -15.0), min(x2[5], 10.0)
        cut.append(Shape(0, np.where(x1 < x2, x1, np.nan), np.where(x1 < x2, x2, np.nan)))
    return first_tips([s for s in cut if s.is_open.any()], field, machine)


def test_pairs_open_over_their_own_beamlets_only():
    """Pair 5 has no beamlets and pair 7 two, both far from its neighbours' opening. mutants: the whole field's width;
    closed pairs in the middle of their neighbours' opening"""
    machine = machine_with()
    field = field_of(machine, holes=(*((5, c) for c in range(8)), *((7, c) for c in range(2, 8))))
    nan = np.nan
    shape = Shape(0, np.array([5.0, 5.0, nan, 5.0, nan, 5.0]), np.array([15.0, 15.0, nan, 15.0, nan, 15.0]))
    tips = first_tips([shape], field, machine)
    assert tips.x1_mm[0, 4] == tips.x2_mm[0, 4] == -10.0
    wide = legal_tips(tips, tips.x1_mm - 50.0, tips.x2_mm + 50.0, field, machine)
    (shape,) = wide.shapes(0)
    assert not shape.is_open[2]
    assert (shape.x1_mm[4], shape.x2_mm[4]) == (-20.0, -10.0)
    assert (shape.x1_mm[3], shape.x2_mm[3]) == (-20.0, 20.0)


def test_a_closed_pair_beyond_the_overtravel_stays_closed():
    """Its tips cannot both stand in the middle of its neighbours' opening. mutant: each tip put where its bank can be"""
    machine = machine_with(max_overtravel_mm=160.0)
    field = field_of(machine, columns=10, left_mm=-195.0)
    nan = np.nan
    shape = Shape(0, np.array([-195.0, nan, -195.0, nan, nan, -195.0]), np.array([-155.0, nan, -155.0, nan, nan, -155.0]))
    tips = first_tips([shape], field, machine)
    assert tips.shapes(0)[0].is_open.tolist() == shape.is_open.tolist()
    assert np.array_equal(tips.x1_mm[0, 1:5:3], tips.x2_mm[0, 1:5:3])


def test_banks_of_a_field_wider_than_the_span_stay_within_it():
    """One pair open over 190 mm: the others' tips follow their own bank's. mutant: one window for both banks"""
    machine = machine_with(max_span_mm=150.0)
    field = field_of(machine, columns=38, left_mm=-95.0)
    shape = Shape(0, np.array([-95.0, *[-20.0] * 5]), np.array([95.0, *[20.0] * 5]))
    tips = first_tips([shape], field, machine)
    assert (tips.x1_mm[0, 0], tips.x2_mm[0, 0]) == (-95.0, 95.0)
    for low, high in ((60.0, 95.0), (-95.0, -60.0)):
        wish = np.array([[-95.0, *[low] * 5]]), np.array([[95.0, *[high] * 5]])
        (found,) = legal_tips(tips, *wish, field, machine).shapes(0)
        aperture = aperture_of(found, field, jaw_box([found], field, machine), machine)
        assert np.ptp(aperture.leaf_x1_mm) <= 150.0 and np.ptp(aperture.leaf_x2_mm) <= 150.0


def test_tips_that_are_legal_stay_where_they_are_wished():
    # mutant: always the middle
    machine = machine_with()
    field = field_of(machine)
    tips = random_tips(field, machine, 6)[1]
    x1, x2 = tips.x1_mm - 0.5 * (tips.x1_mm > -19.0), tips.x2_mm + 0.5 * (tips.x2_mm < 19.0)
    moved = legal_tips(tips, x1, x2, field, machine)
    np.testing.assert_array_equal(moved.x1_mm, x1)
    np.testing.assert_array_equal(moved.x2_mm, x2)


def test_a_slit_is_closed_and_a_wider_opening_is_not():
    # mutant: CLOSED_MM of one bank
    machine = machine_with()
    tips = first_tips([Shape(0, np.zeros(6), np.full(6, 10.0))], field_of(machine), machine)
    width = np.array([0.0, 0.5, 0.99, 1.0, 1.5, 10.0]) * CLOSED_MM
    (shape,) = replace(tips, x2_mm=tips.x1_mm + width).shapes(7)
    assert shape.beam_index == 7
    assert shape.is_open.tolist() == [False, False, False, True, True, True]
    machine = machine_with(min_gap_mm=5.0)  # where leaves cannot come closer, an opening is wider than that
    tips = first_tips([Shape(0, np.zeros(6), np.full(6, 10.0))], field_of(machine), machine)
    (shape,) = replace(tips, x2_mm=tips.x1_mm + np.array([0.0, 1.5, 4.9, 5.0, 5.5, 10.0])).shapes(7)
    assert shape.is_open.tolist() == [False] * 4 + [True] * 2


def test_a_closed_pair_opens_by_a_whole_slit_or_not_at_all():
    """However short the step, what it changes shrinks with it: a pair that began to open would be seen by both leaf ends at
    once, and no line search gets past such a leap. mutants: slits opened; open pairs kept from closing"""
    machine = machine_with(interdigitation=True, dosimetric_leaf_gap_mm=1.6)
    field = field_of(machine)
    old = random_tips(field, machine, 3)[1]
    closed = old.x1_mm == old.x2_mm
    assert closed.any() and not closed.all()
    for wish_mm, opened in ((0.3 * old.closed_mm, False), (0.6 * old.closed_mm, True)):
        tips = legal_tips(old, old.x1_mm - wish_mm, old.x2_mm + wish_mm, field, machine)
        free = closed & (old.low_mm[0] < old.x1_mm - 1.0) & (old.high_mm[1] > old.x2_mm + 1.0)
        assert free.any() and np.all((tips.x2_mm > tips.x1_mm)[free] == opened)
    narrower = legal_tips(old, old.x1_mm + 0.1, old.x2_mm - 0.1, field, machine)
    assert np.all(narrower.x2_mm[~closed] < old.x2_mm[~closed])


def test_closed_pairs_start_in_the_middle_of_their_nearest_opening():
    # mutant: the farthest
    machine = machine_with()
    nan = np.nan
    shape = Shape(0, np.array([nan, -10.0, nan, nan, 5.0, nan]), np.array([nan, 0.0, nan, nan, 15.0, nan]))
    tips = first_tips([shape], field_of(machine), machine)
    assert isinstance(tips, Tips)
    assert tips.x1_mm[0].tolist() == [-5.0, -10.0, -5.0, 10.0, 5.0, 10.0]
    assert tips.x2_mm[0].tolist() == [-5.0, 0.0, -5.0, 10.0, 15.0, 10.0]
