"""What a machine cannot do in an arc is found, whatever way the arc is broken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rtplan.checks import OF_DELIVERY, run_checks, run_delivery_checks
from rtplan.checks.gantry_path import PLUGIN as GANTRY_PATH
from rtplan.domain.beams import beam_frame
from rtplan.domain.example_arc import example_arc_context, with_arc_point
from rtplan.domain.example_context import example_aperture
from rtplan.domain.image import DensityImage
from rtplan.domain.openings import exposed_apertures, static_segments
from rtplan.registry import shelf

CHECKS = shelf("rtplan.checks")
GOOD = example_arc_context()
ARC = GOOD.plan.beams[0]


def verdict(kind, context):
    return CHECKS[kind].check(context).passed


def with_arc(arc):
    return replace(GOOD, plan=replace(GOOD.plan, beams=(arc, *GOOD.plan.beams[1:])))


def with_angles(angles, rotation="CW"):
    """The arc over other angles, with as many control points."""
    points = tuple(replace(p, gantry_angle_deg=float(a)) for p, a in zip(ARC.control_points, angles, strict=False))
    return with_arc(
        replace(ARC, beam=replace(ARC.beam, gantry_angle_deg=float(angles[0])), control_points=points, rotation=rotation)
    )


def test_a_sound_arc_passes_the_whole_gate():
    assert [r.message for r in run_checks(GOOD) if not r.passed] == []
    assert [r.message for r in run_delivery_checks(GOOD) if not r.passed] == []
    assert {"ARC_DOSE_RATE", "ARC_MU_PER_DEGREE", "GANTRY_PATH"} <= set(OF_DELIVERY)


def test_gantry_faults_of_an_arc_are_caught():
    # mutants: turn the shorter way whatever the direction; allow no turn; leave out the machine's arc
    good, bad = GANTRY_PATH.arc_examples()
    assert verdict("GANTRY_PATH", good)
    assert [verdict("GANTRY_PATH", context) for context in bad] == [False] * 4


def test_control_points_further_apart_than_the_machine_allows_are_caught():
    assert verdict("GANTRY_PATH", with_angles(100.0 + 5.0 * np.arange(11)))
    assert not verdict("GANTRY_PATH", with_angles(100.0 + 5.5 * np.arange(11)))
    fine = replace(GOOD.machine, arc=replace(GOOD.machine.arc, max_spacing_deg=3.0))
    assert not verdict("GANTRY_PATH", replace(GOOD, machine=fine))


@pytest.mark.parametrize(
    ("first", "rotation", "passes"), [(140, "CW", True), (141, "CW", False), (220, "CC", True), (219, "CC", False)]
)
def test_an_arc_stops_at_180_degrees(first, rotation, passes):
    # mutant: compare angles in [0, 360) with the range; a quarter of the arcs then crosses the stop
    step = 4.0 if rotation == "CW" else -4.0
    assert verdict("GANTRY_PATH", with_angles((first + step * np.arange(11)) % 360.0, rotation)) is passes


def test_a_full_turn_is_no_arc_even_where_the_gantry_could_go_further():
    points = 76
    angles = (5.0 * np.arange(points)) % 360.0
    many = tuple(
        replace(ARC.control_points[0], cumulative_mu=2.0 * i, gantry_angle_deg=float(a)) for i, a in enumerate(angles)
    )
    arc = replace(ARC, beam=replace(ARC.beam, gantry_angle_deg=0.0), control_points=many)
    wide = replace(with_arc(arc), machine=replace(GOOD.machine, gantry_range_deg=(-400.0, 400.0)))
    assert not verdict("GANTRY_PATH", wide)
    short = with_arc(replace(arc, control_points=many[:72]))
    assert verdict("GANTRY_PATH", replace(short, machine=wide.machine))


def test_a_fixed_beam_behind_the_stop_is_caught():
    half = replace(GOOD.machine, gantry_range_deg=(-100.0, 60.0))
    assert not verdict("GANTRY_PATH", replace(GOOD, machine=half))


@pytest.mark.parametrize("angle", [float("nan"), 360.0, -1.0])
def test_angles_that_are_none_are_caught_at_every_control_point(angle):
    assert not verdict("GANTRY_PATH", with_arc_point(GOOD, 4, replace(ARC.control_points[4], gantry_angle_deg=angle)))


def test_a_full_turn_is_written_as_zero():
    # mutant: angles of the first control point alone; accelerators know no 360
    angles = 352.0 + 4.0 * np.arange(11)
    assert verdict("GANTRY_PATH", with_angles(angles % 360.0))
    angles[3:] %= 360.0
    assert angles[2] == 360.0 and not verdict("GANTRY_PATH", with_angles(angles))


def test_dose_rate_follows_the_slowest_axis():
    # 2 MU while the gantry turns 4 degrees at 6 a second: 180 MU/min; mutant: the fastest axis
    assert "180.0 MU/min" in CHECKS["ARC_DOSE_RATE"].check(GOOD).message
    slow = replace(GOOD.machine, max_gantry_speed_deg_s=0.9)
    assert not verdict("ARC_DOSE_RATE", replace(GOOD, machine=slow))
    creeping = replace(GOOD.machine, mlc=replace(GOOD.machine.mlc, max_leaf_speed_mm_s=0.49))
    assert not verdict("ARC_DOSE_RATE", replace(GOOD, machine=creeping)) and not verdict(
        "LEAF_SPEED", replace(GOOD, machine=creeping)
    )


def test_dose_rates_in_steps_are_the_next_below():
    stepped = replace(GOOD.machine, arc=replace(GOOD.machine.arc, dose_rates_mu_min=(75.0, 150.0, 300.0, 600.0)))
    assert "150.0 MU/min" in CHECKS["ARC_DOSE_RATE"].check(replace(GOOD, machine=stepped)).message


def test_jaws_that_outrun_their_speed_are_caught():
    # mutant: leaves alone
    last = ARC.control_points[-1]
    fast = with_arc_point(GOOD, 10, replace(last, aperture=replace(last.aperture, jaw_x1_mm=-145.0)))
    assert not verdict("LEAF_SPEED", fast) and not verdict("ARC_DOSE_RATE", fast)


def test_leaves_of_an_arc_may_be_faster_than_the_highest_dose_rate_would_allow():
    # 2 MU at 600 MU/min are 0.2 s, in which leaves go 5 mm; the arc gives them 4 s at 30 MU/min
    last = ARC.control_points[-1]
    assert verdict("LEAF_SPEED", with_arc_point(GOOD, 10, replace(last, aperture=example_aperture(-40.0, 40.0))))


@pytest.mark.parametrize("mu", [18.3, 98.1])
def test_too_few_and_too_many_mu_per_degree_are_caught(mu):
    assert not verdict("ARC_MU_PER_DEGREE", with_arc_point(GOOD, 10, replace(ARC.control_points[10], cumulative_mu=mu)))


def test_small_and_closed_apertures_within_an_arc_are_caught():
    # mutant: static segments alone
    slit = with_arc_point(GOOD, 5, replace(ARC.control_points[5], aperture=example_aperture(0.0, 1.0)))
    assert not verdict("SEGMENT_AREA", slit)
    closed = example_aperture(0.0, 0.5)
    shut = with_arc(replace(ARC, control_points=tuple(replace(p, aperture=closed) for p in ARC.control_points)))
    assert not verdict("APERTURE_OPEN", shut)


def test_an_arc_of_equal_apertures_is_no_static_segment():
    # mutant: compare apertures alone: an open arc then counts as one segment at its first angle
    same = tuple(replace(p, aperture=ARC.control_points[0].aperture) for p in ARC.control_points)
    arc = replace(ARC, control_points=same)
    assert static_segments(arc) == ()
    assert [i for i, _ in exposed_apertures(arc)] == list(range(11))
    assert not verdict("APERTURE_OPEN", with_arc(arc))  # the sentinel for lost leaf positions


def test_exposed_are_the_ends_of_what_is_given():
    mu = [0.0, 0.0, 2.0, 2.0, 2.0]
    points = tuple(replace(p, cumulative_mu=m) for p, m in zip(ARC.control_points, mu, strict=False))
    assert [i for i, _ in exposed_apertures(replace(ARC, control_points=points))] == [1, 2]


def test_dense_matter_is_seen_from_where_the_gantry_stands():
    # mutant: seen from the first angle. A rod that only the end of the arc looks at lengthwise between the jaws.
    arc = with_angles((100.0 + 4.0 * np.arange(11)) % 360.0).plan.beams[0]
    near = beam_frame(replace(arc.beam, gantry_angle_deg=140.0))
    dense = GOOD.density.mass_density_g_cm3.copy()
    z, y, x = np.meshgrid(GOOD.density.grid.z_mm(), GOOD.density.grid.y_mm(), GOOD.density.grid.x_mm(), indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    bev_x, bev_y, _ = near.to_bev(points)
    first_x, _, _ = beam_frame(arc.beam).to_bev(points)
    dense[(np.abs(bev_x - 19.0) < 17.0) & (np.abs(bev_y) < 10.0) & (np.abs(first_x - 10.0) > 34.0)] = 4.5
    assert (dense > 4).sum() > 10
    found = replace(with_arc(arc), density=DensityImage(GOOD.density.grid, dense, dense))
    found = replace(found, plan=replace(found.plan, beams=found.plan.beams[:1]))
    assert [f.code for f in CHECKS["HIGH_DENSITY"].check(found).findings] == ["HIGH_DENSITY"]
