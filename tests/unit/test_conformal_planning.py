"""Weights of conformal segments, and a whole conformal plan on a coarse grid."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import site_cases
from scipy.optimize import check_grad

from rtplan import conformal_planning
from rtplan.checks import run_delivery_checks
from rtplan.conformal_planning import conformal_plan
from rtplan.domain.context import Delivery
from rtplan.domain.dose import dose_in_mask
from rtplan.domain.image import DensityImage
from rtplan.domain.openings import static_segments
from rtplan.domain.progress import silent
from rtplan.errors import PlanningFailed
from rtplan.library.machines import load_machine
from rtplan.steps.final_dose import plan_dose
from rtplan.steps.ingest import resample_density
from rtplan.steps.voxels import planning_grid

MACHINE = load_machine("generic_6mv")


def aims(**changes) -> conformal_planning._Aims:
    base = conformal_planning._Aims(np.arange(4), np.arange(6), (), 50.0, 47.5, 53.5)
    return replace(base, **changes)


def test_one_even_field_is_weighted_to_the_prescription():
    dose = np.full((6, 1), 2.0)
    solution = conformal_planning._solve(dose, aims())
    assert solution.weights == pytest.approx([25.0], rel=1e-4) and solution.converged


def test_a_wedge_is_evened_out_by_its_opposite():
    # mutant: bounds below zero; mutant: the prescription left out
    rising = np.array([1.0, 2.0, 3.0, 4.0, 0.0, 0.0])
    solution = conformal_planning._solve(np.stack([rising, np.r_[rising[:4][::-1], 0.0, 0.0], 0.1 * rising], axis=1), aims())
    dose = np.stack([rising, np.r_[rising[:4][::-1], 0.0, 0.0], 0.1 * rising], axis=1) @ solution.weights
    np.testing.assert_allclose(dose[:4], 50.0, rtol=1e-3)
    assert solution.weights.min() >= 0.0


def test_dose_beyond_the_limit_is_moved_even_outside_the_target():
    # mutant: hot voxels outside the target not counted
    front = np.array([1.0, 1.0, 1.0, 1.0, 2.0, 0.0])
    back = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 2.0])
    uneven = np.array([1.0, 1.0, 1.0, 1.0, 1.02, 0.0])
    weights = conformal_planning._solve(np.stack([front, back], axis=1), aims()).weights
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)
    weights = conformal_planning._solve(np.stack([front, uneven], axis=1), aims()).weights
    assert weights[0] < 0.1 * weights[1]


@pytest.mark.parametrize("of_mean", [True, False])
def test_an_organ_over_its_limit_turns_the_weights_away(of_mean):
    # mutant: limits of organs ignored
    near, far = np.array([1.0, 1, 1, 1, 0.6, 0.2]), np.array([1.0, 1, 1, 1, 0.1, 0.1])
    organ = (np.array([4, 5]), 6.0, of_mean)
    dose = np.stack([near, far], axis=1)
    weights = conformal_planning._solve(dose, aims(organs=(organ,))).weights
    assert weights[1] > 5 * weights[0]


def test_the_gradient_is_that_of_the_penalties(monkeypatch):
    # mutant: factor 2 left out of any term
    dose = np.random.default_rng(1).uniform(0.5, 1.5, (6, 3))
    known = {}
    monkeypatch.setattr(
        conformal_planning,
        "minimize",
        lambda cost, start, **_: (
            known.update(cost=cost) or type("R", (), {"x": start, "fun": 0.0, "nit": 0, "success": True})
        ),
    )
    conformal_planning._solve(dose, aims(organs=((np.array([4]), 10.0, False), (np.array([4, 5]), 10.0, True))))
    for at in ([10.0, 10.0, 10.0], [30.0, 20.0, 25.0], [17.0, 17.0, 17.0]):
        error = check_grad(lambda w: known["cost"](w)[0], lambda w: known["cost"](w)[1], np.array(at), epsilon=1e-6)
        assert error < 1e-3 * max(1.0, np.linalg.norm(known["cost"](np.array(at))[1]))


def test_fields_that_miss_the_target_are_no_plan():
    with pytest.raises(PlanningFailed) as caught:
        conformal_planning._solve(np.array([[0.0], [0.0], [0.0], [0.0], [1.0], [1.0]]), aims())
    assert caught.value.code == "NO_DOSE"


@cache
def image() -> DensityImage:
    _, structures = site_cases.prescribed("brain", protocol_id="whole_brain_30_10")
    phantom = site_cases.drawn("brain")
    density = np.where(structures.external.mask, np.clip(1.0 + phantom.hu / 1000.0, 0.01, 2.0), 0.0).astype(np.float32)
    return DensityImage(phantom.grid, density, density)


@cache
def made(segments_per_beam: int):
    prescription, structures = site_cases.prescribed("brain", protocol_id="whole_brain_30_10")
    protocol = replace(prescription.protocol, optimisation_grid_mm=8.0, segments_per_beam=segments_per_beam)
    case = replace(prescription, protocol=protocol)
    return conformal_plan(image(), structures, case, MACHINE, backend="cpu", engine="collapsed_cone", progress=silent)


def hot_over_median(conformal) -> float:
    """D2 over D50 of the brain in quick quality on the CT's grid of 4 mm, coarsened to 8."""
    _, structures = site_cases.prescribed("brain", protocol_id="whole_brain_30_10")
    grid = planning_grid(structures, ("PTV_3000",), 8.0)
    density = resample_density(image(), grid)
    dose = plan_dose(density, conformal.plan, MACHINE, quality="quick", backend="cpu")
    inside = dose_in_mask(dose, structures["PTV_3000"].mask, structures.grid)
    return float(np.percentile(inside, 98) / np.median(inside))


@pytest.mark.physics
def test_field_in_field_makes_the_dose_more_even():
    # mutant: hot voxels not closed; mutant: weights of the first round kept
    plain, better = made(1), made(3)
    assert sum(len(static_segments(b)) for b in plain.plan.beams) == 2
    assert 2 < sum(len(static_segments(b)) for b in better.plan.beams) <= 6
    assert better.objective_value < plain.objective_value
    assert hot_over_median(better) - 1.0 < 0.7 * (hot_over_median(plain) - 1.0)


@pytest.mark.physics
def test_a_conformal_plan_passes_every_check_of_a_delivery():
    # mutant: closed pairs left at the axis; mutant: segments below the smallest MU kept
    conformal = made(3)
    results = run_delivery_checks(Delivery(conformal.plan, MACHINE, image()))
    assert len(results) > 10 and [r.message for r in results if not r.passed] == []
    assert min(mu for b in conformal.plan.beams for _, mu in static_segments(b)) >= MACHINE.min_segment_mu


def test_segments_too_weak_for_the_machine_are_left_out():
    strong = replace(MACHINE, min_segment_mu=30.0)
    segments = conformal_planning._Segments((0, 1, 0), (None,) * 3, np.c_[np.ones((6, 2)), 0.01 * np.ones(6)])
    solution = conformal_planning._Solution(np.array([20.0, 30.0, 0.1]), 0.0, 0, True)
    kept, weights = conformal_planning._strong_enough(segments, solution, aims(), strong)
    assert kept.of_field == (0, 1) and weights.weights.sum() == pytest.approx(50.0, rel=1e-3)


@pytest.mark.physics
def test_more_mu_than_a_beam_can_give_is_no_plan():
    plan = made(1).plan
    with pytest.raises(PlanningFailed) as caught:
        conformal_planning._refuse_too_much(plan, replace(MACHINE, max_beam_mu=10.0))
    assert caught.value.code == "BEAM_MU"
