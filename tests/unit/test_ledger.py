"""The ledger: values at every stage as they are judged, and the worst of six shifts of the patient against the dose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_plan import CT_GRID, DOSE_GRID, ISO, dose, prescription, structures

from rtplan.domain.dose import Dose, dose_in_mask
from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.grid import Float3, Grid
from rtplan.domain.ledger import LedgerRow, WorstShift
from rtplan.domain.structures import Structure, StructureSet
from rtplan.steps.final_dose import scaled_dose
from rtplan.steps.ledger import DIRECTIONS_XYZ, SHIFT_MM, dose_when_shifted, ledger
from rtplan.steps.verify import judge_goals

SLOPE_GY_PER_MM = (0.31, -0.17, 0.23)
OPPOSITE = {
    "left": "right",
    "right": "left",
    "posterior": "anterior",
    "anterior": "posterior",
    "superior": "inferior",
    "inferior": "superior",
}


def linear_dose(slope_xyz: Float3, grid: Grid = DOSE_GRID) -> Dose:
    """100 Gy at the origin of coordinates, rising along each axis by its slope. Gy per mm."""
    z, y, x = np.meshgrid(grid.z_mm(), grid.y_mm(), grid.x_mm(), indexing="ij")
    return Dose(grid, (100.0 + slope_xyz[0] * x + slope_xyz[1] * y + slope_xyz[2] * z).astype(np.float32))


def goal(metric: str, sense: str, limit: float, structure: str = "PTV_70") -> Goal:
    return Goal(structure, parse_metric(metric), sense, limit, 1, "a paper", "unverified")  # type: ignore[arg-type]


def row(the_goal: Goal, the_dose: Dose, volumes: StructureSet | None = None) -> LedgerRow:
    asked = replace(prescription(), goals=(the_goal,))
    return ledger(asked, volumes or structures(), {}, the_dose).rows[0]


def box(low_xyz_mm: Float3, high_xyz_mm: Float3) -> StructureSet:
    """A body, and PTV_70 as the CT's voxels in a box."""
    z, y, x = np.meshgrid(CT_GRID.z_mm(), CT_GRID.y_mm(), CT_GRID.x_mm(), indexing="ij")
    inside = np.logical_and.reduce([(v >= a) & (v <= b) for v, a, b in zip((x, y, z), low_xyz_mm, high_xyz_mm, strict=True)])
    return StructureSet(CT_GRID, (structures().structures[0], Structure("PTV_70", "PTV", inside)))


@pytest.mark.parametrize("towards", DIRECTIONS_XYZ)
def test_a_shift_along_a_slope_adds_the_slope_times_the_way(towards):
    # mutants: the other sign; x and z swapped; half the way; the whole grid moved by voxels instead of mm
    direction, mask = DIRECTIONS_XYZ[towards], structures()["PTV_70"].mask
    shift = tuple(SHIFT_MM * d for d in direction)
    still = dose_in_mask(linear_dose(SLOPE_GY_PER_MM), mask, CT_GRID)
    moved = dose_when_shifted(linear_dose(SLOPE_GY_PER_MM), mask, CT_GRID, shift)
    assert SHIFT_MM == 3.0
    np.testing.assert_allclose(moved - still, 3.0 * float(np.dot(direction, SLOPE_GY_PER_MM)), atol=2e-4)


def test_directions_are_those_of_the_patient():
    # LPS: x to the left, y to the back, z to the head.
    assert {d: np.flatnonzero(v)[0] for d, v in DIRECTIONS_XYZ.items()} == {
        "left": 0, "right": 0, "posterior": 1, "anterior": 1, "superior": 2, "inferior": 2,
    }  # fmt: skip
    assert [d for d, v in DIRECTIONS_XYZ.items() if sum(v) > 0] == ["left", "posterior", "superior"]


def test_moving_the_patient_is_moving_its_voxels_through_the_dose():
    # Independent of how the dose is moved: the CT's own grid stands 3 mm further to the left, back and head.
    mask, shift = structures()["PTV_70"].mask, (3.0, 1.0, 2.0)
    there = replace(CT_GRID, origin_xyz_mm=tuple(o + s for o, s in zip(CT_GRID.origin_xyz_mm, shift, strict=True)))
    np.testing.assert_allclose(dose_when_shifted(dose(), mask, CT_GRID, shift), dose_in_mask(dose(), mask, there), atol=1e-4)


@pytest.mark.parametrize("towards", DIRECTIONS_XYZ)
def test_the_worst_shift_goes_up_the_slope_for_an_upper_limit_and_down_for_a_lower(towards):
    # mutants: max for both senses; min for both; the mean of six
    slope = tuple(0.5 * d for d in DIRECTIONS_XYZ[towards])
    the_dose = linear_dose(slope)
    upper, lower = row(goal("Mean[Gy]", "<=", 101.0), the_dose), row(goal("D95[Gy]", ">=", 90.0), the_dose)
    assert upper.worst is not None
    assert lower.worst is not None
    assert (upper.worst.towards, lower.worst.towards) == (towards, OPPOSITE[towards])
    assert upper.worst.value == pytest.approx(upper.stages[-1].value + 1.5, abs=1e-3)
    assert lower.worst.value == pytest.approx(lower.stages[-1].value - 1.5, abs=1e-3)


def test_the_worst_shift_says_whether_the_goal_still_holds():
    # mutant: whether the goal is met unshifted
    mean = row(goal("Mean[Gy]", "<=", 0.0), linear_dose((0.5, 0.0, 0.0))).stages[-1].value
    verdicts = {
        margin: row(goal("Mean[Gy]", "<=", mean + margin), linear_dose((0.5, 0.0, 0.0))).worst for margin in (1.4, 1.6)
    }
    assert {margin: worst.met for margin, worst in verdicts.items() if worst} == {1.4: False, 1.6: True}


def test_volumes_are_shifted_in_their_own_unit():
    # A dose that steps from 0 to 60 Gy at x = 0: half of a box of ten rows 2 mm apart, and one row more after 3 mm.
    _, _, x = np.meshgrid(CT_GRID.z_mm(), CT_GRID.y_mm(), CT_GRID.x_mm(), indexing="ij")
    step = Dose(CT_GRID, np.where(x >= 0.0, 60.0, 0.0).astype(np.float32))
    found = row(goal("V50Gy[%]", "<=", 60.0), step, box((-10.0, -10.0, -9.0), (8.0, 10.0, 9.0)))
    assert found.stages[-1].value == pytest.approx(50.0)
    assert found.worst == WorstShift("left", pytest.approx(60.0), True)


def test_at_the_grids_edge_the_dose_goes_on_and_what_lies_beyond_stays_zero():
    # mutants: zero beyond the grid after the shift; the grid's edge dose for all that lies beyond
    grid = DOSE_GRID.cropped((0, 0, 0), (22, 36, 30))
    edge = grid.bounds_mm()[1][0]
    flat = Dose(grid, np.full(grid.shape_zyx, 50.0, dtype=np.float32))
    near = box((edge - 6.0, -4.0, -4.0), (edge, 4.0, 4.0))
    assert row(goal("Min[Gy]", ">=", 45.0), flat, near).worst == WorstShift("left", 50.0, True)
    across = box((edge - 6.0, -4.0, -4.0), (edge + 6.0, 4.0, 4.0))
    found = row(goal("Mean[Gy]", "<=", 45.0), flat, across)
    assert 15.0 < found.stages[-1].value < 35.0
    assert found.worst is not None
    assert found.worst.value == pytest.approx(found.stages[-1].value)
    mask = across["PTV_70"].mask
    assert dose_when_shifted(flat, mask, CT_GRID, (3.0, 0.0, 0.0)).size == mask.sum()


def test_stages_stand_in_their_order_and_are_judged_like_the_final_dose():
    # mutants: one stage's dose for another; the last stage first
    asked, volumes = prescription(), structures()
    ideal, sequenced = scaled_dose(dose(), 1.10), scaled_dose(dose(), 0.95)
    found = ledger(asked, volumes, {"ideal_fluence": ideal, "sequenced": sequenced}, dose())
    for i, the_row in enumerate(found.rows):
        assert the_row.goal == asked.goals[i]
        if the_row.goal.structure not in volumes:
            continue
        assert [s.stage for s in the_row.stages] == ["ideal_fluence", "sequenced", "final"]
        values = [judge_goals(asked.goals, volumes, d, asked)[i].value for d in (ideal, sequenced, dose())]
        assert [s.value for s in the_row.stages] == values


def test_stages_may_have_grids_of_their_own():
    coarse = Grid((11, 18, 22), (5.0, 6.5, 7.0), (-75.0, -56.0, -25.0))
    asked = replace(prescription(), goals=(goal("Mean[Gy]", "<=", 45.0),))
    found = ledger(asked, structures(), {"ideal_fluence": linear_dose((0.2, 0.0, 0.0), coarse)}, dose())
    centre = 100.0 + 0.2 * float(np.argwhere(structures()["PTV_70"].mask)[:, 2].mean() * 2.0 - 80.0)
    assert found.rows[0].stages[0].value == pytest.approx(centre, abs=1e-3)
    assert ISO[0] == pytest.approx(3.25)


def test_a_goal_without_its_structure_has_neither_stages_nor_a_shift():
    found = ledger(prescription(), structures(), {"sequenced": dose()}, dose())
    assert found.rows[3] == LedgerRow(prescription().goals[3], (), None)
