"""Fluence of a plan is what its apertures let through, to rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rtplan.domain.beams import Beam
from rtplan.domain.example_context import example_aperture, example_machine, example_plan
from rtplan.domain.openings import open_area_cm2
from rtplan.domain.plan import Aperture, ControlPoint, DeliverablePlan, PlanBeam, Segment, step_and_shoot_beam
from rtplan.errors import PlanningFailed
from rtplan.steps.fluence import plan_fluence

BEAM = Beam("B", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)


def dark_machine(leaf=0.0, jaw=0.0):
    machine = example_machine()
    return replace(machine, mlc=replace(machine.mlc, transmission=leaf), jaws=replace(machine.jaws, transmission=jaw))


def fluence_of(points, machine, pixel_mm=1.0):
    plan = DeliverablePlan("example", "6X", 1, (PlanBeam(1, BEAM, tuple(points)),))
    return plan_fluence(plan, machine, pixel_mm=pixel_mm)[0]


def static(aperture, machine, mu=1.0, pixel_mm=1.0):
    return fluence_of([ControlPoint(0.0, 0.0, aperture), ControlPoint(mu, 0.0, aperture)], machine, pixel_mm)


def at(field, x_mm, y_mm):
    """Fluence of the pixel that holds a point; zero outside the map."""
    i = np.searchsorted(field.y_edges_mm, y_mm, side="right") - 1
    j = np.searchsorted(field.x_edges_mm, x_mm, side="right") - 1
    inside = 0 <= i < field.fluence_mu.shape[0] and 0 <= j < field.fluence_mu.shape[1]
    return float(field.fluence_mu[i, j]) if inside else 0.0


def integral(field):
    return float((field.fluence_mu * np.outer(np.diff(field.y_edges_mm), np.diff(field.x_edges_mm))).sum())


def ragged(seed=1):
    rng = np.random.default_rng(seed)
    x1 = rng.uniform(-30, 0, 14)
    return Aperture(x1, x1 + rng.uniform(0.5, 30, 14), -29.3, 28.7, -33.1, 31.9)


@pytest.mark.parametrize("pixel_mm", [1.0, 2.5, 0.7])
def test_integral_is_mu_times_open_area(pixel_mm):
    # mutant: pixels lit by their centre only
    machine = dark_machine()
    machine = replace(machine, mlc=replace(machine.mlc, min_gap_mm=0.0))
    aperture = ragged()
    expected = 7.0 * open_area_cm2(aperture, machine.mlc) * 100
    assert integral(static(aperture, machine, 7.0, pixel_mm)) == pytest.approx(expected, rel=1e-12)


def test_half_covered_pixels():
    field = static(replace(example_aperture(-20.5, 20.25), jaw_y1_mm=-24.25), dark_machine())
    assert at(field, 0.5, 0.5) == 1.0
    assert at(field, -20.5, 0.5) == pytest.approx(0.5, abs=1e-12)
    assert at(field, 20.5, 0.5) == pytest.approx(0.25, abs=1e-12)
    assert at(field, 0.5, -24.5) == pytest.approx(0.25, abs=1e-12)
    assert at(field, -20.5, -24.5) == pytest.approx(0.125, abs=1e-12)


def test_x_and_y_are_not_exchanged_and_pairs_count_from_negative_y():
    x1, x2 = np.full(14, 45.0), np.full(14, 45.5)
    x1[1], x2[1] = 5.0, 15.0  # the 10 mm pair from y = -35 to -25
    field = static(Aperture(x1, x2, -40.0, 40.0, -45.0, 45.0), dark_machine())
    assert integral(field) == pytest.approx(100.0)
    assert at(field, 10.0, -30.0) == 1.0 and at(field, 10.0, 30.0) == 0.0 and at(field, -30.0, 10.0) == 0.0


def test_transmissions_multiply_where_leaves_and_jaws_overlap():
    # mutant: leaves do not shield under the jaws
    field = static(example_aperture(-20, 20), dark_machine(leaf=0.02, jaw=0.1), mu=100.0)
    assert at(field, 0.5, 0.5) == pytest.approx(100.0)
    assert at(field, 30.5, 0.5) == pytest.approx(2.0)  # leaf
    assert at(field, 50.5, 0.5) == pytest.approx(0.2)  # leaf and X jaw
    assert at(field, 0.5, 30.5) == pytest.approx(0.2)  # leaf and Y jaw
    assert at(field, 50.5, 30.5) == pytest.approx(0.02)  # leaf and both jaws
    assert at(field, 45.25, 30.5) == pytest.approx(
        0.5 * 1.0 + 0.5 * 0.02
    )  # half a pixel of closed pair's gap under both jaws


def test_a_map_leaves_out_only_the_negligible():
    machine = example_machine()
    aperture = example_aperture(-20, 20)
    x1, x2 = aperture.leaf_x1_mm.copy(), aperture.leaf_x2_mm.copy()
    x1[7], x2[7] = 45.0, 45.5  # closed under the X2 jaw, between the Y jaws
    field = static(replace(aperture, leaf_x1_mm=x1, leaf_x2_mm=x2), machine, mu=100.0)
    assert field.x_edges_mm[0] == -40 and field.x_edges_mm[-1] == 46
    assert at(field, 45.5, 2.5) == pytest.approx(100 * 0.004 * (0.5 + 0.5 * 0.015))
    everything = static(example_aperture(-200, 200), dark_machine(leaf=0.5, jaw=0.5))
    assert (everything.x_edges_mm[0], everything.x_edges_mm[-1]) == (-200.0, 200.0)


def test_bare_beam_beyond_the_outermost_leaf():
    machine = dark_machine(leaf=0.02)
    machine = replace(machine, jaws=replace(machine.jaws, y2_range_mm=(-20.0, 80.0)))
    closed = replace(example_aperture(0.0, 0.5), jaw_y2_mm=60.0)
    field = static(closed, machine)
    assert at(field, 20.5, 50.5) == pytest.approx(1.0) and at(field, 20.5, 40.5) == pytest.approx(0.02)


def test_segments_add_by_their_mu():
    machine = example_machine()
    segments = (Segment(0, example_aperture(-20, 20), 60.0), Segment(0, example_aperture(0, 20), 40.0))
    plan = DeliverablePlan("example", "6X", 1, (step_and_shoot_beam(1, BEAM, segments),))
    field = plan_fluence(plan, machine)[0]
    assert at(field, 10.5, 0.5) == pytest.approx(100.0)
    assert at(field, -10.5, 0.5) == pytest.approx(60.0 + 40.0 * machine.mlc.transmission)


def test_moving_leaf_gives_a_linear_ramp():
    start, end = example_aperture(-20, -20 + 0.5), example_aperture(-20, 20)
    field = fluence_of([ControlPoint(0.0, 0.0, start), ControlPoint(10.0, 0.0, end)], dark_machine())
    for x in (-15.5, 0.5, 18.5):
        assert at(field, x, 0.5) == pytest.approx(10.0 * (20.0 - x) / 39.5, rel=1e-12)
    assert at(field, -19.75, 0.5) == pytest.approx(10.0 * (0.5 + 0.5 * (1 - 0.25 / 39.5)), rel=1e-12)


def test_sliding_window_equals_many_still_steps():
    machine = example_machine()
    start, end = ragged(2), ragged(3)
    exact = fluence_of([ControlPoint(0.0, 0.0, start), ControlPoint(5.0, 0.0, end)], machine)
    steps = 4000
    total = np.zeros((80, 100))
    y_edges, x_edges = np.linspace(-40, 40, 81), np.linspace(-50, 50, 101)

    def sampled(fraction):
        x1 = start.leaf_x1_mm + fraction * (end.leaf_x1_mm - start.leaf_x1_mm)
        x2 = start.leaf_x2_mm + fraction * (end.leaf_x2_mm - start.leaf_x2_mm)
        return x1, x2

    # An independent sum: a fine ray per 0.1 mm in x, pixel rows inside one leaf pair only.
    rays = np.linspace(-50, 50, 1001)[:-1] + 0.05
    pair = np.searchsorted(machine.mlc.leaf_boundaries_mm, (y_edges[:-1] + y_edges[1:]) / 2, side="right") - 1
    lit = np.zeros((14, 1000))
    for k in range(steps):
        x1, x2 = sampled((k + 0.5) / steps)
        lit += (rays > x1[:, None]) & (rays < x2[:, None])
    lit = machine.mlc.transmission + (1 - machine.mlc.transmission) * lit / steps
    lit *= np.where((rays > -29.3) & (rays < 28.7), 1.0, machine.jaws.transmission)
    total = 5.0 * lit.reshape(14, 100, 10).mean(axis=2)[pair]
    for i, y in enumerate((y_edges[:-1] + y_edges[1:]) / 2):
        if -33 < y < 31:
            for j, x in enumerate((x_edges[:-1] + x_edges[1:]) / 2):
                assert at(exact, x, y) == pytest.approx(total[i, j], abs=0.02)


def test_a_leaf_that_comes_out_from_under_a_jaw_is_late():
    # mutant: the interval taken in one piece
    start, end = example_aperture(-60, 60), example_aperture(20, 60)
    field = fluence_of([ControlPoint(0.0, 0.0, start), ControlPoint(10.0, 0.0, end)], dark_machine())
    for x in (-38.5, 0.5, 18.5):
        assert at(field, x, 0.5) == pytest.approx(10.0 * (x + 60.0) / 80.0, rel=1e-9)


def test_moving_jaws_are_followed():
    start, end = example_aperture(-60, 60), replace(example_aperture(-60, 60), jaw_x1_mm=0.0)
    field = fluence_of([ControlPoint(0.0, 0.0, start), ControlPoint(10.0, 0.0, end)], dark_machine())
    assert at(field, -20.0, 0.5) == pytest.approx(10.0 * (40.0 - 19.5) / 40.0, rel=1e-6)
    assert integral(field) == pytest.approx(10.0 * 50.0 * (80.0 + 40.0) / 2, rel=1e-6)


def test_what_a_map_cannot_hold_is_refused():
    a = example_aperture(-20, 20)
    short = Aperture(a.leaf_x1_mm[:-1], a.leaf_x2_mm[:-1], -40.0, 40.0, -25.0, 25.0)
    cases = {
        "GANTRY_MOVES": [ControlPoint(0.0, 0.0, a), ControlPoint(1.0, 2.0, a)],
        "METERSET_FALLS": [ControlPoint(0.0, 0.0, a), ControlPoint(2.0, 0.0, a), ControlPoint(1.0, 0.0, a)],
        "MLC_PAIRS": [ControlPoint(0.0, 0.0, short), ControlPoint(1.0, 0.0, short)],
    }
    for code, points in cases.items():
        with pytest.raises(PlanningFailed) as caught:
            fluence_of(points, example_machine())
        assert caught.value.code == code


def test_one_map_per_beam_in_order():
    maps = plan_fluence(example_plan(), example_machine())
    assert [m.beam.name for m in maps] == ["Beam 1", "Beam 2"]
