"""Bargains end where linear programs and SciPy end: the same optimum, the same wishes kept, and bounds that hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from point_samples import samples_of
from scipy.optimize import linprog, minimize

from rtplan.domain.goals import Goal, evaluate_metric, parse_metric
from rtplan.steps.optimise import Problem, Term, optimise_weights
from rtplan.steps.wishes import TOLERANCE_GY, build_wishes, first_prices

N, VOXELS = 30, 60
SETS = {"Target": np.arange(20), "Organ": np.arange(20, 45), "Cord": np.arange(45, 60)}
UPPER_MU = 60.0


class MatrixOperator:
    """A dense matrix in float64, so that nothing but the bargain is tested."""

    def __init__(self, matrix):
        self.matrix = matrix

    def apply(self, weights_mu):
        return self.matrix @ weights_mu

    def adjoint(self, dose_gradient):
        return self.matrix.T @ dose_gradient


@dataclass(frozen=True)
class MeanDose:
    """The plain mean of the dose: linear, so that a linear program is the judge. Its Gy counts for one Gy²."""

    convex = True

    def value_and_gradient(self, dose_gy, voxel_weight):
        share = voxel_weight / voxel_weight.sum()
        return float(share @ dose_gy), share


def goal(text, structure, priority):
    metric, sense, limit = text.split()
    return Goal(structure, parse_metric(metric), sense, float(limit), priority, "made up", "unverified")


def problem_with(seed, *goals, matrix=None):
    """Every beamlet reaches the target, and a random half of the other voxels with random strength."""
    if matrix is None:
        rng = np.random.default_rng(seed)
        matrix = rng.gamma(2.0, 0.5, (VOXELS, N))
        matrix[20:] *= 0.5 * rng.integers(0, 2, (VOXELS - 20, N))
        matrix *= 60.0 / (30 * 20.0 * N)
    sets = {name: samples_of(rows, 0.05) for name, rows in SETS.items() if rows.max() < len(matrix)}
    wishes = build_wishes(SimpleNamespace(goals=goals, prescribed_gy=lambda s: 60.0), sets, room_gy=0.0)
    body = Term("Body", MeanDose(), 0.2, np.arange(len(matrix)), np.ones(len(matrix)))
    upper = np.full(matrix.shape[1], UPPER_MU)
    return Problem(MatrixOperator(matrix), (body,), 30, upper, wishes=wishes, prices=first_prices(wishes))


def linear_program(problem, tolerance_gy=0.0):
    """Optimum of the elastic problem and its doses: every Gy beyond level and tolerance at the wish's top price."""
    dose = 30 * problem.operator.matrix
    (term,) = problem.terms
    cost, rows, limits = [term.weight * dose.mean(axis=0)], [], []
    for wish in problem.wishes:
        sign = 1.0 if wish.upper else -1.0
        own = wish.share[None] @ dose[wish.rows] if wish.kind == "mean" else dose[wish.rows]
        rows.append(sign * own)
        limits.append(np.full(len(own), sign * wish.level_gy + tolerance_gy))
        cost.append(wish.top_price * wish.weight())
    a = np.concatenate(rows)
    found = linprog(
        np.concatenate(cost),
        np.hstack([a, -np.eye(len(a))]),
        np.concatenate(limits),
        bounds=[(0.0, UPPER_MU)] * dose.shape[1] + [(0.0, None)] * len(a),
        method="highs",
    )
    assert found.status == 0
    return float(found.fun), dose @ found.x[: dose.shape[1]]


HARD = (goal("Min[Gy] >= 55", "Target", 1), goal("Max[Gy] <= 66", "Target", 1))
CASES = {
    "within reach": (*HARD, goal("Max[Gy] <= 45", "Cord", 0), goal("Mean[Gy] <= 40", "Organ", 2)),
    "organ out of reach": (*HARD, goal("Mean[Gy] <= 12", "Organ", 3)),
    "cord before target": (*HARD, goal("Max[Gy] <= 14", "Cord", 0), goal("Mean[Gy] <= 20", "Organ", 2)),
    "lower mean": (goal("Mean[Gy] >= 60", "Target", 1), goal("Max[Gy] <= 20", "Organ", 1)),
}


@cache
def judged(case, seed):
    problem = problem_with(seed, *CASES[case])
    return linear_program(problem), linear_program(problem, TOLERANCE_GY)[0]


def dose_of(problem, solution):
    return problem.dose_gy(problem.image(solution.weights))


def bare_dose_gy(problem, dose):
    """What the linear term makes of a dose."""
    (term,) = problem.terms
    return term.weight * float(dose.mean())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_bargain_ends_where_the_linear_program_does(case, seed):
    """What the program keeps is kept to twice `TOLERANCE_GY`, what it gives up is given up as far, at the same mean dose.

    mutants: prices never rise; the pull of a wish without its sign
    """
    problem = problem_with(seed, *CASES[case])
    solution = optimise_weights(problem, np.full(N, 10.0), tolerance=1e-3, max_iterations=300)
    (strict, judge), forgiving = judged(case, seed)
    dose = problem.dose_gy(problem.image(solution.weights))
    assert forgiving * (1 - 1e-9) <= solution.value <= 1.03 * strict
    assert bare_dose_gy(problem, dose) == pytest.approx(bare_dose_gy(problem, judge), rel=0.03)
    for wish in problem.wishes:
        found, allowed = (np.maximum(wish.beyond_gy(d), 0.0) for d in (dose, judge))
        if allowed.max() < 1e-6:
            assert found.max() <= 2 * TOLERANCE_GY
        assert wish.weight() @ found <= wish.weight() @ allowed + TOLERANCE_GY


@pytest.mark.parametrize("iterations", [5, 25, 100])
@pytest.mark.parametrize("case", CASES)
def test_no_bound_is_above_the_optimum_at_any_price(case, iterations):
    """The proof holds after any number of repricings. mutants: the bound's tolerance forgotten; prices beyond the cap"""
    for seed in range(2):
        problem = problem_with(seed, *CASES[case])
        solution = optimise_weights(problem, np.full(N, 10.0), tolerance=1e-9, max_iterations=iterations)
        forgiving = judged(case, seed)[1]
        assert solution.lower_bound <= forgiving * (1 + 1e-9)
        assert solution.value - forgiving <= solution.relative_gap * solution.value * (1 + 1e-9)
        for wish, price in zip(solution.function.wishes, solution.function.prices, strict=True):
            assert price.amount.min() >= 0.0 and price.amount.max() <= wish.top_price


@pytest.mark.parametrize("case", CASES)
def test_the_bound_comes_close(case):
    # mutant: the bound of the terms alone
    problem = problem_with(0, *CASES[case])
    solution = optimise_weights(problem, np.full(N, 10.0), tolerance=1e-3, max_iterations=300)
    assert solution.lower_bound > 0.97 * judged(case, 0)[1]


@pytest.mark.parametrize("seed", range(2))
def test_generalised_means_end_where_scipy_does(seed):
    # mutant: the generalised mean's gradient without its weight by dose
    goals = (goal("EUD8[Gy] <= 17", "Organ", 1), goal("EUD-10[Gy] >= 60", "Target", 1), goal("Mean[Gy] <= 66", "Target", 1))
    problem = problem_with(seed, *goals)
    solution = optimise_weights(problem, np.full(N, 10.0), tolerance=1e-4, max_iterations=400)
    dose = 30 * problem.operator.matrix

    def room(weights):
        return np.array([(1.0 if w.upper else -1.0) * (w.level_gy - w.value_gy(dose @ weights)) for w in problem.wishes])

    def room_gradient(weights):
        return np.array([-w.pull(np.ones(1), dose @ weights) @ dose[w.rows] for w in problem.wishes])

    slope = problem.terms[0].weight * dose.mean(axis=0)
    found = minimize(
        lambda w: float(slope @ w),
        np.full(N, 15.0),
        jac=lambda w: slope,
        bounds=[(0.0, UPPER_MU)] * N,
        constraints={"type": "ineq", "fun": room, "jac": room_gradient},
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-10},
    )
    assert found.success and room(found.x).min() < 1e-3  # some wish is at work
    assert room(solution.weights).min() > -TOLERANCE_GY
    assert float(slope @ solution.weights) == pytest.approx(float(found.fun), rel=0.01)
    assert solution.lower_bound <= found.fun * (1 + 1e-9)


# ---- who wins


@pytest.mark.parametrize("first", ["Target", "Organ"])
def test_of_two_wishes_that_cannot_both_be_kept_the_higher_one_is(first):
    """One beamlet for two voxels: 60 Gy here or 20 Gy there. mutant: all caps alike"""
    matrix = np.ones((45, 1)) / 30
    target, organ = (1, 2) if first == "Target" else (2, 1)
    problem = problem_with(0, goal("Min[Gy] >= 60", "Target", target), goal("Max[Gy] <= 20", "Organ", organ), matrix=matrix)
    weight = optimise_weights(problem, np.array([30.0]), tolerance=1e-6, max_iterations=300).weights[0]
    assert weight == pytest.approx(60.0 if first == "Target" else 20.0, abs=TOLERANCE_GY)


def test_a_goal_on_a_volume_is_met_by_those_who_are_not_let_off():
    """Some of the organ is above the level, as the goal allows, and only those who are let off. mutant: nobody is"""
    goals = (*HARD, goal("V15Gy[%] <= 40", "Organ", 2))
    problem = problem_with(1, *goals)
    solution = optimise_weights(problem, np.full(N, 10.0), tolerance=1e-6, max_iterations=300)
    dose = problem.dose_gy(problem.image(solution.weights))[SETS["Organ"]]
    let_off = solution.function.prices[-1].exempt
    assert 0.0 < evaluate_metric(goals[-1].metric, dose, 0.05, 60.0) <= 40.0
    assert let_off.any() and dose[~let_off].max() <= 15.0 + TOLERANCE_GY < dose[let_off].max()
