"""Goals, target figures and histograms of the final dose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_plan import CT_GRID, DOSE_GRID, ISO, density, dose, goals, machine, plan, prescription, structures

from rtplan.domain.context import PartDose, PlanContext
from rtplan.domain.dose import Dose, dose_in_mask
from rtplan.domain.goals import GoalResult
from rtplan.domain.structures import Structure, StructureSet
from rtplan.registry import shelf
from rtplan.steps import verify as verify_module
from rtplan.steps.verify import (
    dvhs,
    hot_point,
    judge_goals,
    outcome,
    structure_dose,
    summarise_targets,
    verify,
    volume_above,
)


def context(the_dose: Dose | None = None) -> PlanContext:
    the_dose = the_dose or dose()
    return PlanContext(plan(), machine(), density(), the_dose, (PartDose((1,), the_dose),), structures(), prescription())


def test_goals_are_judged_on_the_dose_of_their_structure():
    # mutant: judge every goal on External; turn the sense round
    results = {r.goal.structure: r for r in judge_goals(goals(), structures(), dose(), prescription())}
    target = dose_in_mask(dose(), structures()["PTV_70"].mask, CT_GRID)
    assert results["PTV_70"].value == pytest.approx(np.percentile(target, 5))
    assert results["PTV_70"].met is True
    assert results["SpinalCord"].met is False
    assert results["Parotid_L"].value == pytest.approx(
        dose_in_mask(dose(), structures()["Parotid_L"].mask, CT_GRID).mean(dtype=np.float64)
    )


def test_an_absent_structure_is_not_judged():
    result = judge_goals(goals(), structures(), dose(), prescription())[3]
    assert (result.value, result.met) == (None, None)


def test_the_outcome_needs_every_judged_goal_and_at_least_one():
    # mutant: all() of nothing
    met, missed, unjudged = (GoalResult(goals()[0], 1.0, m) for m in (True, False, None))
    assert outcome((met, unjudged)) == "goals_met"
    assert outcome((met, missed)) == "goals_missed"
    assert outcome((unjudged,)) == "goals_missed"
    assert outcome(()) == "goals_missed"


def test_slabs_give_the_same_voxels(monkeypatch: pytest.MonkeyPatch):
    # mutant: leave the crop's origin out
    mask = structures()["External"].mask
    whole = dose_in_mask(dose(), mask, CT_GRID)
    monkeypatch.setattr(verify_module, "_SLAB_VOXELS", 3000)
    np.testing.assert_array_equal(structure_dose(dose(), mask, CT_GRID), whole)
    assert structure_dose(dose(), np.zeros_like(mask), CT_GRID).size == 0


def test_conformity_is_one_when_the_isodose_is_the_target():
    # Paddick's index: 1 when V95 and target coincide; the square of the coverage over both volumes otherwise.
    target = structures()["PTV_70"].mask
    on_ct = Dose(CT_GRID, np.where(target, 70.0, 10.0))
    found = summarise_targets(prescription(), structures(), on_ct, {"PTV_70": structure_dose(on_ct, target, CT_GRID)})[0]
    assert found.conformity_index == pytest.approx(1.0)
    assert found.homogeneity_index == pytest.approx(0.0)
    ring = structures()["PTV_56"].mask
    wide = Dose(CT_GRID, np.where(ring, 70.0, 10.0))
    spilled = summarise_targets(prescription(), structures(), wide, {"PTV_70": structure_dose(wide, target, CT_GRID)})[0]
    assert spilled.conformity_index == pytest.approx(target.sum() / ring.sum())


def test_the_volume_above_a_dose_is_that_of_the_whole_body():
    # mutant: cut the box one voxel short
    everywhere = structure_dose(dose(), structures().external.mask, CT_GRID)
    for level in (5.0, 40.0, 66.5, 75.0, 500.0):
        assert volume_above(dose(), structures(), level) == pytest.approx(np.sum(everywhere >= level) * CT_GRID.voxel_cc)


def test_histograms_show_what_a_reviewer_looks_at():
    found = dvhs(structures(), dose())
    assert [d.structure for d in found] == ["External", "PTV_70", "PTV_56", "SpinalCord", "Parotid_L"]
    for histogram in found:
        assert histogram.volume_percent[0] == 100
        assert np.all(np.diff(histogram.volume_percent) <= 0)
        assert histogram.volume_percent[-1] == 0


def test_an_empty_structure_has_no_histogram():
    empty = Structure("Empty", "ORGAN", np.zeros(CT_GRID.shape_zyx, dtype=bool))
    assert dvhs(StructureSet(CT_GRID, (empty,)), dose()) == ()


def test_the_hottest_point_is_where_the_dose_says():
    found = hot_point(structures(), dose())
    assert found.dose_gy == pytest.approx(dose().dose_gy.max())
    # The hill is at the isocentre, tilted towards the patient's left.
    assert np.abs(np.array(found.point_xyz_mm) - np.array(ISO)).max() < 8
    assert "PTV_70" in found.structures
    far = np.zeros(DOSE_GRID.shape_zyx)
    far[0, 0, 0] = 9.0
    assert hot_point(structures(), Dose(DOSE_GRID, far)).structures == ()


def test_verify_runs_every_check_of_the_shelf():
    found = verify(context())
    assert len(found.checks) == len(shelf("rtplan.checks")) > 0
    assert found.goals == judge_goals(goals(), structures(), dose(), prescription())
    assert [t.name for t in found.targets] == ["PTV_70", "PTV_56"]
    assert found.outcome == "goals_missed"
    assert verify(replace(context(), prescription=replace(prescription(), goals=goals()[:1]))).outcome == "goals_met"
