"""Fields, densities and energies beyond what the engine was compared with are told, and ordinary plans are left in peace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rtplan.checks import OF_DELIVERY, run_checks, run_delivery_checks
from rtplan.checks._opening import Opening, beam_opening, opening, swept
from rtplan.checks.high_density import PLUGIN as HIGH_DENSITY
from rtplan.checks.large_field import PLUGIN as LARGE_FIELD
from rtplan.checks.small_field import PLUGIN as SMALL_FIELD
from rtplan.domain.context import Delivery
from rtplan.domain.example_context import example_aperture, example_context, with_beam, with_first_segment
from rtplan.domain.grid import Grid
from rtplan.domain.image import DensityImage
from rtplan.domain.plan import Aperture, ControlPoint, Segment, step_and_shoot_beam
from rtplan.errors import CaseRejected
from rtplan.registry import shelf
from rtplan.steps.recalculation import delivery_findings, isocentre_findings

MLC = example_context().machine.mlc


def rectangle(x_mm: float, y_mm: float) -> Aperture:
    """Open leaves under jaws that make a rectangle around the axis."""
    return Aperture(np.full(14, -100.0), np.full(14, 100.0), -x_mm / 2, x_mm / 2, -y_mm / 2, y_mm / 2)


def width(*apertures: Aperture) -> float:
    return opening(apertures, MLC).width_mm()


@pytest.mark.parametrize(("x_mm", "y_mm"), [(30, 30), (12, 80), (80, 12), (29, 80), (40, 7)])
def test_a_rectangle_is_as_wide_as_its_shorter_side(x_mm: float, y_mm: float):
    # mutant: side of the square of equal area; the border of the array not taken as an edge
    assert width(rectangle(x_mm, y_mm)) == pytest.approx(min(x_mm, y_mm), abs=0.01)


def test_a_disc_is_as_wide_as_its_diameter_and_nothing_has_no_width():
    # mutant: side of the inscribed square
    y, x = np.mgrid[-25:25:0.5, -25:25:0.5] + 0.25
    assert Opening(-24.75, -24.75, x**2 + y**2 < 20**2).width_mm() == pytest.approx(40.0, abs=1.0)
    assert Opening(0.0, 0.0, np.zeros((4, 4), dtype=bool)).width_mm() == 0.0


def test_islands_do_not_add_up_and_neighbours_do():
    # mutant: box around the opening
    left, right = example_aperture(-30.0, -15.0), example_aperture(15.0, 30.0)
    assert width(left, right) == pytest.approx(15.0, abs=0.01)
    assert width(example_aperture(-15.0, 0.0), example_aperture(0.0, 15.0)) == pytest.approx(30.0, abs=0.01)


def test_a_moving_slit_opens_all_that_it_passes_and_closed_pairs_open_nothing():
    # mutant: the first aperture for the whole span; closed pairs swept as if they were open
    start, end = example_aperture(-20.0, -15.0), example_aperture(15.0, 20.0)
    assert width(swept(start, end, MLC)) == pytest.approx(40.0, abs=0.01)
    closed = [replace(a, leaf_x2_mm=a.leaf_x1_mm + 0.5) for a in (start, end)]
    assert width(swept(*closed, MLC)) == 0.0


def test_an_opening_knows_which_points_it_holds():
    # mutant: x and y exchanged
    found = opening([rectangle(40, 10)], MLC).holds(np.array([15.0, 2.0, -19.0, 25.0]), np.array([2.0, 15.0, -4.0, 0.0]))
    assert found.tolist() == [True, False, True, False]


def test_a_beam_that_gives_nothing_opens_nothing():
    # mutant: spans without MU counted
    beam = example_context().plan.beams[0]
    still = replace(beam, control_points=tuple(replace(p, cumulative_mu=0.0) for p in beam.control_points))
    assert beam_opening(still, MLC) is None


def codes(plugin, context) -> list[tuple[str, str]]:
    return [(f.code, f.severity) for f in plugin.check(context).findings]


def beams_of(*openings: tuple[float, float]):
    """The example with a first beam of these openings, 10 MU each; 50 mm high."""
    good = example_context()
    segments = tuple(Segment(0, example_aperture(*limits), 10.0) for limits in openings)
    return with_beam(good, 0, step_and_shoot_beam(1, good.plan.beams[0].beam, segments))


def test_the_smallest_validated_field_is_no_small_field_and_one_below_is():
    # mutant: <= 30 mm; 10 % of slack
    assert codes(SMALL_FIELD, beams_of((-15.0, 15.0))) == []
    assert codes(SMALL_FIELD, beams_of((-14.5, 14.5))) == [("SMALL_FIELD", "flag"), ("SMALL_SEGMENTS", "info")]


def test_small_segments_of_a_wide_beam_are_counted_once_and_flag_nothing():
    # mutant: a finding for each segment; the narrowest segment judged as the beam
    strips = [(x, x + 10.0) for x in np.arange(-20.0, 20.0, 10.0)]
    result = SMALL_FIELD.check(beams_of(*strips, (-20.0, 20.0)))
    (finding,) = result.findings
    assert (finding.code, finding.severity) == ("SMALL_SEGMENTS", "info")
    # 40 of the first beam's 50 MU; the second beam's 100 MU go through wide openings.
    assert finding.message.startswith("4 of 7 segments, 27 % of the MU") and "narrowest 10.0 mm" in finding.message


def test_the_largest_validated_field_is_no_large_field_and_one_beyond_is():
    # mutant: shorter side for longer
    def field(half_mm: float):
        return with_first_segment(
            example_context(), replace(example_aperture(-half_mm, half_mm), jaw_x1_mm=-half_mm, jaw_x2_mm=half_mm)
        )

    assert codes(LARGE_FIELD, field(100.0)) == []
    assert codes(LARGE_FIELD, field(101.0)) == [("LARGE_FIELD", "flag")]


def dense_at(where: tuple[slice, slice, slice], density: float):
    good = example_context()
    mass = good.density.mass_density_g_cm3.copy()
    mass[where] = density
    return replace(good, density=DensityImage(good.density.grid, mass, mass))


def test_dense_matter_counts_in_the_openings_of_the_beams_that_pass_it():
    # mutant: the whole volume whatever the beams hit; beams on the far side of it left out
    (finding,) = HIGH_DENSITY.check(HIGH_DENSITY.example()[1]).findings
    assert finding.message.startswith("2.0 cc above 1.85 g/cm³, up to 4.50, in the opening of beam 1, 2;")
    # 40 mm to the patient's left of the axis: only the beam from there passes it.
    (finding,) = HIGH_DENSITY.check(dense_at(np.s_[14:16, 14:16, 24:28], 2.5)).findings
    assert "in the opening of beam 2;" in finding.message
    # 44 mm superior of the axis: beside both.
    assert codes(HIGH_DENSITY, dense_at(np.s_[26:28, 14:16, 14:16], 2.5)) == []


def test_a_voxel_or_two_and_bone_as_it_was_validated_are_no_finding():
    # mutant: any voxel; > 1.8
    assert codes(HIGH_DENSITY, dense_at(np.s_[14, 14, 14], 2.5)) == []
    assert codes(HIGH_DENSITY, dense_at(np.s_[10:20, 10:20, 10:20], 1.85)) == []


def bare(context) -> Delivery:
    return Delivery(context.plan, context.machine, context.density)


def test_the_checks_of_a_delivery_need_nothing_but_the_delivery():
    # mutant: a check that needs the dose in the list
    for context in (example_context(), SMALL_FIELD.example()[1]):
        whole = {r.check_id: r for r in run_checks(context)}
        assert [r for r in run_delivery_checks(bare(context)) if r != whole[r.check_id]] == []


def test_every_check_that_could_be_made_on_a_delivery_is():
    # mutant: one left out
    possible = {r.check_id for r in (_alone(kind) for kind in shelf("rtplan.checks")) if r.passed}
    assert possible == set(OF_DELIVERY)


def _alone(kind: str):
    import rtplan.checks

    return rtplan.checks._run(kind, shelf("rtplan.checks")[kind], bare(example_context()))


def test_limits_that_leave_the_dose_alone_are_findings_of_a_recalculation():
    # mutant: only the findings of checks that the plan passed
    strong = beams_of((-15.0, 15.0))
    beam = strong.plan.beams[0]
    points = tuple(replace(p, cumulative_mu=200.0 * p.cumulative_mu) for p in beam.control_points)
    found = delivery_findings(bare(with_beam(strong, 0, replace(beam, control_points=points))))
    assert [(f.code, f.severity) for f in found] == [("MU_RANGE", "flag")]
    assert delivery_findings(bare(example_context())) == ()


@pytest.mark.parametrize("kind", ["MLC_TRAVEL", "MLC_PAIRS", "METERSET"])
def test_what_the_machine_does_not_have_is_refused(kind: str):
    # mutant: a finding instead
    with pytest.raises(CaseRejected) as caught:
        delivery_findings(bare(shelf("rtplan.checks")[kind].example()[1]))
    assert caught.value.code == kind


@pytest.mark.parametrize("name", ["jaw_x1_mm", "jaw_x2_mm", "jaw_y1_mm", "jaw_y2_mm"])
def test_a_jaw_beyond_its_range_is_refused_and_one_inside_the_leaves_is_not(name: str):
    # mutant: everything that JAW finds refused; one jaw not looked at
    good = example_context()
    first: ControlPoint = good.plan.beams[0].control_points[0]
    beyond = with_first_segment(good, replace(first.aperture, **{name: 200.1 if "2" in name else -200.1}))
    with pytest.raises(CaseRejected) as caught:
        delivery_findings(bare(beyond))
    assert caught.value.code == "JAW"
    inside = with_first_segment(good, replace(first.aperture, **{name: 10.0 if "2" in name else -10.0}))
    assert "JAW" in {f.code for f in delivery_findings(bare(inside))}


@pytest.mark.parametrize(("beyond_mm", "outcome"), [(-5.0, "inside"), (-0.1, "flag"), (0.1, "refused")])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_isocentre_lies_in_the_patient_or_is_told_or_refused(axis: int, beyond_mm: float, outcome: str):
    # mutant: axes exchanged; one more voxel of the CT at its end
    grid = Grid((34, 32, 30), (4.0, 4.0, 4.0), (-62.0, -62.0, -62.0))
    body = np.zeros(grid.shape_zyx, dtype=bool)
    body[1:-1, 1:-1, 1:-1] = True
    at = tuple(end + beyond_mm if i == axis else 0.0 for i, end in enumerate(grid.bounds_mm()[1]))
    good = example_context()
    beam = good.plan.beams[0]
    plan = with_beam(good, 0, replace(beam, beam=replace(beam.beam, isocentre_xyz_mm=at))).plan
    if outcome == "refused":
        with pytest.raises(CaseRejected) as caught:
            isocentre_findings(plan, grid, body)
        assert caught.value.code == "ISOCENTRE_OUTSIDE_CT"
        return
    found = [f.code for f in isocentre_findings(plan, grid, body)]
    assert found == (["ISOCENTRE_OUTSIDE_BODY"] if outcome == "flag" else [])
