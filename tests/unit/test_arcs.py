"""Arcs in the plan: which way they turn, what they are made into for the dose, and what they are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rtplan.domain.beams import Beam
from rtplan.domain.example_arc import example_arc
from rtplan.domain.example_context import example_aperture, example_machine, example_plan
from rtplan.domain.motion import dose_rate_mu_min, gantry_paths_deg, interval_seconds, intervals
from rtplan.domain.openings import open_area_cm2
from rtplan.domain.plan import ControlPoint, DeliverablePlan, PlanBeam, arc_beam
from rtplan.errors import PlanningFailed
from rtplan.planning import plan_segments
from rtplan.steps.final_dose import scaled_plan
from rtplan.steps.fluence import beam_fluence, plan_fluence

MACHINE = example_machine()


def arc_over(angles, rotation, mu_step=2.0):
    points = tuple(ControlPoint(mu_step * i, float(a), example_aperture(-20.0 + i, 20.0)) for i, a in enumerate(angles))
    return arc_beam(1, Beam("arc", float(angles[0]), 30.0, 0.0, (1.0, 2.0, 3.0), 1000.0), rotation, points)


@pytest.mark.parametrize(
    ("angles", "rotation", "turns"),
    [
        ([350.0, 355.0, 0.0, 4.0], "CW", [5.0, 5.0, 4.0]),
        ([4.0, 0.0, 355.0], "CC", [-4.0, -5.0]),
        ([181.0, 179.0], "CW", [358.0]),
        ([181.0, 179.0], "CC", [-2.0]),
        ([10.0, 8.0, 12.0], "CW", [358.0, 4.0]),
    ],
)
def test_an_arc_turns_in_its_direction_and_no_other(angles, rotation, turns):
    # mutant: the shorter way, which makes the arc from 181 to 179 one of 2 degrees
    assert arc_over(angles, rotation).turns_deg == pytest.approx(turns)


def test_rounding_is_no_full_turn():
    assert arc_over([10.0, 10.0 - 1e-9, 12.0], "CW").turns_deg == pytest.approx([0.0, 2.0])


def test_what_is_no_arc_is_refused():
    points = example_arc().control_points
    for rotation, chosen in (("NONE", points), ("CW", points[:1]), ("CW", points[1:])):
        with pytest.raises(ValueError, match="beam 1"):
            arc_beam(1, example_arc().beam, rotation, chosen)


def test_steps_that_know_only_segments_refuse_arcs():
    # mutant: plan_segments without the question: the arc is left out of the plan without a word
    mixed = replace(example_plan(), beams=(*example_plan().beams, example_arc(3)))
    with pytest.raises(PlanningFailed, match="ARC_NOT_SUPPORTED"):
        plan_segments(mixed)
    assert len(plan_segments(example_plan())) == 4


def test_scaling_keeps_an_arc_an_arc():
    plan = DeliverablePlan("example", "6X", 30, (example_arc(),))
    twice = scaled_plan(plan, 2.0).beams[0]
    assert twice.is_arc and twice.mu == 2 * example_arc().mu
    np.testing.assert_array_equal(twice.turns_deg, example_arc().turns_deg)


def test_every_interval_is_a_map_at_its_middle():
    # mutant: the angle of the interval's beginning
    arc = arc_over([356.0, 358.0, 0.0, 2.0], "CW")
    maps = beam_fluence(arc, MACHINE)
    assert [m.beam.gantry_angle_deg for m in maps] == pytest.approx([357.0, 359.0, 1.0])
    assert all(m.of_arc and m.beam.collimator_angle_deg == 30.0 and m.beam.isocentre_xyz_mm == (1, 2, 3) for m in maps)
    assert [f.of_arc for f in plan_fluence(example_plan(), MACHINE)] == [False, False]


def test_wide_intervals_are_cut_and_nothing_is_lost():
    # mutants: MU of an interval given to each of its parts; parts with the interval's own ends
    arc = arc_over([100.0, 95.0, 90.0], "CC", 6.0)
    maps = beam_fluence(arc, MACHINE)
    assert [m.beam.gantry_angle_deg for m in maps] == pytest.approx([100 - 5 / 6 - 5 / 3 * i for i in range(6)])
    dark = replace(
        MACHINE, mlc=replace(MACHINE.mlc, transmission=0.0, min_gap_mm=0.0), jaws=replace(MACHINE.jaws, transmission=0.0)
    )
    areas = [
        float((m.fluence_mu * np.outer(np.diff(m.y_edges_mm), np.diff(m.x_edges_mm))).sum()) for m in beam_fluence(arc, dark)
    ]
    openings = [100 * open_area_cm2(example_aperture(-20.0 + s, 20.0), dark.mlc) for s in (np.arange(6) + 0.5) / 3]
    assert areas == pytest.approx([2.0 * a for a in openings], rel=1e-9)


def test_maps_of_an_arc_together_are_the_map_of_the_same_leaves_at_rest():
    points = example_arc().control_points
    still = PlanBeam(1, example_arc().beam, tuple(replace(p, gantry_angle_deg=350.0) for p in points))
    (whole,) = beam_fluence(still, MACHINE)
    total = 0.0
    for one in beam_fluence(example_arc(), MACHINE):
        grown = np.zeros((400, 400))
        row, column = int(one.y_edges_mm[0]) + 200, int(one.x_edges_mm[0]) + 200
        grown[row : row + one.fluence_mu.shape[0], column : column + one.fluence_mu.shape[1]] = one.fluence_mu
        total = total + grown
    row, column = int(whole.y_edges_mm[0]) + 200, int(whole.x_edges_mm[0]) + 200
    part = total[row : row + whole.fluence_mu.shape[0], column : column + whole.fluence_mu.shape[1]]
    np.testing.assert_allclose(part, whole.fluence_mu, atol=2e-3)


def test_leaf_leakage_of_an_arc_is_not_negligible():
    # mutant: negligible measured on the beam's MU: the leakage of one map of many is below 1e-4 of them
    many = tuple(ControlPoint(0.5 * i, (180.5 + i) % 360, example_aperture(-5.0, 5.0 + 0.1 * (i % 2))) for i in range(350))
    arc = arc_beam(1, Beam("arc", 180.5, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0), "CW", many)
    first = beam_fluence(arc, MACHINE)[0]
    assert first.x_edges_mm[0] == -40.0
    assert first.fluence_mu[25, 0] == pytest.approx(0.5 * MACHINE.mlc.transmission)


def test_a_gantry_that_moves_without_a_direction_is_refused():
    undeclared = replace(example_arc(), rotation="NONE")
    with pytest.raises(PlanningFailed, match="GANTRY_MOVES"):
        beam_fluence(undeclared, MACHINE)


def test_no_map_where_nothing_is_given():
    arc = arc_over([10.0, 12.0, 14.0], "CW")
    points = (arc.control_points[0], replace(arc.control_points[1], cumulative_mu=0.0), arc.control_points[2])
    assert [m.beam.gantry_angle_deg for m in beam_fluence(replace(arc, control_points=points), MACHINE)] == [13.0]


def test_an_interval_takes_as_long_as_its_slowest_axis():
    (first, *_) = intervals(example_arc())
    assert (first.turn_deg, first.leaf_mm, first.jaw_mm, first.mu) == (4.0, 2.0, 0.0, 2.0)
    assert interval_seconds(first, MACHINE) == pytest.approx(4.0 / 6.0)
    assert interval_seconds(replace(first, leaf_mm=50.0), MACHINE) == pytest.approx(2.0)
    assert interval_seconds(replace(first, jaw_mm=75.0), MACHINE) == pytest.approx(3.0)
    assert interval_seconds(replace(first, mu=40.0), MACHINE) == pytest.approx(4.0)
    assert interval_seconds(replace(first, mu=0.0), MACHINE) == pytest.approx(4.0 / 6.0)


def test_the_dose_rate_gives_way_to_what_moves_and_is_never_above_the_highest():
    (first, *_) = intervals(example_arc())
    assert dose_rate_mu_min(first, MACHINE) == pytest.approx(180.0)
    assert dose_rate_mu_min(replace(first, mu=40.0), MACHINE) == 600.0
    stepped = replace(MACHINE, arc=replace(MACHINE.arc, dose_rates_mu_min=(75.0, 150.0, 600.0)))
    assert dose_rate_mu_min(first, stepped) == 150.0
    assert interval_seconds(first, stepped) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("angles", "rotation", "paths"),
    [
        ([181.0, 90.0, 179.0], "CW", [(-179.0, 179.0)]),
        ([179.0, 90.0, 181.0], "CC", [(179.0, -179.0)]),
        ([180.0, 182.0], "CW", [(-180.0, -178.0)]),
        ([180.0, 178.0], "CC", [(180.0, 178.0)]),
        ([178.0, 182.0], "CW", []),
    ],
)
def test_the_gantry_passes_between_its_stops(angles, rotation, paths):
    # mutant: angles of [0, 360) compared with the range
    found = gantry_paths_deg(arc_over(angles, rotation), MACHINE)
    assert len(found) == len(paths)
    for one, expected in zip(found, paths, strict=True):
        assert one == pytest.approx(expected)


def test_a_fixed_beam_at_the_stop_is_reached_from_either_side():
    beam = replace(example_plan().beams[0].beam, gantry_angle_deg=180.0)
    points = tuple(replace(p, gantry_angle_deg=180.0) for p in example_plan().beams[0].control_points)
    assert gantry_paths_deg(PlanBeam(1, beam, points), MACHINE) == ((-180.0, -180.0), (180.0, 180.0))
