"""Every plan check on the shelf fires on its bad example and stays quiet on its good one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rtplan.checks import run_checks
from rtplan.checks.aperture_open import PLUGIN as APERTURE_OPEN
from rtplan.domain.dose import Dose
from rtplan.domain.example_context import (
    example_aperture,
    example_context,
    with_beam,
    with_control_point,
    with_first_segment,
)
from rtplan.domain.openings import open_area_cm2, static_segments
from rtplan.registry import shelf

CHECKS = shelf("rtplan.checks")


def verdict(kind, context):
    return CHECKS[kind].check(context).passed


def test_the_shelf_holds_the_checks_that_safety_needs():
    needed = {"MLC_PAIRS", "MLC_TRAVEL", "MLC_GAP", "MLC_SPAN", "INTERDIGITATION", "JAW", "MU_RANGE", "METERSET"}
    needed |= {"APERTURE_OPEN", "SEGMENT_AREA", "LEAF_SPEED", "GANTRY_PATH", "ISOCENTRE", "MACHINE_MODEL"}
    needed |= {"DOSE_IMPLAUSIBLE", "DOSE_GRID", "DOSE_SUM"}
    needed |= {"SMALL_FIELD", "LARGE_FIELD", "HIGH_DENSITY", "BEAM_ENERGY"}
    assert needed <= set(CHECKS)


@pytest.mark.parametrize("kind", sorted(CHECKS))
def test_fires_on_its_bad_example_and_not_on_its_good_one(kind):
    good, bad = CHECKS[kind].example()
    passed, failed = CHECKS[kind].check(good), CHECKS[kind].check(bad)
    assert passed.passed is True and passed.check_id == kind and passed.message and not passed.findings
    # What is no fault but beyond what the engine was compared with passes with a finding.
    assert failed.passed is False or failed.findings
    assert failed.check_id == kind and failed.message


def test_the_sound_plan_passes_the_whole_gate():
    assert [r.check_id for r in run_checks(example_context()) if not r.passed] == []


def test_a_check_that_breaks_down_has_failed():
    broken = replace(example_context(), structures=None)
    failed = {r.check_id for r in run_checks(broken) if not r.passed}
    assert "ISOCENTRE" in failed and "DOSE_GRID" in failed
    assert len(run_checks(broken)) == len(CHECKS)


def test_leaves_that_never_move_in_a_modulated_beam_are_caught():
    # The St Vincent's class: control points lost, the field stands open.
    assert not verdict("APERTURE_OPEN", APERTURE_OPEN.frozen_example())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_dose_that_is_not_a_dose_is_caught(value):
    good = example_context()
    dose = good.dose.dose_gy.copy()
    dose[0, 0, 0] = value
    assert not verdict("DOSE_IMPLAUSIBLE", replace(good, dose=Dose(good.dose.grid, dose)))


def test_dose_scaled_by_a_hundredth_is_caught():
    good = example_context()
    assert not verdict("DOSE_IMPLAUSIBLE", replace(good, dose=Dose(good.dose.grid, good.dose.dose_gy / np.float32(100))))


@pytest.mark.parametrize("mu", [0.0, -5.0, float("nan"), 1000.1])
def test_last_meterset_out_of_range_is_caught(mu):
    good = example_context()
    point = good.plan.beams[0].control_points[3]
    assert not verdict("MU_RANGE", with_control_point(good, 3, replace(point, cumulative_mu=mu)))


def test_leaf_position_that_is_not_a_number_is_caught():
    aperture = example_aperture(-20, 20)
    tips = aperture.leaf_x1_mm.copy()
    tips[3] = np.nan
    assert not verdict("MLC_PAIRS", with_first_segment(example_context(), replace(aperture, leaf_x1_mm=tips)))


def test_jaw_faults_are_caught_and_a_jaw_defined_open_field_is_not():
    good = example_context()
    aperture = example_aperture(-20, 20)
    for change in ({"jaw_x1_mm": 30.0}, {"jaw_y2_mm": 46.0}, {"jaw_y1_mm": 26.0}, {"jaw_x2_mm": 19.0}, {"jaw_y2_mm": 20.0}):
        assert not verdict("JAW", with_first_segment(good, replace(aperture, **change))), change
    beam = good.plan.beams[0]
    wide = replace(example_aperture(-60, 60), jaw_y1_mm=-20.0, jaw_y2_mm=20.0)
    static = replace(beam, control_points=tuple(replace(p, aperture=wide) for p in beam.control_points[:2]))
    assert verdict("JAW", with_beam(good, 0, static))


def test_jaws_open_beyond_the_leaves_are_caught():
    good = example_context()
    jaws = replace(good.machine.jaws, y2_range_mm=(-20.0, 200.0))
    wide = replace(good, machine=replace(good.machine, jaws=jaws))
    assert not verdict("JAW", with_first_segment(wide, replace(example_aperture(-20, 20), jaw_y2_mm=46.0)))


def test_isocentre_outside_the_body_is_caught():
    good = example_context()
    for at in ((70.0, 0.0, 0.0), (-59.0, 0.0, 0.0), (float("nan"), 0.0, 0.0)):
        moved = good
        for i, b in enumerate(good.plan.beams):
            moved = with_beam(moved, i, replace(b, beam=replace(b.beam, isocentre_xyz_mm=at)))
        assert not verdict("ISOCENTRE", moved), at


def test_open_area_counts_only_what_leaves_and_jaws_leave_free():
    mlc = example_context().machine.mlc
    aperture = example_aperture(-20, 20)
    assert open_area_cm2(aperture, mlc) == pytest.approx(4.0 * 5.0)
    assert open_area_cm2(replace(aperture, jaw_x1_mm=0.0, jaw_y2_mm=0.0), mlc) == pytest.approx(2.0 * 2.5)
    assert open_area_cm2(example_aperture(0, 0.5), mlc) == 0.0


def test_segments_are_what_stands_still_while_mu_are_given():
    beam = example_context().plan.beams[0]
    assert [mu for _, mu in static_segments(beam)] == [60.0, 40.0]
    split = replace(beam.control_points[1], cumulative_mu=20.0)
    points = (beam.control_points[0], split, *beam.control_points[1:])
    assert [mu for _, mu in static_segments(replace(beam, control_points=points))] == [60.0, 40.0]


def test_parts_that_lack_a_beam_or_hold_the_whole_plan_are_caught():
    # mutants: the parts' doses alone are added up; one part of all beams, which is the plan's dose again
    good = example_context()
    first, second = good.part_doses
    assert not verdict("DOSE_SUM", replace(good, part_doses=(first, replace(second, beam_numbers=(3,)))))
    assert not verdict("DOSE_SUM", replace(good, part_doses=(replace(first, beam_numbers=(1, 2), dose=good.dose),)))
    assert not verdict("DOSE_SUM", replace(good, part_doses=(first,)))
