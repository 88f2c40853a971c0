"""Leaf tips along an arc: what they open on their way, and what motion is legal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtplan.domain.beams import Beam
from rtplan.domain.example_context import example_machine
from rtplan.domain.influence import Beamlets
from rtplan.domain.prescription import Arc
from rtplan.errors import PlanningFailed
from rtplan.steps.arc_tips import (
    LEAST_SWEEP_MM,
    ArcField,
    ArcTips,
    Motion,
    arc_field,
    areas_cm2,
    legal_tips,
    motion_of,
    open_share,
    opened,
    share_gradient,
)
from rtplan.steps.place_beams import ArcBeams

ARC = Arc(200.0, 232.0, "CW", 10.0)
INTERVALS, ROWS, COLUMNS = 4, 6, 8
WIDTH_MM = 5.0


def beam(angle_deg: float) -> Beam:
    return Beam(f"G{angle_deg:g}", angle_deg, 10.0, 0.0, (0.0, 0.0, 0.0), 1000.0)


def arc_beams() -> ArcBeams:
    angles = np.linspace(200.0, 232.0, INTERVALS + 1)
    return ArcBeams(ARC, beam(200.0), angles, tuple(beam(float(a)) for a in (angles[:-1] + angles[1:]) / 2))


def field_without(absent: tuple[tuple[int, int, int], ...] = ()) -> tuple[ArcField, Beamlets]:
    """Leaf pairs 3 to 8 of the example machine and columns from -20 to 20 mm, in all intervals but where absent."""
    cells = [
        (k, r, c) for k in range(INTERVALS) for r in range(ROWS) for c in range(COLUMNS) if (k, r, c) not in set(absent)
    ]
    k, r, c = (np.array(column) for column in zip(*cells, strict=True))
    bounds = example_machine().mlc.leaf_boundaries_mm
    x1 = -20.0 + WIDTH_MM * c
    arc = arc_beams()
    beamlets = Beamlets(
        arc.middles, k.astype(np.int32), (3 + r).astype(np.int32), x1, x1 + WIDTH_MM, bounds[3 + r], bounds[4 + r]
    )
    return arc_field(beamlets, arc, 0, example_machine()), beamlets


def motion(way_mm: float = 12.0, gap_mm: float = 0.5) -> Motion:
    return Motion((-20.0, 20.0), (-20.0, 20.0), gap_mm, way_mm, 1.0, 0.4, 0.015)


def random_tips(seed: int) -> ArcTips:
    rng = np.random.default_rng(seed)
    x1, x2 = np.sort(rng.uniform(-20.0, 20.0, (2, INTERVALS + 1, ROWS)), axis=0)
    return ArcTips(x1, x2)


def test_the_share_that_opens_is_the_mean_over_the_way():
    """Against many moments. mutants: mean of both ends; tips not set back; a bank's tips that turn back"""
    field, _ = field_without()
    tips, found = random_tips(3), []
    for moment in (np.arange(4000) + 0.5) / 4000:
        x1 = tips.x1_mm[:-1] + moment * np.diff(tips.x1_mm, axis=0) - 0.4
        x2 = tips.x2_mm[:-1] + moment * np.diff(tips.x2_mm, axis=0) + 0.4
        low, high = field.x_edges_mm[:-1], field.x_edges_mm[1:]
        open_mm = np.minimum(x2[..., None], high) - np.maximum(x1[..., None], low)
        found.append(np.clip(open_mm / WIDTH_MM, 0.0, 1.0))
    moves = np.minimum(np.abs(np.diff(tips.x1_mm, axis=0)), np.abs(np.diff(tips.x2_mm, axis=0))) > LEAST_SWEEP_MM
    assert moves.sum() > 15
    np.testing.assert_allclose(open_share(tips, field, motion())[moves], np.mean(found, axis=0)[moves], atol=2e-4)


def test_tips_that_stand_still_open_what_is_between_them():
    field, _ = field_without()
    still = ArcTips(np.full((INTERVALS + 1, ROWS), -12.1), np.full((INTERVALS + 1, ROWS), 6.6))
    share = open_share(still, field, motion())
    np.testing.assert_allclose(share[0, 0], [0, 0.5, 1, 1, 1, 0.4, 0, 0], atol=0.03)  # blurred by the smallest sweep
    assert share.sum() * WIDTH_MM == pytest.approx(INTERVALS * ROWS * (6.6 + 12.1 + 0.8))


def test_the_gradient_agrees_with_finite_differences_for_tips_that_move_and_that_stand():
    # mutants: the derivative by the end at the beginning; a bank with the wrong sign; the last control point forgotten
    field, _ = field_without()
    cells = np.random.default_rng(5).normal(size=(INTERVALS, ROWS, COLUMNS))
    moving = random_tips(2)
    x1, x2 = moving.x1_mm.copy(), moving.x2_mm.copy()
    x1[:3, 0], x2[2:, 1] = -7.3, 11.2
    tips = ArcTips(x1, x2)
    found = share_gradient(tips, field, motion(), cells)
    for name, gradient in zip(("x1_mm", "x2_mm"), found, strict=True):
        for i in range(INTERVALS + 1):
            for r in range(ROWS):
                total = []
                for step in (1e-5, -1e-5):
                    moved = getattr(tips, name).copy()
                    moved[i, r] += step
                    total.append(float((cells * open_share(replace(tips, **{name: moved}), field, motion())).sum()))
                assert gradient[i, r] == pytest.approx((total[0] - total[1]) / 2e-5, abs=2e-4)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), way_mm=st.sampled_from([1.0, 12.0, 60.0]), gap_mm=st.sampled_from([0.0, 0.5, 3.0]))
def test_legal_tips_keep_to_bounds_gap_and_speed(seed: int, way_mm: float, gap_mm: float):
    # mutants: the envelope above alone (leaves bounds alone, not the gap); one pass only; order of banks not kept
    rng = np.random.default_rng(seed)
    wished = rng.uniform(-40.0, 40.0, (2, INTERVALS + 1, ROWS))
    limits = replace(motion(way_mm, gap_mm), x1_mm=(-20.0, 9.0), x2_mm=(-9.0, 20.0))
    tips = legal_tips(wished[0], wished[1], limits)
    for x, (low, high) in ((tips.x1_mm, limits.x1_mm), (tips.x2_mm, limits.x2_mm)):
        assert x.min() >= low - 1e-9 and x.max() <= high + 1e-9
        assert np.abs(np.diff(x, axis=0)).max() <= way_mm + 1e-9
    assert (tips.x2_mm - tips.x1_mm).min() >= gap_mm - 1e-9
    again = legal_tips(tips.x1_mm, tips.x2_mm, limits)
    np.testing.assert_allclose(again.x1_mm, tips.x1_mm, atol=1e-9)
    np.testing.assert_allclose(again.x2_mm, tips.x2_mm, atol=1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), way_mm=st.sampled_from([3.0, 12.0]))
def test_opened_tips_have_the_smallest_area_everywhere_and_stay_legal(seed: int, way_mm: float):
    # mutants: leaves before and after do not follow; area of closed pairs counted
    rng = np.random.default_rng(seed)
    field, _ = field_without()
    wished = np.sort(rng.uniform(-20.0, 20.0, (2, INTERVALS + 1, ROWS)), axis=0)
    wished[:, rng.integers(INTERVALS + 1)] = rng.uniform(-20.0, 20.0)
    limits = motion(way_mm)
    tips = opened(legal_tips(wished[0], wished[1], limits), field, limits)
    assert areas_cm2(tips, field, limits).min() >= limits.area_cm2 - 1e-9
    again = legal_tips(tips.x1_mm, tips.x2_mm, limits)
    np.testing.assert_allclose(again.x1_mm, tips.x1_mm, atol=1e-9)
    np.testing.assert_allclose(again.x2_mm, tips.x2_mm, atol=1e-9)


def test_the_raster_holds_every_beamlet_once_and_says_where_there_is_none():
    # mutant: beams of another arc taken in
    absent = ((0, 0, 0), (3, 5, 7), (2, 0, 7))
    field, beamlets = field_without(absent)
    assert field.beamlet.shape == (INTERVALS, ROWS, COLUMNS) and field.first_pair == 3
    assert sorted(field.beamlet[field.present]) == list(range(len(beamlets)))
    assert all(field.beamlet[at] == -1 for at in absent)
    cells = field.cells(1.0 + np.arange(len(beamlets)))
    assert all(cells[at] == 0.0 for at in absent) and cells[0, 0, 1] == 1.0
    assert field.turn_deg == pytest.approx(8.0)


def test_a_machine_that_cannot_turn_or_pass_leaves_gets_no_arcs():
    field, _ = field_without()
    machine = example_machine()
    for unable in (replace(machine, arc=None), replace(machine, mlc=replace(machine.mlc, interdigitation=False))):
        with pytest.raises(PlanningFailed) as caught:
            motion_of(field, unable)
        assert caught.value.code == "ARC_NOT_SUPPORTED"


def test_leaves_get_the_time_that_the_gantry_takes_and_banks_keep_to_their_span():
    # mutants: the whole arc's time; a window of both spans
    field, _ = field_without()
    machine = example_machine()
    found = motion_of(field, machine)
    assert found.way_mm == pytest.approx(25.0 * 8.0 / 6.0)
    narrow = motion_of(field, replace(machine, mlc=replace(machine.mlc, max_span_mm=30.0)))
    assert narrow.x1_mm == (-20.0, 10.0) and narrow.x2_mm == (-10.0, 20.0)
