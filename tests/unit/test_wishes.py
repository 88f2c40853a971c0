"""Wishes say what their goals say, and bargain by the rules: prices between nothing and the cap, gradients that are true."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from point_samples import samples_of

from rtplan.domain.goals import Goal, evaluate_metric, parse_metric
from rtplan.domain.prescription import Normalisation
from rtplan.errors import PlanningFailed
from rtplan.steps.samples import Samples
from rtplan.steps.wishes import (
    EXEMPT,
    IDEAL_SHARE,
    OUT_OF_REACH_GY,
    PRICE_CAPS,
    STIFFEST,
    TOLERANCE_GY,
    WHOLE,
    Price,
    asked_price,
    build_ideals,
    build_wishes,
    first_prices,
    full_cost,
    holds,
    penalty,
    spent,
    updated_price,
    within_reach,
)

N = 200
VOXEL_CC = 0.05
PRESCRIBED_GY = 60.0
GY_METRICS = ["Mean[Gy]", "Max[Gy]", "Min[Gy]", "EUD8[Gy]", "EUD-10[Gy]", "D30%[Gy]", "D99[Gy]", "D0.5cc[Gy]"]

METRICS = [*GY_METRICS, "V20Gy[%]", "V40Gy[cc]", "V95%[%]", "V50%[cc]"]
NOT_CONVEX = ["EUD8[Gy] >=", "EUD-10[Gy] <="]
JUDGED = [(metric, sense) for metric in METRICS for sense in ("<=", ">=") if f"{metric} {sense}" not in NOT_CONVEX]


def goal(text, structure="Organ", priority=2):
    """A goal from text such as "V20Gy[%] <= 30"."""
    metric, sense, limit = text.split()
    return Goal(structure, parse_metric(metric), sense, float(limit), priority, "made up", "unverified")


def wishes_of(*goals, organ=None, room_gy=0.0):
    prescription = SimpleNamespace(goals=goals, prescribed_gy=lambda structure: PRESCRIBED_GY)
    return build_wishes(prescription, {"Organ": points(N) if organ is None else organ}, room_gy=room_gy)


def points(n):
    """Samples that are the first n rows themselves."""
    return samples_of(np.arange(n), VOXEL_CC)


def wish_of(text, **changes):
    return wishes_of(goal(text), **changes)[0]


def dose_of(seed, n=N):
    return np.random.default_rng(seed).uniform(5.0, 70.0, n)


# ---- what a goal says


@pytest.mark.parametrize(
    ("text", "kind", "level_gy", "let_off", "upper"),
    [
        ("V20Gy[%] <= 30", "tail", 20.0, 0.3, True),
        ("D30%[Gy] <= 20", "tail", 20.0, 0.3, True),
        ("V95%[%] >= 98", "tail", 57.0, 0.02, False),
        ("V107%[cc] <= 1", "tail", 64.2, 0.1, True),
        ("V40Gy[cc] <= 2.5", "tail", 40.0, 0.25, True),
        ("D0.5cc[Gy] <= 45", "tail", 45.0, 0.05, True),
        ("D99[Gy] >= 57", "tail", 57.0, 0.01, False),
        ("Max[Gy] <= 50", "tail", 50.0, 0.0, True),
        ("Min[Gy] >= 55", "tail", 55.0, 0.0, False),
        ("Mean[Gy] <= 26", "mean", 26.0, 0.0, True),
        ("EUD8[Gy] <= 30", "eud", 30.0, 0.0, True),
        ("EUD-10[Gy] >= 58", "eud", 58.0, 0.0, False),
    ],
)
def test_a_goal_becomes_the_wish_that_it_is(text, kind, level_gy, let_off, upper):
    # mutants: volume and what it leaves exchanged; percent of the prescription not taken
    wish = wish_of(text)
    assert (wish.kind, wish.upper) == (kind, upper)
    assert (wish.level_gy, wish.exempt) == pytest.approx((level_gy, EXEMPT * let_off))


@pytest.mark.parametrize(("metric", "sense"), JUDGED)
def test_the_wish_is_kept_where_the_goal_is_met(metric, sense):
    """On either side of the metric's value, by 5 %: the wish judges as the goal does, from a tail's border alone."""
    for seed in range(5):
        dose = dose_of(seed)
        value = evaluate_metric(parse_metric(metric), dose, VOXEL_CC, PRESCRIBED_GY)
        for limit in (0.95 * value, 1.05 * value):
            asked = goal(f"{metric} {sense} {limit}")
            (wish,) = wishes_of(asked)
            reached = wish.value_gy(dose)
            assert (reached <= wish.level_gy if wish.upper else reached >= wish.level_gy) == asked.met_by(value)


def test_levels_leave_room_on_the_strict_side():
    # mutants: room added to upper limits too; no more room where few voxels decide; for means too
    for text, level_gy in (
        ("D2[Gy] <= 50", 49.7),
        ("D95[Gy] >= 57", 57.3),
        ("Mean[Gy] <= 26", 25.7),
        ("Max[Gy] <= 50", 49.49),
        ("D99[Gy] >= 57", 57.51),
        ("V57Gy[%] >= 99", 57.51),
    ):
        found = wish_of(text, room_gy=0.3)
        assert found.level_gy == pytest.approx(level_gy), text
        assert found.room_gy == pytest.approx(abs(level_gy - (57.0 if "57" in text else found.goal.limit)))


@pytest.mark.parametrize(
    ("text", "rule", "held"),
    [
        ("V95%[%] >= 95", "D95[Gy]", True),
        ("D95[Gy] >= 57", "D95[Gy]", True),
        ("D95[Gy] >= 57", "D50[Gy]", False),
        ("D50[Gy] <= 60", "D50[Gy]", False),
        ("V30Gy[%] >= 95", "Mean[Gy]", False),
        ("Mean[Gy] >= 55", "D50[Gy]", False),
    ],
)
def test_a_rule_is_held_by_a_lower_goal_on_as_much_of_its_own_structure(text, rule, held):
    """mutants: upper goals count; the volume not looked at; another structure's goal counts"""
    wishes = wishes_of(goal(text))
    assert holds(wishes, Normalisation("Organ", rule, 60.0)) is held
    assert not holds(wishes, Normalisation("Other", rule, 60.0))


def test_ideals_are_wishes_at_their_own_level_for_less():
    """One for each goal that names a better value. mutants: the limit's level; the limit's price; room on the wrong side"""
    organ = replace(goal("V20Gy[%] <= 30"), ideal=20.0)
    target = replace(goal("D95[Gy] >= 60", priority=1), ideal=61.0)
    same, without = replace(goal("Mean[Gy] <= 26"), ideal=26.0), goal("Max[Gy] <= 50")
    prescription = SimpleNamespace(goals=(organ, target, same, without), prescribed_gy=lambda structure: PRESCRIBED_GY)
    limits = build_wishes(prescription, {"Organ": points(N)}, room_gy=0.3)
    ideals = build_ideals(prescription, {"Organ": points(N)}, room_gy=0.3)
    assert [w.is_ideal for w in limits] == [False] * 4 and [w.is_ideal for w in ideals] == [True] * 2
    assert [w.level_gy for w in ideals] == pytest.approx([19.7, 61.3])
    assert [w.exempt for w in ideals] == pytest.approx([EXEMPT * 0.2, EXEMPT * 0.05])
    assert [w.price_cap for w in ideals] == pytest.approx([IDEAL_SHARE * w.price_cap for w in limits[:2]])


def test_a_volume_in_cc_is_a_share_of_the_whole_structure():
    """Every second voxel of 200 of 0.05 cc is a point: 1 cc of 10 cc is a tenth. mutant: the points' own volume"""
    every_second = Samples(np.arange(100), sp.identity(100, format="csr"), 10.0, np.arange(0, 200, 2))
    assert wish_of("D1cc[Gy] <= 45", organ=every_second).exempt == pytest.approx(EXEMPT * 0.1)


def test_points_between_voxels_are_their_mixture():
    """A point halfway between two voxels has their mean dose and pulls at both alike. mutant: the first voxel's dose"""
    halfway = Samples(np.array([3, 4]), sp.csr_matrix([[0.5, 0.5]]), 1.0, np.zeros(1))
    wish = wish_of("Mean[Gy] <= 20", organ=halfway)
    dose = np.zeros(10)
    dose[[3, 4]] = 10.0, 40.0
    assert wish.value_gy(dose) == pytest.approx(25.0)
    assert wish.pull(np.array([2.0]), dose) == pytest.approx([1.0, 1.0])


def test_a_goal_without_voxels_is_not_skipped():
    nowhere = Samples(np.empty(0, np.int64), sp.csr_matrix((0, 0)), 1.0, np.empty(0))
    with pytest.raises(PlanningFailed, match="Organ") as caught:
        wish_of("Mean[Gy] <= 26", organ=nowhere)
    assert caught.value.code == "GOAL_WITHOUT_VOXELS"


def test_an_organ_far_from_the_targets_is_judged_but_not_optimised():
    """An esophagus drawn from 60 mm below the targets on, where the optimiser's grid does not reach. mutants: no plan; its
    ideal kept; a lower limit dropped as well"""
    far = Samples(np.empty(0, np.int64), sp.csr_matrix((0, 0)), 1.0, np.empty(0), beyond=True)
    goals = tuple(replace(goal(text), ideal=20.0) for text in ("Mean[Gy] <= 26", "Max[Gy] <= 40"))
    assert wishes_of(*goals, organ=far) == ()
    prescription = SimpleNamespace(goals=goals, prescribed_gy=lambda structure: PRESCRIBED_GY)
    assert build_ideals(prescription, {"Organ": far}, room_gy=0.3) == ()
    with pytest.raises(PlanningFailed, match="Organ"):
        wish_of("D95[Gy] >= 57", organ=far)


@pytest.mark.parametrize(("limit_gy", "priority", "contested"), [(5, 2, 0.6), (5, 1, 0.0), (5, 0, 0.0), (55, 2, 0.0)])
def test_what_a_target_of_higher_priority_needs_costs_no_whole_price_at_every_point(limit_gy, priority, contested):
    """60 of an organ's 100 points lie in a target that wants 50 Gy. All of them together then ask for `WHOLE` times the cap
    at most. mutants: any priority claims; a level above the target's is contested; the lower wish's own price sinks"""
    target, organ = goal("D95[Gy] >= 50", "PTV", 1), goal(f"Max[Gy] <= {limit_gy}", "Core", priority)
    goals = (goal("D99[Gy] >= 45", "PTV", 2), target, organ)
    prescription = SimpleNamespace(goals=goals, prescribed_gy=lambda structure: PRESCRIBED_GY)
    samples = {"PTV": samples_of(np.arange(40, 400), VOXEL_CC), "Core": samples_of(np.arange(100), VOXEL_CC)}
    lower, _, upper = build_wishes(prescription, samples, room_gy=0.0)
    assert lower.contested == 0.0 and upper.contested == pytest.approx(contested)
    whole = upper.top_price * 0.6
    assert whole == pytest.approx((WHOLE if contested else 60.0) * upper.price_cap)


@pytest.mark.parametrize("text", NOT_CONVEX)
def test_a_goal_that_no_bound_holds_for_is_refused(text):
    # mutant: taken as any other
    with pytest.raises(PlanningFailed, match="EUD") as caught:
        wish_of(f"{text} 30")
    assert caught.value.code == "GOAL_NOT_CONVEX"


def test_no_goal_is_worth_more_than_one_of_higher_priority():
    # mutant: priorities beyond the list take the first price
    caps = [wishes_of(goal("Mean[Gy] <= 26", priority=p))[0].price_cap for p in range(9)]
    assert caps[: len(PRICE_CAPS)] == list(PRICE_CAPS) and np.all(np.diff(caps) <= 0)


# ---- what it costs


KINDS = ["Mean[Gy] <= 30", "Mean[Gy] >= 40", "EUD8[Gy] <= 40", "EUD-10[Gy] >= 30", "D20[Gy] <= 40", "D95[Gy] >= 30"]


def bargain(text, seed, n=N):
    """A wish in the middle of a bargain: some price, some voxels let off, doses on both sides of the level."""
    wish = wish_of(text, organ=points(n))
    rng = np.random.default_rng(seed + 100)
    size = n if wish.kind == "tail" else 1
    exempt = (rng.random(size) < 0.1) & (wish.kind == "tail")
    amount = np.where(exempt, 0.0, rng.uniform(0.0, 0.5, size) * wish.top_price)
    return wish, Price(amount, exempt, wish.stiffness), dose_of(seed, n)


@pytest.mark.parametrize("text", KINDS)
def test_the_penalty_s_gradient_agrees_with_finite_differences(text):
    # mutants: exponent a instead of a - 1; the old price's pull; pull of voxels that are let off
    pulled = False
    for seed in range(3):
        wish, price, dose = bargain(text, seed, 30)
        gradient = penalty(wish, price, dose)[2]
        step = 1e-5 * np.eye(30)
        found = [(penalty(wish, price, dose + e)[0] - penalty(wish, price, dose - e)[0]) / 2e-5 for e in step]
        np.testing.assert_allclose(gradient, found, rtol=1e-4, atol=1e-5 * np.abs(gradient).max())
        pulled |= bool(np.any(gradient))
    assert pulled


@pytest.mark.parametrize("text", KINDS)
def test_the_penalty_lies_between_lagrangian_and_elastic_cost(text):
    """Less the constant price² / (2 stiffness), so that it is never negative: price · c <= penalty <= cap · max(c, 0).

    mutants: half of the quadratic forgotten; asked price not capped
    """
    for seed in range(20):
        wish, price, dose = bargain(text, seed)
        for level in (1.0, 15.0, 40.0, 65.0):
            at = replace(wish, level_gy=level)
            value, bound, _ = penalty(at, price, dose)
            beyond, weight = at.beyond_gy(dose), at.weight()
            constant = float(weight @ price.amount**2) / (2 * price.stiffness)
            counted = np.where(price.exempt, 0.0, beyond)
            slack = 1e-9 * (1 + abs(value))
            assert value >= 0.0
            assert float(weight @ (price.amount * beyond)) - slack <= value - constant
            assert value - constant <= wish.top_price * float(weight @ np.maximum(counted, 0.0)) + slack
            assert bound <= full_cost(at, price, dose) + slack


@pytest.mark.parametrize("text", KINDS)
def test_prices_stay_between_nothing_and_the_cap(text):
    for seed in range(5):
        wish, price, dose = bargain(text, seed)
        for k in range(30):
            price = updated_price(wish, price, dose + 20.0 * np.sin(k + seed), choose=True)
            asked = asked_price(wish, price, wish.beyond_gy(dose))
            for amount in (price.amount, asked):
                assert amount.min() >= 0.0 and amount.max() <= wish.top_price
            assert price.stiffness <= STIFFEST * wish.stiffness


@pytest.mark.parametrize("text", KINDS)
def test_a_wish_that_is_kept_costs_nothing_in_the_end(text):
    # mutant: a price that never falls
    wish, price, _ = bargain(text, 1)
    kept = np.full(N, wish.level_gy + (-1.0 if wish.upper else 1.0))
    assert price.amount.max() > 0
    for _ in range(int(wish.top_price / wish.stiffness) + 2):
        price = updated_price(wish, price, kept, choose=True)
    value, bound, gradient = penalty(wish, price, kept)
    assert price.amount.max() == value == bound == np.abs(gradient).max() == full_cost(wish, price, kept) == 0.0


@pytest.mark.parametrize("text", KINDS)
def test_a_wish_that_cannot_be_kept_asks_for_its_whole_price(text):
    wish, price, _ = bargain(text, 2)
    worse = np.full(N, wish.level_gy + (5.0 if wish.upper else -5.0))
    for _ in range(60):
        price = updated_price(wish, price, worse, choose=True)
    assert price.amount[~price.exempt].min() == wish.top_price
    assert spent(wish, price) == pytest.approx(1.0)
    cost = wish.top_price * (5.0 - TOLERANCE_GY) * float(wish.weight()[~price.exempt].sum())
    assert full_cost(wish, price, worse) == pytest.approx(cost)


@pytest.mark.parametrize("text", ["D20[Gy] <= 40", "D95[Gy] >= 30", "V50Gy[cc] <= 3", "Max[Gy] <= 40", "D99[Gy] >= 50"])
def test_no_more_is_let_off_than_the_goal_lets_off_and_that_are_the_worst(text):
    # mutants: searchsorted one further; the best let off
    for seed in range(10):
        wish, _, dose = bargain(text, seed)
        price = updated_price(wish, first_prices((wish,))[0], dose, choose=True)
        assert float(wish.share[price.exempt].sum()) <= wish.exempt + 1e-12
        assert float(wish.share[price.exempt].sum()) >= wish.exempt - wish.share.max()
        beyond = wish.beyond_gy(dose)
        if price.exempt.any():
            assert beyond[price.exempt].min() >= beyond[~price.exempt].max()
        assert not price.amount[price.exempt].any()


def test_who_is_let_off_rests_where_it_is_not_asked():
    # mutant: chosen anew always
    wish, _, dose = bargain("D20[Gy] <= 40", 3)
    price = updated_price(wish, first_prices((wish,))[0], dose, choose=True)
    later = updated_price(wish, price, dose[::-1], choose=False)
    assert later.exempt.any() and np.array_equal(later.exempt, price.exempt)


def test_those_who_keep_to_a_goal_on_a_volume_meet_it():
    """All voxels but those let off at the level: the goal is met, with room. mutant: 1 / EXEMPT of the volume let off"""
    for text in ("V20Gy[%] <= 30", "D95[Gy] >= 57", "V30Gy[cc] <= 2"):
        asked = goal(text)
        (wish,) = wishes_of(asked)
        price = updated_price(wish, first_prices((wish,))[0], dose_of(4), choose=True)
        dose = np.where(price.exempt, 70.0 if wish.upper else 1.0, wish.level_gy - (1e-6 if wish.upper else 0.0))
        assert asked.met_by(evaluate_metric(asked.metric, dose, VOXEL_CC, PRESCRIBED_GY))
        assert full_cost(wish, price, dose) == 0.0


# ---- what is out of reach


@pytest.mark.parametrize("text", ["Mean[Gy] <= 30", "Mean[Gy] >= 40", "EUD8[Gy] <= 40", "Max[Gy] <= 40", "D95[Gy] >= 30"])
def test_only_what_is_out_of_reach_is_let_go(text):
    # mutants: or instead of and; the slip on the wrong side
    wish = wish_of(text)
    away = 1.0 if wish.upper else -1.0
    far, near = (np.full(N, wish.level_gy + away * d) for d in (10.0, 0.9 * OUT_OF_REACH_GY))
    (nothing,) = first_prices((wish,))
    size = len(nothing.amount)
    everything = Price(np.full(size, wish.top_price), np.zeros(size, dtype=bool), wish.stiffness)
    assert within_reach(wish, nothing, far) is wish  # nobody has asked yet
    assert within_reach(wish, everything, near) is wish
    let_go = within_reach(wish, everything, far)
    assert away * (let_go.level_gy - wish.level_gy) > 10.0  # what was reached is kept, and a little less will do
    assert away * (let_go.level_gy - wish.level_gy) < 10.0 + 0.02 * wish.level_gy
    assert full_cost(let_go, everything, far) == 0.0
    assert let_go.let_go and not wish.let_go


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="sum 1"):
        replace(wish_of("Mean[Gy] <= 26"), share=np.ones(N))
