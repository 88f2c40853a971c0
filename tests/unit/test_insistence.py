"""What a plan on the way misses, which of two is better, and what is insisted on next."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import small_plan
from point_samples import samples_of

from rtplan import planning
from rtplan.domain.dose import Dose, dose_in_mask
from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.prescription import Normalisation
from rtplan.planning import FEWEST_ROUNDS, FINAL_FROM, MOST_ROUNDS, PATIENCE
from rtplan.registry import shelf
from rtplan.steps.insistence import MOST, Standing, insisted, standing
from rtplan.steps.optimise import Problem, Term
from rtplan.steps.wishes import build_ideals, build_wishes, first_prices

STRUCTURES, DOSE = small_plan.structures(), small_plan.dose()


def goal(structure: str, metric: str, sense: str, limit: float, priority: int) -> Goal:
    return Goal(structure, parse_metric(metric), sense, limit, priority, "made up", "unverified")


def prescription(*goals: Goal, rule: Normalisation | None = None) -> SimpleNamespace:
    return SimpleNamespace(goals=goals, prescribed_gy=lambda structure: 70.0, protocol=SimpleNamespace(normalisation=rule))


def test_a_plan_stands_as_its_normalised_dose_does():
    """The mean of the parotid is doubled by the rule. mutants: the dose as it is; met goals counted; the share of the value;
    priorities that nothing is missed of left out"""
    mean = float(dose_in_mask(DOSE, STRUCTURES["Parotid_L"].mask, STRUCTURES.grid).mean())
    asked = (
        goal("Parotid_L", "Mean[Gy]", "<=", 1.6 * mean, 3),
        goal("Parotid_L", "Mean[Gy]", "<=", 2.1 * mean, 1),
        goal("Parotid_L", "Mean[Gy]", ">=", 2.5 * mean, 2),
        goal("Parotid_L", "Mean[Gy]", "<=", 1.9 * mean, 2),
    )
    rule = Normalisation("Parotid_L", "Mean[Gy]", 2.0 * mean)
    found = standing(DOSE, STRUCTURES, prescription(*asked, rule=rule))
    assert found.counts == (0, 2, 1)
    assert found.goals == {asked[0], asked[2], asked[3]}
    assert [beyond for _, beyond in found.missed] == pytest.approx([0.25, 0.2, 1 / 19])
    assert standing(DOSE, STRUCTURES, prescription(*asked)).counts == (0, 1, 0)


def of(*counts: int, beyond: float = 0.1) -> Standing:
    return Standing(((goal("Parotid_L", "Mean[Gy]", "<=", 26.0, 3), beyond),), counts)


def test_what_counts_first_is_the_highest_priority():
    # mutants: the sum of all missed; the sum beyond before the counts; the older of two alike kept
    assert of(0, 3).no_worse_than(of(1, 0)) and not of(1, 0).no_worse_than(of(0, 3))
    assert of(0, 1, beyond=0.5).no_worse_than(of(0, 2, beyond=0.1))
    assert of(0, 1, beyond=0.1).no_worse_than(of(0, 1, beyond=0.2))
    assert not of(0, 1, beyond=0.2).no_worse_than(of(0, 1, beyond=0.1))
    assert of(0, 1).no_worse_than(of(0, 1))


TARGET = goal("Target", "D95[Gy]", ">=", 66.5, 1)
LEFT, RIGHT = goal("Parotid_L", "Mean[Gy]", "<=", 26.0, 3), goal("Parotid_R", "Mean[Gy]", "<=", 26.0, 3)
LIPS = goal("Lips", "Mean[Gy]", "<=", 20.0, 5)
ALL = (TARGET, LEFT, RIGHT, LIPS)


def problem_of(goals: tuple[Goal, ...]) -> Problem:
    samples = {g.structure: samples_of(np.array([k]), 0.05) for k, g in enumerate(goals)}
    wishes = build_wishes(cast("object", prescription(*goals)), samples, room_gy=0.3)  # type: ignore[arg-type]
    ideals = build_ideals(cast("object", prescription(*goals)), samples, room_gy=0.3)  # type: ignore[arg-type]
    term = Term("x", shelf("rtplan.objectives")["overdose"](dose_gy=1.0), 1.0, np.array([0]), np.ones(1))
    operator = SimpleNamespace(apply=lambda w: w, beamlets=None)
    wishes += ideals
    return Problem(operator, (term,), 1, np.full(4, 99.0), wishes=wishes, prices=first_prices(wishes))


def factors(problem: Problem) -> dict[str, float]:
    return {w.goal.structure: w.insistence for w in problem.wishes}


def test_the_highest_goals_that_are_missed_are_insisted_on_and_those_below_less():
    # mutants: all missed ones; those below left as they are; below what they began with; beyond the most
    first = problem_of(ALL)
    once = insisted(first, frozenset({LEFT, LIPS}))
    assert factors(once) == {"Target": 1.0, "Parotid_L": 2.0, "Parotid_R": 1.0, "Lips": 1.0}
    for _ in range(5):
        once = insisted(once, frozenset({LEFT, LIPS}))
    assert factors(once)["Parotid_L"] == MOST
    for before, after, price in zip(first.wishes, once.wishes, once.prices, strict=True):
        assert after.price_cap == pytest.approx(after.insistence * before.price_cap)
        assert price.stiffness == pytest.approx(after.insistence * before.stiffness)
    eased = insisted(once, frozenset({TARGET, LEFT}))
    assert factors(eased) == {"Target": 2.0, "Parotid_L": MOST / 2, "Parotid_R": 1.0, "Lips": 1.0}
    assert insisted(eased, frozenset()) is eased


def test_what_was_let_go_is_not_insisted_on():
    # mutants: insisted on all the same; what lies below it eased for it
    problem = problem_of(ALL)
    wishes = tuple(replace(w, let_go=w.goal is LEFT, insistence=4.0 if w.goal is LIPS else 1.0) for w in problem.wishes)
    problem = replace(problem, wishes=wishes)
    assert insisted(problem, frozenset({LEFT})) is problem
    assert factors(insisted(problem, frozenset({LEFT, RIGHT})))["Parotid_L"] == 1.0


class Rounds:
    """Rounds of apertures that stand as told, one after the other; what was asked of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, problem: Problem, standings: list[Standing]) -> None:
        self.problem, self.standings = problem, standings
        self.asked: list[Problem] = []
        self.qualities: list[str] = []
        segments = SimpleNamespace(fluence=lambda: None)
        monkeypatch.setattr(planning, "_with_segments", lambda *a: (segments, problem))
        monkeypatch.setattr(planning, "for_apertures", lambda problem, fluence: problem)
        monkeypatch.setattr(planning, "plan_of", lambda *a: len(self.asked))
        monkeypatch.setattr(planning, "standing", lambda dose, *a: standings[min(dose, len(standings) - 1)])
        monkeypatch.setattr(planning, "measured", lambda model, problem, *a: problem)
        monkeypatch.setattr(planning, "optimise_apertures", self._optimised)
        machine = SimpleNamespace(min_segment_mu=1.0)
        self.model = SimpleNamespace(machine=machine, fractions=1, structures=None, prescription=None)

    def _optimised(self, problem: Problem, segments: object, **_: object) -> tuple[object, Problem]:
        self.asked.append(problem)
        return segments, problem

    def _dose(self, plan: int, quality: str) -> Dose:
        self.qualities.append(quality)
        return cast("Dose", plan)

    def best(self) -> int:
        """The round whose plan is taken."""
        judge = SimpleNamespace(measured=lambda p: self._dose(p, "standard"), of=lambda p: self._dose(p, "final"))
        plan, dose = planning.deliverable(self.model, None, self.problem, judge, lambda *a: None)  # type: ignore[arg-type]
        assert plan == dose
        return cast("int", plan)


def missing(*goals: Goal, beyond: float = 0.1) -> Standing:
    priorities = [g.priority for g in goals]
    return Standing(tuple((g, beyond) for g in goals), tuple(priorities.count(p) for p in (1, 3, 5)))


def test_rounds_end_when_the_goals_are_met(monkeypatch: pytest.MonkeyPatch):
    # mutants: one round more; the plan of the round before
    rounds = Rounds(monkeypatch, problem_of(ALL), [missing()])
    assert rounds.best() == FEWEST_ROUNDS == len(rounds.asked)
    assert rounds.qualities == FINAL_FROM * ["standard"] + (FEWEST_ROUNDS - FINAL_FROM + 1) * ["final"]
    late = Rounds(monkeypatch, problem_of(ALL), [*(FEWEST_ROUNDS + 2) * [missing(LEFT)], missing()])
    assert late.best() == FEWEST_ROUNDS + 2


def test_the_best_plan_that_was_judged_is_taken(monkeypatch: pytest.MonkeyPatch):
    """Nothing is better than the fifth; what standard doses say of earlier rounds does not count. mutants: the last plan;
    the first rounds compete"""
    standings = [missing(), missing(), missing(), missing(TARGET), missing(LEFT, LIPS), missing(LIPS), missing(LEFT)]
    rounds = Rounds(monkeypatch, problem_of(ALL), standings)
    assert rounds.best() == 5
    assert len(rounds.asked) == 5 + PATIENCE


def test_rounds_end_however_they_go(monkeypatch: pytest.MonkeyPatch):
    # mutant: no last round
    better = [missing(LEFT, beyond=1.0 / (1 + k)) for k in range(MOST_ROUNDS + 5)]
    rounds = Rounds(monkeypatch, problem_of(ALL), better)
    assert rounds.best() == MOST_ROUNDS == len(rounds.asked)


def test_a_missed_goal_is_insisted_on_from_the_second_measurement_on(monkeypatch: pytest.MonkeyPatch):
    # mutants: from the first, of plans that no round has corrected yet; never
    rounds = Rounds(monkeypatch, problem_of(ALL), [missing(LEFT)])
    rounds.best()
    assert [factors(p)["Parotid_L"] for p in rounds.asked[:6]] == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0]


@pytest.mark.parametrize(("missed", "kept"), [((), True), ((LEFT,), True), ((RIGHT,), False)])
def test_ideals_are_given_up_for_a_goal_that_could_be_kept(monkeypatch: pytest.MonkeyPatch, missed, kept):
    """The left parotid was let go: that it is missed costs nothing else. mutants: given up for what was let go; never"""
    problem = problem_of((TARGET, LEFT, RIGHT, replace(LIPS, ideal=10.0)))
    wishes = tuple(replace(w, let_go=w.goal is LEFT) for w in problem.wishes)
    assert [w.is_ideal for w in wishes] == [False] * 4 + [True]
    rounds = Rounds(monkeypatch, replace(problem, wishes=wishes), [missing(*missed)])
    rounds.best()
    assert [w.is_ideal for w in rounds.asked[0].wishes][4:] == [True]
    assert [w.is_ideal for w in rounds.asked[1].wishes][4:] == ([True] if kept else [])
    assert len(rounds.asked) == (FEWEST_ROUNDS if kept else MOST_ROUNDS)
