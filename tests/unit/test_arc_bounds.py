"""Certificates of arcs: never above what a linear program finds over all angles, however few beams the proof began with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import linprog
from test_certificate import N_BEAMLETS, N_ORGAN, N_TARGET, NO_GOAL, UPPER, Matrix, asked, overlapping, solved

from rtplan import arc_planning
from rtplan.domain.beams import Beam
from rtplan.domain.influence import Beamlets
from rtplan.domain.prescription import Arc
from rtplan.steps import proven_means
from rtplan.steps.arc_bounds import lowest_by_arcs, turned
from rtplan.steps.certificate import certified
from rtplan.steps.place_beams import ArcBeams, arc_angles_deg, wrapped_deg
from rtplan.steps.solver import LowerModel

ANGLES = 8
PER_ANGLE = N_BEAMLETS // ANGLES
BEAM_OF = np.repeat(np.arange(ANGLES), PER_ANGLE).astype(np.int32)


def beamlets(beam_index, beams=()):
    """Beamlets in a row, 5 mm wide."""
    n = len(beam_index)
    x1 = 5.0 * np.arange(n)
    return Beamlets(beams, beam_index, np.arange(n) % 3, x1, x1 + 5.0, np.zeros(n), np.full(n, 10.0))


@dataclass(frozen=True)
class AllRound(Matrix):
    """A dense operator that knows which beam each column belongs to."""

    beamlets: Beamlets


def half_of_the_angles(seed):
    """The problem of `test_certificate` with every second angle alone, solved, and the columns of all; an angle in between
    gives what its neighbours give on average, a tenth more or less."""
    matrix, problem, _ = solved(seed)
    own = BEAM_OF % 2 == 0
    before, after = matrix[:, own], np.roll(matrix[:, own], -PER_ANGLE, axis=1)
    matrix[:, ~own] = (before + after) / 2 * np.random.default_rng(seed).uniform(0.9, 1.1, before.shape)
    few = replace(problem, operator=Matrix(matrix[:, own]), upper_mu=np.full(own.sum(), 2 * UPPER))
    solution = proven_means.minimise(
        few,
        upper=few.upper_mu,
        scale=np.ones(own.sum()),
        start=np.full(own.sum(), 10.0),
        tolerance=1e-4,
        max_iterations=300,
        negligible=1e-4,
        report=lambda *_: None,
        reprice=lambda f, image, choosing: f.repriced(image, choosing),
    )
    weights = solution.weights.reshape(-1, PER_ANGLE)
    return matrix, solution.function, solution.weights, float(weights.max(axis=1).sum())


def smallest_mean_by_arcs(matrix, dose, mu):
    """By a linear program: the organ's least mean with apertures at all angles that share `mu`, the target as now."""
    cold, hot = dose[:N_TARGET] >= 57.0, dose[:N_TARGET] <= 66.0
    target = matrix[:N_TARGET]
    kept = np.concatenate([-target[cold], target[hot]])
    limits = np.concatenate([np.full(cold.sum(), -57.0), np.full(hot.sum(), 66.0)])
    open_to = np.hstack([np.eye(N_BEAMLETS), -np.eye(ANGLES)[BEAM_OF]])
    budget = np.concatenate([np.zeros(N_BEAMLETS), np.ones(ANGLES)])
    found = linprog(
        np.append(matrix[N_TARGET:].mean(axis=0), np.zeros(ANGLES)),
        A_ub=np.vstack([np.hstack([kept, np.zeros((len(kept), ANGLES))]), open_to, budget]),
        b_ub=np.concatenate([limits, np.zeros(N_BEAMLETS), [mu]]),
        bounds=(0.0, None),
        method="highs",
    )
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("more", [1.0, 1.5])
def test_a_bound_of_arcs_is_below_what_all_angles_can_do_and_near_it(seed, more, monkeypatch):
    """The proof begins with every second angle; the linear program has all. mutants: the problem's own angles alone; MU of
    each angle for itself; fluence without the angle's limit"""
    monkeypatch.setattr(proven_means, "ITERATIONS", 400)
    matrix, problem, weights, mu = half_of_the_angles(seed)
    dose = problem.dose_gy(problem.image(weights))
    best = smallest_mean_by_arcs(matrix, dose, more * mu)
    everywhere = AllRound(matrix, beamlets(BEAM_OF)), np.arange(N_TARGET + N_ORGAN)

    def lowest_of(planes):
        return lowest_by_arcs(planes, [everywhere], 1, more * mu)

    found = certified(asked(problem, weights, dose), NO_GOAL, lowest_of=lowest_of)
    bound = next(c.bound for c in found if c.goal.metric.text == "Mean[Gy]")
    assert 0.0 <= bound <= best * (1 + 1e-4)
    assert bound >= 0.8 * best


def test_all_mu_go_to_the_angle_that_lowers_a_plane_most():
    """30 fractions; per MU the first angle lowers the plane by 2 a fraction, the second by 1 + 0.5, one beside it by 2.5.
    Rows that an operator lacks have no slope. mutants: the sum over angles; rising beamlets opened too; no fractions"""
    plane = LowerModel(1000.0, np.zeros(3), 0.0, np.array([1.0, 0.0, -1.0]))
    flat = LowerModel(7.0, np.zeros(3), 0.0, np.array([1.0, 0.0, 1.0]))
    own = AllRound(
        np.array([[0.0, 1.0, 0.0, 0.5], [9.0, 9.0, 9.0, 9.0], [2.0, 0.0, 1.0, 1.0]]), beamlets(np.array([0, 0, 1, 1]))
    )
    beside = AllRound(np.array([[0.0], [2.5]]), beamlets(np.array([0])))
    everything = [(own, np.arange(3)), (beside, np.array([0, 2]))]
    assert lowest_by_arcs([plane, flat], everything[:1], 30, 10.0) == pytest.approx([1000.0 - 300.0 * 2.0, 7.0])
    assert lowest_by_arcs([plane, flat], everything, 30, 10.0) == pytest.approx([1000.0 - 300.0 * 2.5, 7.0])


def test_what_only_few_beams_proved_is_not_said_of_arcs():
    """The pair that excludes each other by the problem's beams is not named where all angles prove nothing; the planes are
    asked for once. mutants: the first proofs kept; the conflict not looked at again"""
    matrix, problem, weights = overlapping(30.0)
    question, missed = asked(problem, weights, matrix @ weights), frozenset([problem.wishes[2].goal])
    calls = []

    def nothing(planes):
        calls.append(len(planes))
        return [-1.0] * len(planes)

    first = {c.goal: c for c in certified(question, missed)}
    none = {c.goal: c for c in certified(question, missed, lowest_of=nothing)}
    organ = problem.wishes[2].goal
    assert first[organ].conflict is not None and first[organ].bound > 40.0
    assert none[organ].conflict is None and none[organ].bound == 0.0
    assert calls == [5]  # four goals' and the pair's


@pytest.mark.parametrize("direction", ["CW", "CC"])
def test_every_interval_of_every_arc_is_looked_at(direction, monkeypatch):
    """mutants: turned to one side only; the first arc's beams for the second; all voxels instead of those that count"""
    found, arcs = [], []
    for start in (200.0, 10.0):
        arc = Arc(start, wrapped_deg(np.array([start + (96.0 if direction == "CW" else -96.0)]))[0], direction, 15.0)
        angles = arc_angles_deg(arc, 4.0)
        middles = wrapped_deg(angles[1:-1:3] + (2.0 if direction == "CW" else -2.0))
        arcs.append(ArcBeams(arc, beam(angles[0]), angles, tuple(beam(angle) for angle in middles)))
    beams = tuple(b for arc in arcs for b in arc.middles)
    own = SimpleNamespace(beamlets=beamlets(np.repeat(np.arange(16), 2), beams), voxel_index=np.arange(100, 105))

    def influence(density, placed, model, voxels, *, backend, progress):
        found.extend(b.gantry_angle_deg for b in placed.beams)
        progress("influence", 0.5)
        assert len(placed) == 16 and voxels.tolist() == [101, 103]
        return SimpleNamespace(beamlets=placed)

    monkeypatch.setattr(arc_planning, "shelf", lambda name: {"e": SimpleNamespace(influence=influence)})
    model = SimpleNamespace(operator=own, engine="e", density=None, machine=SimpleNamespace(beam=None), backend="cpu")  # type: ignore[arg-type]
    plane = LowerModel(0.0, np.zeros(1), 0.0, np.array([0.0, 1.0, 0.0, -1.0, 0.0]))
    told = []
    given = list(arc_planning._intervals(model, arcs, [plane], lambda step, part, message="": told.append(step)))
    assert given[0][0] is own and given[0][1].tolist() == [0, 1, 2, 3, 4]
    assert all(rows.tolist() == [1, 3] for _, rows in given[1:]) and set(told) == {"certify"}
    ahead = 2.0 if direction == "CW" else -2.0
    middles = np.concatenate([wrapped_deg(arc.angles_deg[:-1] + ahead) for arc in arcs])
    looked_at = found + [b.gantry_angle_deg for b in beams]
    assert sorted(looked_at) == pytest.approx(sorted(middles))


def beam(angle_deg):
    """A beam at a gantry angle."""
    return Beam("G", float(angle_deg), 15.0, 0.0, (0.0, 0.0, 0.0), 1000.0)


def test_beamlets_turn_with_their_beam_and_keep_their_place():
    # mutant: indices of the beams that were left out
    placed = beamlets(np.array([0, 0, 1, 1, 2]), tuple(beam(a) for a in (10.0, 180.0, 358.0)))
    found = turned(placed, slice(1, 3), 4.0)
    assert [b.gantry_angle_deg for b in found.beams] == [184.0, 2.0]
    assert found.beam_index.tolist() == [0, 0, 1] and found.x1_mm.tolist() == [10.0, 15.0, 20.0]
    assert found.beams[0] == replace(placed.beams[1], gantry_angle_deg=184.0)
