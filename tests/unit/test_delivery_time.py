"""Delivery takes as long as the slowest of what moves, and no stop is passed on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rtplan.domain.beams import Beam
from rtplan.domain.example_arc import example_arc
from rtplan.domain.example_context import example_aperture, example_machine, example_plan
from rtplan.domain.plan import ControlPoint, DeliverablePlan, Segment, arc_beam, step_and_shoot_beam
from rtplan.errors import PlanningFailed
from rtplan.steps.delivery_time import BEAM_START_S, SEGMENT_PAUSE_S, delivery_time

MACHINE = example_machine()  # 600 MU/min, 6 deg/s, 25 mm/s


def plan_of(*beams):
    return DeliverablePlan("example", "6X", 1, beams)


def field(number, gantry_deg, mu=100.0):
    beam = Beam(f"B{number}", gantry_deg, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0)
    return step_and_shoot_beam(number, beam, (Segment(0, example_aperture(-20.0, 20.0), mu),))


def way_s(*angles):
    plan = plan_of(*(field(i + 1, a) for i, a in enumerate(angles)))
    return delivery_time(plan, MACHINE).between_beams_s


def test_radiation_lasts_as_the_dose_rate_gives_its_mu():
    time = delivery_time(plan_of(field(1, 0.0, 100.0)), MACHINE).beams[0]
    assert (time.radiation_s, time.moving_s, time.pauses_s) == pytest.approx((10.0, 0.0, 0.0))
    assert time.total_s == pytest.approx(10.0 + BEAM_START_S)
    faster = replace(MACHINE, max_dose_rate_mu_min=1200.0)
    assert delivery_time(plan_of(field(1, 0.0, 100.0)), faster).beams[0].radiation_s == pytest.approx(5.0)


def test_leaves_travel_and_pause_between_segments():
    # 10 mm between the two segments of 60 and 40 MU
    time = delivery_time(plan_of(example_plan().beams[0]), MACHINE).beams[0]
    assert (time.radiation_s, time.moving_s, time.pauses_s) == pytest.approx((10.0, 0.4, SEGMENT_PAUSE_S))


def test_one_aperture_in_two_steps_is_not_interrupted():
    beam = field(1, 0.0)
    first, last = beam.control_points
    split = replace(beam, control_points=(first, replace(first, cumulative_mu=30.0), last))
    assert delivery_time(plan_of(split), MACHINE).total_s == pytest.approx(delivery_time(plan_of(beam), MACHINE).total_s)


def test_the_gantry_takes_the_shorter_way_unless_a_stop_is_in_it():
    # mutant: the smaller angle between two directions: 170 to 190 degrees would be 20 degrees instead of 340
    assert way_s(0.0, 60.0) == pytest.approx(10.0)
    assert way_s(350.0, 10.0) == pytest.approx(20.0 / 6)
    assert way_s(170.0, 190.0) == pytest.approx(340.0 / 6)


def test_a_beam_at_the_stop_is_reached_from_the_nearer_side():
    assert way_s(150.0, 180.0) == pytest.approx(5.0)
    assert way_s(210.0, 180.0) == pytest.approx(5.0)
    # mutant: the first side that comes
    assert way_s(180.0, 150.0) == pytest.approx(5.0) and way_s(180.0, 210.0) == pytest.approx(5.0)
    # Greedy would come to 180 from 150, whence 181 is a whole turn away: either way one long turn is due, and only one.
    assert way_s(150.0, 180.0, 181.0) == pytest.approx((330.0 + 1.0) / 6)


def test_nine_beams_around_the_patient_pass_the_stop_once():
    assert way_s(*(40.0 * i for i in range(9))) == pytest.approx((160.0 + 320.0 + 120.0) / 6)


def test_an_arc_takes_as_long_as_its_slowest_axis_in_each_interval():
    time = delivery_time(plan_of(example_arc()), MACHINE).beams[0]
    assert (time.radiation_s, time.moving_s, time.pauses_s) == pytest.approx((40.0 / 6, 0.0, 0.0))
    slow = replace(MACHINE, mlc=replace(MACHINE.mlc, max_leaf_speed_mm_s=1.0))
    assert delivery_time(plan_of(example_arc()), slow).beams[0].radiation_s == pytest.approx(20.0)


def test_an_arc_back_begins_where_the_one_before_ended():
    there = arc(1, "CW", 181.0, 179.0)
    back, again = arc(2, "CC", 179.0, 181.0), arc(2, "CW", 181.0, 179.0)
    assert delivery_time(plan_of(there, back), MACHINE).between_beams_s == pytest.approx(0.0)
    assert delivery_time(plan_of(there, again), MACHINE).between_beams_s == pytest.approx(358.0 / 6)


def arc(number, rotation, *angles):
    points = tuple(ControlPoint(100.0 * i, a, example_aperture(-20.0, 20.0)) for i, a in enumerate(angles))
    return arc_beam(number, Beam("arc", angles[0], 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0), rotation, points)


def test_more_mu_never_take_less_time_and_more_speed_never_more():
    plan = plan_of(example_arc(), *example_plan().beams)
    total = delivery_time(plan, MACHINE).total_s
    stronger = replace(plan, beams=tuple(replace(b, control_points=_scaled(b, 3.0)) for b in plan.beams))
    assert delivery_time(stronger, MACHINE).total_s > total
    assert delivery_time(plan, replace(MACHINE, max_gantry_speed_deg_s=12.0)).total_s < total


def _scaled(beam, factor):
    return tuple(replace(p, cumulative_mu=factor * p.cumulative_mu) for p in beam.control_points)


def test_a_beam_behind_the_stop_has_no_time():
    with pytest.raises(PlanningFailed, match="GANTRY_PATH"):
        delivery_time(plan_of(arc(1, "CW", 170.0, 190.0)), MACHINE)
