"""Certificates: never better than what was reached, what linear and integer programs find, and who excludes whom."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from rtplan.domain.goals import Goal, parse_metric
from rtplan.registry import shelf
from rtplan.steps import certificate, proven_means
from rtplan.steps.certificate import Question, certified, dose_bound_gy, volume_bound
from rtplan.steps.optimise import Problem, Term, optimise_weights
from rtplan.steps.proven_means import ProvenMean
from rtplan.steps.samples import Samples
from rtplan.steps.wishes import Price, Wish, first_prices

N_BEAMLETS, N_TARGET, N_ORGAN = 24, 20, 25
UPPER = 40.0
VOLUME_CC = 5.0
NO_GOAL = frozenset()


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


class Prescribed:
    """60 Gy to everything."""

    def prescribed_gy(self, structure):
        """Gy of a structure."""
        return 60.0


def asked(problem, weights_mu, final_gy):
    """The question of a problem with its ideal fluence and final dose; every structure has 5 cc."""
    samples = {
        w.goal.structure: Samples(w.rows, sp.identity(len(w.rows), format="csr"), VOLUME_CC, np.arange(len(w.rows)))
        for w in problem.wishes
    }
    ideal = problem.dose_gy(problem.image(weights_mu))
    return Question(problem, weights_mu, (ideal, final_gy), Prescribed(), samples)


def proofs_of(problem, weights_mu, final_gy, missed=NO_GOAL):
    """Certificates by structure and metric."""
    found = certified(asked(problem, weights_mu, final_gy), missed)
    return {f"{c.goal.structure} {c.goal.metric.text}": c for c in found}


def solved(seed, background_gy=0.0, organ_goal="Mean[Gy] <=", organ_gy=10.0, kind="mean", exempt=0.0):
    """A target of 60 Gy beside an organ that is wished below 10 Gy, and its ideal fluence."""
    rng = np.random.default_rng(seed)
    matrix = np.concatenate([rng.uniform(0.1, 0.6, (N_TARGET, N_BEAMLETS)), rng.uniform(0.0, 0.4, (N_ORGAN, N_BEAMLETS))])
    target, organ = np.arange(N_TARGET), N_TARGET + np.arange(N_ORGAN)
    wishes = (
        wish("PTV", "Min[Gy] >=", target, 1, 57.0),
        wish("PTV", "Max[Gy] <=", target, 1, 66.0),
        wish("Organ", organ_goal, organ, 3, organ_gy, kind=kind, exempt=exempt),
    )
    under = shelf("rtplan.objectives")["underdose"].from_parameters({"dose_gy": 60.0})
    terms = (Term("PTV", under, 30.0, target, np.ones(N_TARGET)),)
    offset = np.full(N_TARGET + N_ORGAN, background_gy)
    problem = Problem(Matrix(matrix), terms, 1, np.full(N_BEAMLETS, UPPER), offset, None, wishes, first_prices(wishes))
    solution = optimise_weights(problem, np.full(N_BEAMLETS, 5.0), tolerance=1e-4, max_iterations=300)
    return matrix, solution.function, solution.weights


def kept_rows(matrix, problem, weights_mu):
    """Rows and limits of a linear program in which every target voxel keeps the limits that it keeps now; and the dose."""
    dose = matrix @ weights_mu + problem.offset_gy
    background = problem.offset_gy[0]
    cold, hot = dose[:N_TARGET] >= 57.0, dose[:N_TARGET] <= 66.0
    rows = np.concatenate([-matrix[:N_TARGET][cold], matrix[:N_TARGET][hot]])
    limits = np.concatenate([np.full(cold.sum(), background - 57.0), np.full(hot.sum(), 66.0 - background)])
    return rows, limits, dose


def linear_program(matrix, problem, weights_mu):
    """Smallest mean of the organ with every target voxel between the limits that it keeps now, and its value now."""
    rows, limits, dose = kept_rows(matrix, problem, weights_mu)
    mean = matrix[N_TARGET:].mean(axis=0)
    best = linprog(mean, A_ub=rows, b_ub=limits, bounds=[(0.0, UPPER)] * N_BEAMLETS, method="highs")
    assert best.status == 0
    return best.fun + problem.offset_gy[0], float(dose[N_TARGET:].mean())


def smallest_dose_of(matrix, problem, weights_mu, n_hotter):
    """By an integer program: smallest dose that all but `n_hotter` voxels of the organ keep to, none above its hottest."""
    rows, limits, dose = kept_rows(matrix, problem, weights_mu)
    organ, hottest = matrix[N_TARGET:], dose[N_TARGET:].max()
    n = N_BEAMLETS
    # Variables: fluence, the dose, and of each voxel whether it is let off.
    keep = LinearConstraint(np.hstack([rows, np.zeros((len(rows), 1 + N_ORGAN))]), ub=limits)
    below = LinearConstraint(np.hstack([organ, -np.ones((N_ORGAN, 1)), -hottest * np.eye(N_ORGAN)]), ub=0.0)
    cap = LinearConstraint(np.hstack([organ, np.zeros((N_ORGAN, 1 + N_ORGAN))]), ub=hottest)
    few = LinearConstraint(np.concatenate([np.zeros(n + 1), np.ones(N_ORGAN)])[None], ub=n_hotter)
    cost = np.zeros(n + 1 + N_ORGAN)
    cost[n] = 1.0
    whole = np.concatenate([np.zeros(n + 1), np.ones(N_ORGAN)])
    box = Bounds(np.zeros(n + 1 + N_ORGAN), np.concatenate([np.full(n, UPPER), [np.inf], np.ones(N_ORGAN)]))
    best = milp(cost, constraints=[keep, below, cap, few], integrality=whole, bounds=box)
    assert best.status == 0
    return best.fun


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("background_gy", [0.0, 3.0])
def test_the_bound_is_what_a_linear_program_finds(seed, background_gy, monkeypatch):
    # mutants: the background left out; the square not undone; conditions on goals of the same priority
    monkeypatch.setattr(proven_means, "ITERATIONS", 400)
    matrix, problem, weights = solved(seed, background_gy)
    best, reached = linear_program(matrix, problem, weights)
    proof = proofs_of(problem, weights, matrix @ weights + background_gy)["Organ Mean[Gy]"]
    assert proof.bound <= best * (1 + 1e-4) <= reached * (1 + 1e-3)
    assert proof.bound >= 0.97 * best


@pytest.mark.parametrize("iterations", [1, 5, 20])
def test_a_bound_holds_however_far_the_solver_came(iterations, monkeypatch):
    # mutant: the value instead of the bound
    monkeypatch.setattr(proven_means, "ITERATIONS", iterations)
    for seed in range(4):
        matrix, problem, weights = solved(seed)
        best, _ = linear_program(matrix, problem, weights)
        proof = proofs_of(problem, weights, matrix @ weights)["Organ Mean[Gy]"]
        assert 0.0 <= proof.bound <= best * (1 + 1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("metric", "n_hotter"), [("Max[Gy]", 0), ("D8[Gy]", 2), ("D20[Gy]", 5)])
def test_a_dose_volume_goal_is_bounded_by_what_an_integer_program_finds(seed, metric, n_hotter, monkeypatch):
    """The bound of a maximum is near the optimum; the more volume is let off, the further below it may be.

    Mutants: the hottest part's dose not taken off; its weight taken from the whole instead of the heaviest points.
    """
    monkeypatch.setattr(proven_means, "ITERATIONS", 300)
    monkeypatch.setattr(proven_means, "SPREAD_ITERATIONS", 300)
    matrix, problem, weights = solved(seed, 0.0, f"{metric} <=", 15.0, "tail", n_hotter / N_ORGAN)
    best = smallest_dose_of(matrix, problem, weights, n_hotter)
    proof = proofs_of(problem, weights, matrix @ weights)[f"Organ {metric}"]
    assert proof.bound <= best * (1 + 1e-4)
    assert proof.bound >= {0: 0.75, 2: 0.3, 5: 0.0}[n_hotter] * best


@pytest.mark.parametrize("seed", range(4))
def test_the_coldest_dose_of_a_target_is_bounded_from_above(seed, monkeypatch):
    """With every voxel at most as hot as the hottest is, no fluence brings the coldest above the bound. mutant: a lower
    limit bounded from below"""
    monkeypatch.setattr(proven_means, "ITERATIONS", 300)
    monkeypatch.setattr(proven_means, "SPREAD_ITERATIONS", 300)
    matrix, problem, weights = solved(seed)
    dose = matrix @ weights
    target, hottest = matrix[:N_TARGET], dose[:N_TARGET].max()
    # Highest t with target >= t everywhere and <= hottest.
    rows = np.concatenate([np.hstack([-target, np.ones((N_TARGET, 1))]), np.hstack([target, np.zeros((N_TARGET, 1))])])
    limits = np.concatenate([np.zeros(N_TARGET), np.full(N_TARGET, hottest)])
    cost = np.append(np.zeros(N_BEAMLETS), -1.0)
    best = linprog(cost, A_ub=rows, b_ub=limits, bounds=[(0.0, UPPER)] * N_BEAMLETS + [(0.0, None)], method="highs")
    proof = proofs_of(problem, weights, dose)["PTV Min[Gy]"]
    assert proof.bound >= -best.fun * (1 - 1e-4)
    assert proof.bound <= -best.fun * 1.1


def test_what_a_proven_mean_says_of_volumes():
    """Four points of equal shares and weights, a mean of 40 Gy, none above 60: half of them can carry 30 of it, so that the
    other half has 20 Gy; and 30 Gy reach a third of the volume at least. From above: with a mean of 40 Gy at most, 50 Gy
    reach four fifths."""
    share = np.full(4, 0.25)
    hot = ProvenMean(share, 40.0, 60.0, upper=True)
    assert dose_bound_gy(hot, share, 0.0) == pytest.approx(40.0)
    assert dose_bound_gy(hot, share, 0.5) == pytest.approx(20.0)
    assert volume_bound(hot, share, 30.0) == pytest.approx(1.0 / 3.0)
    assert volume_bound(hot, share, 45.0) == 0.0
    cold = ProvenMean(share, 40.0, 60.0, upper=False)
    assert dose_bound_gy(cold, share, 0.8) == pytest.approx(50.0)
    assert dose_bound_gy(cold, share, 0.5) == 60.0, "nothing is above the hottest"
    assert volume_bound(cold, share, 50.0) == pytest.approx(0.8)


def test_a_bound_on_a_volume_is_in_the_metrics_unit():
    """mutant: shares instead of percent or cc"""
    found = []
    for metric in ("V15Gy[%] <=", "V15Gy[cc] <="):
        matrix, problem, weights = solved(2, 0.0, metric, 15.0, "tail", 0.2)
        goal = problem.wishes[2].goal
        hot = replace(goal, limit=20.0 if "%" in metric else 1.0)
        problem = replace(problem, wishes=(*problem.wishes[:2], replace(problem.wishes[2], goal=hot)))
        dose = matrix @ weights
        share = float(np.mean(dose[N_TARGET:] >= 15.0))
        bound = proofs_of(problem, weights, dose)[f"Organ {metric.split()[0]}"].bound
        found.append(bound / (100.0 if "%" in metric else VOLUME_CC))
        assert 0.05 < found[-1] <= share
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_what_the_plan_lost_is_no_condition():
    """Half of the target is cold in the final plan: less is asked of it, so less is proven. mutant: final dose ignored"""
    matrix, problem, weights = solved(0)
    dose = matrix @ weights
    cold = dose.copy()
    cold[: N_TARGET // 2] = 40.0
    with_all, with_half = (proofs_of(problem, weights, d)["Organ Mean[Gy]"] for d in (dose, cold))
    assert with_half.bound < with_all.bound - 1.0


@pytest.mark.parametrize(("metric", "kind"), [("Max[Gy]", "tail"), ("D20[Gy]", "tail"), ("Mean[Gy]", "mean")])
def test_a_structure_that_no_beam_reaches_is_bounded_by_nothing(metric, kind):
    # mutant: doses divided by the hottest one, whatever it is
    matrix, problem, weights = solved(0, 0.0, f"{metric} <=", 15.0, kind)
    matrix[N_TARGET:] = 0.0
    dark = replace(problem, operator=Matrix(matrix))
    assert proofs_of(dark, weights, matrix @ weights)[f"Organ {metric}"].bound == pytest.approx(0.0, abs=1e-3)


def test_prices_of_another_fight_prove_as_much_as_fitting_ones():
    """Coverage at twenty times its price, as after a fight over another organ. mutant: the plan's own prices alone"""
    matrix, problem, weights = solved(3)
    fitting = proofs_of(problem, weights, matrix @ weights)["Organ Mean[Gy]"].bound
    dear = tuple(replace(p, amount=20.0 * p.amount) for p in problem.prices[:2])
    fought = replace(problem, prices=(*dear, problem.prices[2]))
    assert proofs_of(fought, weights, matrix @ weights)["Organ Mean[Gy]"].bound > 0.8 * fitting > 1.0


def test_a_goal_of_lower_priority_is_no_condition():
    """A second organ's limit, of lower priority, does not count. mutant: every other goal a condition"""
    matrix, problem, weights = solved(1)
    alone = proofs_of(problem, weights, matrix @ weights)["Organ Mean[Gy]"]
    later = wish("Later", "Max[Gy] <=", np.arange(5), 5, 0.1)
    wishes = (*problem.wishes, later)
    crowded = replace(problem, wishes=wishes, prices=(*problem.prices, Price(np.zeros(5), np.zeros(5, bool), 15.0)))
    same = proofs_of(crowded, weights, matrix @ weights)["Organ Mean[Gy]"]
    assert same.bound == pytest.approx(alone.bound)


@pytest.mark.parametrize("priority", [0, 1])
def test_coverage_is_kept_whatever_the_priority_and_other_goals_only_if_theirs_is_higher(priority):
    """An organ of the target's priority or a higher one is bounded by coverage all the same, and not by another organ of its
    own priority. mutants: coverage a condition only where its priority is higher; goals of the same priority conditions"""
    matrix, problem, weights = solved(1)
    expected = proofs_of(problem, weights, matrix @ weights)["Organ Mean[Gy]"].bound
    organ = problem.wishes[2]
    rank = replace(organ, goal=replace(organ.goal, priority=priority))
    peer = wish("Peer", "Max[Gy] <=", organ.rows, priority, 70.0)
    free = Price(np.full(len(organ.rows), 5.0), np.zeros(len(organ.rows), bool), 15.0)
    problem = replace(problem, wishes=(*problem.wishes[:2], rank, peer), prices=(*problem.prices, free))
    bound = proofs_of(problem, weights, matrix @ weights)["Organ Mean[Gy]"].bound
    # The target's upper limit is a condition no more.
    assert 0.5 * expected < bound <= expected * (1 + 1e-3)
    if priority == 1:
        tight = replace(peer, level_gy=float((matrix @ weights).max()))
        same = replace(problem, wishes=(*problem.wishes[:3], tight))
        assert proofs_of(same, weights, matrix @ weights)["Organ Mean[Gy]"].bound == pytest.approx(bound)


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
    proof = proofs_of(problem, np.zeros(1), background)["Organ EUD20[Gy]"]
    assert organ.value_gy(background) == pytest.approx(5.0)
    assert 4.9 <= proof.bound <= 5.0 + 1e-6


def overlapping(organ_gy):
    """An organ that shares five voxels with the target, and is to keep to a dose; elsewhere more is wished than there is."""
    rng = np.random.default_rng(7)
    matrix = np.concatenate([rng.uniform(0.1, 0.6, (N_TARGET, N_BEAMLETS)), rng.uniform(0.0, 0.4, (N_ORGAN, N_BEAMLETS))])
    target, organ = np.arange(N_TARGET), np.arange(N_TARGET - 5, N_TARGET + 10)
    wishes = (
        wish("PTV", "Min[Gy] >=", target, 1, 57.0),
        wish("PTV", "Max[Gy] <=", target, 1, 66.0),
        wish("Organ", "Max[Gy] <=", organ, 2, organ_gy),
        wish("Elsewhere", "Mean[Gy] >=", np.arange(N_TARGET + 10, N_TARGET + N_ORGAN), 3, 40.0, kind="mean"),
    )
    under = shelf("rtplan.objectives")["underdose"].from_parameters({"dose_gy": 60.0})
    terms = (Term("PTV", under, 30.0, target, np.ones(N_TARGET)),)
    problem = Problem(Matrix(matrix), terms, 1, np.full(N_BEAMLETS, UPPER), None, None, wishes, first_prices(wishes))
    solution = optimise_weights(problem, np.full(N_BEAMLETS, 5.0), tolerance=1e-4, max_iterations=300)
    return matrix, solution.function, solution.weights


def test_goals_that_exclude_each_other_are_named_with_the_amount(monkeypatch):
    """An organ that overlaps the target cannot keep to 30 Gy while the target has 57: 27 Gy are missing, and the target's
    least dose is why, the goal that has paid most. mutants: the price's order turned; every other goal kept as well"""
    monkeypatch.setattr(certificate, "PAIRS", 1)
    matrix, problem, weights = overlapping(30.0)
    dose = matrix @ weights
    proof = proofs_of(problem, weights, dose, frozenset([problem.wishes[2].goal]))["Organ Max[Gy]"]
    assert proof.conflict is not None
    assert (proof.conflict.goal.structure, proof.conflict.goal.metric.text) == ("PTV", "Min[Gy]")
    assert 52.0 <= proof.conflict.bound <= 57.0 + 1e-6


def test_a_target_that_gives_way_to_an_organ_names_it():
    """The other way round: the organ's limit is the harder one, and the target is the one that misses. mutant: opponents of
    the same side"""
    matrix, problem, weights = overlapping(30.0)
    first = replace(problem.wishes[2], goal=replace(problem.wishes[2].goal, priority=0), price_cap=3000.0)
    problem = replace(problem, wishes=(*problem.wishes[:2], first, problem.wishes[3]), prices=first_prices(problem.wishes))
    solution = optimise_weights(problem, weights, tolerance=1e-4, max_iterations=300)
    problem, dose = solution.function, matrix @ solution.weights
    proof = proofs_of(problem, solution.weights, dose, frozenset([problem.wishes[0].goal]))["PTV Min[Gy]"]
    assert proof.conflict is not None
    assert (proof.conflict.goal.structure, proof.conflict.goal.metric.text) == ("Organ", "Max[Gy]")
    assert 30.0 - 1e-6 <= proof.conflict.bound <= 40.0


@pytest.mark.parametrize("missed", [True, False])
def test_no_conflict_is_named_where_there_is_none(missed):
    """An organ limit that can be kept: no pair, whether the plan kept it or not. mutant: the first opponent named unasked"""
    matrix, problem, weights = overlapping(70.0)
    goals = frozenset([problem.wishes[2].goal, problem.wishes[3].goal]) if missed else NO_GOAL
    proofs = proofs_of(problem, weights, matrix @ weights, goals)
    assert proofs["Organ Max[Gy]"].conflict is None
