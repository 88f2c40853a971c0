"""What planning does with segments and fluence between the steps."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import small_plan
from point_samples import samples_of

from rtplan import arc_planning, planning
from rtplan.domain.beams import Beam
from rtplan.domain.dose import dose_in_mask
from rtplan.domain.example_context import example_machine
from rtplan.domain.goals import Goal, parse_metric
from rtplan.domain.influence import Beamlets, FluencePlan
from rtplan.domain.prescription import Normalisation, PrescribedTarget
from rtplan.planning import (
    IDEAL_ITERATIONS,
    INSISTENCE,
    corrected,
    fluence_maps,
    for_apertures,
    goals_first,
    ideal_fluence,
    measured_wishes,
    plan_segments,
    plan_with_mu,
    with_least_mu,
)
from rtplan.registry import shelf
from rtplan.steps.final_dose import scaled_plan
from rtplan.steps.optimise import Problem, Term, neighbour_smoothness
from rtplan.steps.place_beams import unused_beams
from rtplan.steps.samples import Samples
from rtplan.steps.wishes import Price, build_wishes, first_prices


def test_new_mu_reach_their_own_segments():
    # mutant: hand the MU out beam by beam in reverse
    plan = small_plan.plan((small_plan.static_beam(1, 0.0, (10.0, 20.0)), small_plan.static_beam(2, 90.0, (5.0,))))
    changed = plan_with_mu(plan, np.array([1.0, 2.0, 3.0]))
    assert [s.mu for s in plan_segments(changed)] == [1.0, 2.0, 3.0]
    assert [b.mu for b in changed.beams] == [3.0, 3.0]
    for before, after in zip(plan_segments(plan), plan_segments(changed), strict=True):
        np.testing.assert_array_equal(before.aperture.leaf_x1_mm, after.aperture.leaf_x1_mm)


def test_no_segment_stays_below_the_least_mu():
    # mutant: raise the beam's MU instead of the segment's
    plan = small_plan.plan((small_plan.static_beam(1, 0.0, (10.0, 0.5, 3.0)),))
    assert [s.mu for s in plan_segments(with_least_mu(plan, example_machine()))] == pytest.approx([10.0, 2.0, 3.0])
    assert with_least_mu(plan, replace(example_machine(), min_segment_mu=0.5)) is plan


def test_scaling_a_plan_scales_every_control_point():
    plan = small_plan.plan()
    scaled = scaled_plan(plan, 1.25)
    assert scaled.mu == pytest.approx(1.25 * plan.mu)
    for before, after in zip(plan.beams, scaled.beams, strict=True):
        assert [c.cumulative_mu * 1.25 for c in before.control_points] == [c.cumulative_mu for c in after.control_points]


def test_fluence_maps_carry_each_beamlet_to_its_place():
    # mutant: swap rows and columns; mutant: all beamlets on the first beam
    beams = tuple(Beam(f"b{i}", 90.0 * i, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0) for i in range(2))
    beamlets = Beamlets(
        beams,
        np.array([0, 0, 0, 1]),
        np.array([3, 3, 4, 3]),
        np.array([-5.0, 0.0, 5.0, 10.0]),
        np.array([0.0, 5.0, 10.0, 15.0]),
        np.array([0.0, 0.0, 5.0, 0.0]),
        np.array([5.0, 5.0, 15.0, 5.0]),
    )
    first, second = fluence_maps(beamlets, np.array([1.0, 2.0, 3.0, 7.0]))
    np.testing.assert_array_equal(first.fluence_mu, [[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    np.testing.assert_array_equal(first.y_edges_mm, [0.0, 5.0, 15.0])
    np.testing.assert_array_equal(second.fluence_mu, [[7.0]])
    assert second.beam is beams[1]


def test_a_beam_without_segments_is_told():
    # mutant: compare the number of beams with itself
    plan = small_plan.plan((small_plan.static_beam(1, 0.0, (10.0,)),))
    kept = plan.beams[0].beam
    lost = replace(kept, name="lost")
    assert [f.code for f in unused_beams((kept, lost), plan)] == ["BEAM_UNUSED"]
    assert "lost" in unused_beams((kept, lost), plan)[0].message


def wishes_of(*goals, sets):
    made = tuple(Goal(name, parse_metric(m), sense, limit, 2, "made up", "unverified") for name, m, sense, limit in goals)
    prescription = SimpleNamespace(goals=made, prescribed_gy=lambda structure: 70.0)
    samples = {name: samples_of(rows, 0.05) for name, (rows, _) in sets.items()}
    return build_wishes(prescription, samples, room_gy=0.3)


def parotid(metric, every):
    """A goal on every k-th of the parotid's CT voxels, each halfway between two rows; the model; and the voxels' dose."""
    structures, dose = small_plan.structures(), small_plan.dose()
    voxels = dose_in_mask(dose, structures["Parotid_L"].mask, structures.grid).astype(float)
    chosen = np.arange(0, len(voxels), every)
    rows = np.arange(len(chosen) + 1)
    mixing = sp.csr_matrix((np.eye(len(chosen), len(rows)) + np.eye(len(chosen), len(rows), 1)) / 2)
    samples = {"Parotid_L": Samples(rows, mixing, 1.0, chosen)}
    goal = Goal("Parotid_L", parse_metric(metric), "<=", 30.0, 3, "made up", "unverified")
    prescription = SimpleNamespace(goals=(goal,), prescribed_gy=lambda structure: 70.0)
    (wish,) = build_wishes(prescription, samples, room_gy=0.3)
    return wish, SimpleNamespace(structures=structures, samples=samples), dose, voxels


@pytest.mark.parametrize("metric", ["Mean[Gy]", "D20[Gy]", "Max[Gy]", "EUD8[Gy]"])
def test_points_are_measured_where_the_ct_has_them(metric):
    """Every point has its voxel's dose, whatever the rows show there, and the level stays. More dose in the rows is more at
    the points. Measured again, the first measurement is forgotten. mutants: levels shifted besides; differences that add up;
    the dose of other voxels"""
    wish, model, dose, voxels = parotid(metric, 1)
    full = np.linspace(1.0, 30.0, len(wish.rows))
    (first,) = measured_wishes(model, (wish,), dose, full)
    np.testing.assert_allclose(first.at_points(full), voxels)
    assert first.level_gy == pytest.approx(wish.level_gy) and first.unseen_gy == pytest.approx(0.0)
    assert np.abs(wish.at_points(full) - voxels).max() > 1.0
    np.testing.assert_allclose(first.at_points(full + 3.0), voxels + 3.0)
    (again,) = measured_wishes(model, (first,), dose, 2.0 * full)
    np.testing.assert_allclose(again.at_points(2.0 * full), voxels)


@pytest.mark.parametrize("metric", ["Mean[Gy]", "D20[Gy]", "Max[Gy]", "EUD8[Gy]"])
def test_levels_allow_for_voxels_that_are_no_points(metric):
    """Where the points' value stands at the new level, that of all voxels stands at the old one. mutants: the sign of what
    is unseen; shifts that add up; the first points taken for every k-th"""
    wish, model, dose, voxels = parotid(metric, 7)
    full = np.linspace(1.0, 30.0, len(wish.rows))
    (first,) = measured_wishes(model, (wish,), dose, full)
    np.testing.assert_allclose(first.at_points(full), voxels[::7])
    every = parotid(metric, 1)[0]
    of_all = every._value(voxels)
    assert first.level_gy == pytest.approx(wish.level_gy - (of_all - wish._value(voxels[::7])))
    (again,) = measured_wishes(model, (first,), dose, full)
    assert again.level_gy == pytest.approx(first.level_gy)


@pytest.mark.parametrize(
    ("metric", "d50_gy", "level_gy"), [("D95[Gy]", 71.4, 68.6), ("D95[Gy]", 70.2, 70.0), ("D50[Gy]", 71.4, 70.0)]
)
def test_a_target_is_asked_for_what_its_normalisation_leaves(metric, d50_gy, level_gy):
    """The rule says D50 = 70 Gy. Where the full dose has 71.4, its target's levels sink by what the rule will take, for a
    goal on another volume; within the room, or where a goal holds the rule's own metric, they stay, and residuals are
    measured alike. mutants: the factor upside down; any rule counts as held; no room; the residual forgotten"""
    sets = {"PTV_7000": (np.arange(5), np.ones(5))}
    wishes = wishes_of(("PTV_7000", metric, ">=", 60.0), sets=sets)
    term = Term("PTV_7000", shelf("rtplan.objectives")["underdose"](dose_gy=70.0), 1.0, *sets["PTV_7000"])
    problem = Problem(
        SimpleNamespace(apply=lambda w: w), (term,), 1, np.full(5, 99.0), wishes=wishes, prices=first_prices(wishes)
    )
    protocol = SimpleNamespace(normalisation=Normalisation("PTV_7000", "D50[Gy]", 70.0))
    prescription = SimpleNamespace(protocol=protocol, targets=(PrescribedTarget("PTV_7000", 70.0),), goals=())
    model = SimpleNamespace(
        prescription=prescription,
        samples={"PTV_7000": samples_of(np.arange(5), 0.05)},
        residual_gy=lambda full, fluence: full - fluence,
    )
    full = d50_gy + np.linspace(-3.0, 3.0, 5)
    after = corrected(model, problem, np.full(5, 60.0), full)
    np.testing.assert_allclose(after.offset_gy, full - 60.0)
    assert after.terms[0].objective.dose_gy == pytest.approx(level_gy, abs=0.05)


def test_apertures_insist_on_what_the_fluence_kept_and_let_the_rest_go():
    # mutants: insist on all; keep the smoothness
    beams = (Beam("b", 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), 1000.0),)
    beamlets = Beamlets(beams, *np.array([[0, 0], [3, 3], [0, 5], [5, 10], [0, 0], [5, 5]], dtype=float))
    operator = SimpleNamespace(apply=lambda w: np.array([[1.0, 0.0], [0.0, 1.0]]) @ w)
    sets = {"Near": (np.array([0]), np.ones(1)), "Far": (np.array([1]), np.ones(1))}
    wishes = wishes_of(("Near", "Mean[Gy]", "<=", 30.0), ("Far", "Mean[Gy]", "<=", 30.0), sets=sets)
    prices = (first_prices(wishes)[0], Price(np.array([wishes[1].price_cap]), np.zeros(1, dtype=bool), 6.0))
    term = Term("x", shelf("rtplan.objectives")["overdose"](dose_gy=1.0), 1.0, np.array([0]), np.ones(1))
    smooth = neighbour_smoothness(beamlets, 1.0)
    problem = Problem(operator, (term,), 1, np.full(2, 99.0), smoothness=smooth, wishes=wishes, prices=prices)
    after = for_apertures(problem, FluencePlan(beamlets, np.array([29.0, 45.0]), 0.0, 0.0, 1, True))
    assert after.smoothness is None
    assert after.wishes[0].price_cap == INSISTENCE * wishes[0].price_cap
    assert after.wishes[0].level_gy == wishes[0].level_gy
    assert after.wishes[1].price_cap == wishes[1].price_cap
    assert after.wishes[1].level_gy >= 45.0


def of_one_target(limit_gy: float) -> Problem:
    """A target of one voxel with a goal on its mean and an ideal 5 Gy below."""
    (goal,) = wishes_of(("Target", "Mean[Gy]", "<=", limit_gy), sets={"Target": (np.array([0]), np.ones(1))})
    term = Term("x", shelf("rtplan.objectives")["overdose"](dose_gy=1.0), 1.0, np.array([0]), np.ones(1))
    operator = SimpleNamespace(apply=lambda w: w, beamlets=None)
    return Problem(operator, (term,), 1, np.full(1, 99.0), wishes=(goal,), prices=first_prices((goal,)))


@pytest.mark.parametrize(("dose_gy", "pursued"), [(29.0, True), (31.0, False)])
def test_ideals_are_pursued_only_where_every_goal_is_met(monkeypatch, dose_gy, pursued):
    # mutants: ideals from the start; ideals although a goal is missed
    problem = of_one_target(30.0)
    goal = replace(problem.wishes[0].goal, ideal=25.0)
    protocol = SimpleNamespace(normalisation=None)
    prescription = SimpleNamespace(goals=(goal,), prescribed_gy=lambda structure: 70.0, protocol=protocol)
    model = SimpleNamespace(
        prescription=prescription,
        samples={"Target": samples_of(np.array([0]), 0.05)},
        operator=problem.operator,
        full_dose_gy=lambda maps: np.array([dose_gy]),
        residual_gy=lambda full, weights: np.zeros(1),
    )
    seen = []

    def solved(problem, weights, *, max_iterations, progress):
        seen.append((max_iterations, [w.is_ideal for w in problem.wishes]))
        return FluencePlan(None, np.array([dose_gy]), 0.0, 0.0, 1, True), problem

    monkeypatch.setattr(planning, "first_problem", lambda model: (problem, np.ones(1)))
    monkeypatch.setattr(planning, "optimise", solved)
    monkeypatch.setattr(planning, "fluence_maps", lambda *a, **k: ())
    _, after = ideal_fluence(model, lambda *a: None, rounds=(3, 4))
    ideal = [(IDEAL_ITERATIONS, [False, True])] if pursued else []
    assert seen == [(3, [False]), (4, [False]), *ideal]
    assert len(after.wishes) == len(after.prices) == (2 if pursued else 1)


@pytest.mark.parametrize(("dose_gy", "after_second"), [(29.0, [False, True]), (31.0, [False])])
def test_arcs_give_up_ideals_too_but_only_after_two_rounds(dose_gy, after_second, monkeypatch):
    # mutants: after the first round, when arcs are still far from their goals; never
    problem = of_one_target(30.0)
    ideal = replace(problem.wishes[0], is_ideal=True, level_gy=24.7)
    problem = replace(problem, wishes=(*problem.wishes, ideal), prices=first_prices((problem.wishes[0], ideal)))
    made, seen = SimpleNamespace(fluence=lambda: np.array([dose_gy])), []

    def optimised(problem, arcs, *, steps, progress):
        seen.append([w.is_ideal for w in problem.wishes])
        return arcs, problem

    monkeypatch.setattr(arc_planning, "arcs_following", lambda *a: made)
    monkeypatch.setattr(arc_planning, "plan_of_arcs", lambda *a: None)
    monkeypatch.setattr(arc_planning, "plan_fluence", lambda *a, **k: ())
    monkeypatch.setattr(arc_planning, "optimise_arcs", optimised)
    for name in ("corrected", "measured"):
        monkeypatch.setattr(planning, name, lambda model, problem, *a: problem)
    monkeypatch.setattr(planning, "for_apertures", lambda problem, fluence: problem)
    model = SimpleNamespace(machine=None, fractions=1, full_dose_gy=lambda maps: None)
    fluence = SimpleNamespace(weights_mu=np.ones(1), beamlets=None)
    arc_planning.deliverable(model, (), fluence, problem, lambda plan: None, lambda *a: None)  # type: ignore[arg-type]
    assert seen == [[False, True], [False, True], after_second, after_second]


@pytest.mark.parametrize(("dose_gy", "missed"), [(30.1, True), (29.9, False)])
@pytest.mark.parametrize("metric", ["Mean[Gy]", "Max[Gy]"])
def test_a_goal_is_missed_beyond_its_limit_whatever_its_room(metric, dose_gy, missed):
    # mutants: beyond the level; beyond the level by the same for all
    problem = of_one_target(30.0)
    (wish,) = wishes_of(("Organ", metric, "<=", 30.0), sets={"Organ": (np.arange(1), np.ones(1))})
    ideal = replace(wish, is_ideal=True)
    problem = replace(problem, wishes=(wish, ideal), prices=first_prices((wish, ideal)))
    assert len(goals_first(problem, np.array([dose_gy])).wishes) == (1 if missed else 2)
