"""Certificates: never above what was reached, and what a linear program finds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

from rtplan.domain.goals import Goal, parse_metric
from rtplan.registry import shelf
from rtplan.steps import certificate
from rtplan.steps.certificate import certified
from rtplan.steps.optimise import Problem, Term, optimise_weights
from rtplan.steps.wishes import Price, Wish, first_prices

N_BEAMLETS, N_TARGET, N_ORGAN = 24, 20, 25
UPPER = 40.0


@dataclass(frozen=True)
class Matrix:
    """A dense operator."""

    dose_gy: np.ndarray

    def apply(self, weights_mu):
        """(n,) to (n_voxels,)."""
        return (self.dose_gy @ weights_mu).astype(np.float32)

    def adjoint(self, dose_gradient):
        """(n_voxels,) to (n,)."""
        return (dose_gradient @ self.dose_gy).astype(np.float32)


def wish(structure, text, rows, priority, level_gy, kind="tail", exempt=0.0):
    metric, sense = text.split()
    goal = Goal(structure, parse_metric(metric), sense, level_gy, priority, "made up", "unverified")
    share = np.full(len(rows), 1.0 / len(rows))
    return Wish(goal, kind, rows, share, sense == "<=", level_gy, 300.0 if priority == 1 else 30.0, 20.0, exempt=exempt)


def solved(seed, background_gy=0.0):
    """A target of 60 Gy beside an organ that is wished below 10 Gy, and its ideal fluence."""
    rng = np.random.default_rng(seed)
    matrix = np.concatenate([rng.uniform(0.1, 0.6, (N_TARGET, N_BEAMLETS)), rng.uniform(0.0, 0.4, (N_ORGAN, N_BEAMLETS))])
    target, organ = np.arange(N_TARGET), N_TARGET + np.arange(N_ORGAN)
    wishes = (
        wish("PTV", "Min[Gy] >=", target, 1, 57.0),
        wish("PTV", "Max[Gy] <=", target, 1, 66.0),
        wish("Organ", "Mean[Gy] <=", organ, 3, 10.0, kind="mean"),
    )
    under = shelf("rtplan.objectives")["underdose"].from_parameters({"dose_gy": 60.0})
    terms = (Term("PTV", under, 30.0, target, np.ones(N_TARGET)),)
    offset = np.full(N_TARGET + N_ORGAN, background_gy)
    problem = Problem(Matrix(matrix), terms, 1, np.full(N_BEAMLETS, UPPER), offset, None, wishes, first_prices(wishes))
    solution = optimise_weights(problem, np.full(N_BEAMLETS, 5.0), tolerance=1e-4, max_iterations=300)
    return matrix, solution.function, solution.weights


def linear_program(matrix, problem, weights_mu):
    """Smallest mean of the organ with every target voxel between the limits that it keeps now, and its value now."""
    dose = matrix @ weights_mu + problem.offset_gy
    background = problem.offset_gy[0]
    cold, hot = dose[:N_TARGET] >= 57.0, dose[:N_TARGET] <= 66.0
    rows = np.concatenate([-matrix[:N_TARGET][cold], matrix[:N_TARGET][hot]])
    limits = np.concatenate([np.full(cold.sum(), background - 57.0), np.full(hot.sum(), 66.0 - background)])
    mean = matrix[N_TARGET:].mean(axis=0)
    best = linprog(mean, A_ub=rows, b_ub=limits, bounds=[(0.0, UPPER)] * N_BEAMLETS, method="highs")
    assert best.status == 0
    return best.fun + background, float(dose[N_TARGET:].mean())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("background_gy", [0.0, 3.0])
def test_the_bound_is_what_a_linear_program_finds(seed, background_gy, monkeypatch):
    # mutants: the background left out; the square not undone; conditions on goals of the same priority
    monkeypatch.setattr(certificate, "ITERATIONS", 400)
    matrix, problem, weights = solved(seed, background_gy)
    best, reached = linear_program(matrix, problem, weights)
    (proof,) = certified(problem, weights, matrix @ weights + background_gy)
    assert proof.goal.structure == "Organ"
    assert proof.bound_gy <= best * (1 + 1e-4) <= reached * (1 + 1e-3)
    assert proof.bound_gy >= 0.97 * best


@pytest.mark.parametrize("iterations", [1, 5, 20])
def test_a_bound_holds_however_far_the_solver_came(iterations, monkeypatch):
    # mutant: the value instead of the bound
    monkeypatch.setattr(certificate, "ITERATIONS", iterations)
    for seed in range(4):
        matrix, problem, weights = solved(seed)
        best, _ = linear_program(matrix, problem, weights)
        (proof,) = certified(problem, weights, matrix @ weights)
        assert 0.0 <= proof.bound_gy <= best * (1 + 1e-4)


def test_what_the_plan_lost_is_no_condition():
    """Half of the target is cold in the final plan: less is asked of it, so less is proven. mutant: final dose ignored"""
    matrix, problem, weights = solved(0)
    dose = matrix @ weights
    cold = dose.copy()
    cold[: N_TARGET // 2] = 40.0
    (with_all,), (with_half,) = certified(problem, weights, dose), certified(problem, weights, cold)
    assert with_half.bound_gy < with_all.bound_gy - 1.0


def test_a_goal_of_lower_priority_is_no_condition():
    """A second organ's limit, of lower priority, does not count. mutant: every other goal a condition"""
    matrix, problem, weights = solved(1)
    (alone,) = certified(problem, weights, matrix @ weights)
    later = wish("Later", "Max[Gy] <=", np.arange(5), 5, 0.1)
    wishes = (*problem.wishes, later)
    crowded = replace(problem, wishes=wishes, prices=(*problem.prices, Price(np.zeros(5), np.zeros(5, bool), 15.0)))
    (same,) = certified(crowded, weights, matrix @ weights)
    assert same.bound_gy == pytest.approx(alone.bound_gy)


def test_a_generalised_mean_between_voxels_is_not_bounded_by_that_of_the_voxels():
    """Points halfway between a voxel of 10 Gy and one of nothing have 5 Gy, whatever the exponent: no bound may be above
    it. mutant: the generalised mean of the voxels, 9.7 Gy"""
    goal = Goal("Organ", parse_metric("EUD20[Gy]"), "<=", 1.0, 3, "made up", "unverified")
    halfway = sp.csr_matrix([[0.5, 0.5]])
    organ = Wish(goal, "eud", np.array([0, 1]), np.ones(1), True, 1.0, 30.0, 6.0, exponent=20.0, mixing=halfway)
    under = shelf("rtplan.objectives")["underdose"].from_parameters({"dose_gy": 1.0})
    term = Term("PTV", under, 1.0, np.array([2]), np.ones(1))
    matrix, background = np.array([[0.0], [0.0], [1.0]]), np.array([10.0, 0.0, 0.0])
    problem = Problem(Matrix(matrix), (term,), 1, np.ones(1), background, None, (organ,), first_prices((organ,)))
    (proof,) = certified(problem, np.zeros(1), background)
    assert organ.value_gy(background) == pytest.approx(5.0)
    assert 4.9 <= proof.bound_gy <= 5.0 + 1e-6
