"""Optimised arcs: the objective falls, the model is what the plan delivers, and the machine can always turn it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from half_moon import FRACTIONS, problem_on
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtplan.checks import run_checks
from rtplan.domain.beams import Beam
from rtplan.domain.example_context import example_context, example_machine
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import Machine
from rtplan.domain.motion import dose_rate_mu_min, intervals
from rtplan.domain.prescription import Arc
from rtplan.errors import PlanningFailed
from rtplan.steps.arc_apertures import Arcs, _Search, mu_limits, optimise_arcs, plan_of_arcs, raised_arcs
from rtplan.steps.arc_start import arcs_following
from rtplan.steps.arc_tips import arc_field
from rtplan.steps.final_dose import scaled_plan
from rtplan.steps.fluence import plan_fluence
from rtplan.steps.optimise import Problem, optimise_weights
from rtplan.steps.place_beams import ArcBeams, arc_angles_deg

DOSE_CHECKS = {"DOSE_IMPLAUSIBLE", "DOSE_GRID", "DOSE_SUM"}
PER_BEAM = 3


def arcs(n_arcs: int = 2, start_deg: float = 200.0) -> tuple[ArcBeams, ...]:
    """Arcs of 60 degrees to and fro, beams 12 degrees apart, each for three intervals of 4 degrees."""
    found = []
    for i in range(n_arcs):
        arc = Arc(start_deg, start_deg + 60.0, "CW", 10.0) if i % 2 == 0 else Arc(start_deg + 60.0, start_deg, "CC", 350.0)
        angles = arc_angles_deg(arc, 4.0)
        sign = 1.0 if arc.direction == "CW" else -1.0
        middles = np.mod(angles[:-1:PER_BEAM] + sign * 6.0, 360.0)
        beams = tuple(beam(f"A{i} {a:g}", float(a), arc) for a in middles)
        found.append(ArcBeams(arc, beam(f"ARC{i}", float(angles[0]), arc), angles, beams))
    return tuple(found)


def beam(name: str, angle_deg: float, arc: Arc) -> Beam:
    return Beam(name, angle_deg, arc.collimator_angle_deg, 0.0, (0.0, 0.0, 0.0), 1000.0)


def beamlets_of(plan_arcs: tuple[ArcBeams, ...], machine: Machine, half_mm: float = 30.0) -> Beamlets:
    """Beamlets of 5 mm within a circle, in each beam."""
    bounds, cells = machine.mlc.leaf_boundaries_mm, []
    beams = tuple(b for arc in plan_arcs for b in arc.middles)
    for i in range(len(beams)):
        for k in range(machine.mlc.n_pairs):
            y = (bounds[k] + bounds[k + 1]) / 2
            for x in np.arange(-half_mm, half_mm, 5.0):
                if np.hypot(x + 2.5, y) < half_mm - (i % 3) * 2.0:
                    cells.append((i, k, x, x + 5.0, bounds[k], bounds[k + 1]))
    table = np.array(cells)
    return Beamlets(beams, table[:, 0].astype(np.int32), table[:, 1].astype(np.int32), *table[:, 2:].T)


def fields_of(plan_arcs: tuple[ArcBeams, ...], beamlets: Beamlets, machine: Machine):
    fields, first = [], 0
    for arc in plan_arcs:
        fields.append(arc_field(beamlets, arc, first, machine))
        first += len(arc.middles)
    return fields


@cache
def begun() -> tuple[Machine, Problem, Arcs]:
    machine, plan_arcs = example_machine(), arcs()
    beamlets = beamlets_of(plan_arcs, machine)
    problem = problem_on(beamlets)
    weights = optimise_weights(problem, np.full(len(beamlets), 1.0), max_iterations=40).weights
    return machine, problem, arcs_following(weights, fields_of(plan_arcs, beamlets, machine), beamlets, machine)


@cache
def optimised(steps: int = 40) -> Arcs:
    _, problem, start = begun()
    return optimise_arcs(problem, start, steps=steps)[0]


def dose_part(problem: Problem, found: Arcs) -> float:
    return problem.evaluate(np.zeros(len(found.beamlets)), problem.image(found.fluence())).value


def faults(plan, machine: Machine):
    context = replace(example_context(), plan=plan, machine=machine)
    return [(r.check_id, r.message) for r in run_checks(context) if not r.passed and r.check_id not in DOSE_CHECKS]


def test_arcs_begin_near_the_fluence_they_follow():
    # mutants: steps all at one height; MU not shared among a beam's intervals
    _, problem, start = begun()
    nothing = problem.evaluate(np.zeros(len(start.beamlets)), problem.image(np.zeros(len(start.beamlets)))).value
    assert dose_part(problem, start) < 0.35 * nothing


def test_every_second_arc_takes_the_other_side_of_what_is_spared():
    """Of two equal humps with nothing between. mutant: no side preferred"""
    machine, plan_arcs = example_machine(), arcs()
    beamlets = beamlets_of(plan_arcs, machine)
    humps = np.where(np.abs((beamlets.x1_mm + beamlets.x2_mm) / 2) > 6.0, 3.0, 0.0)
    start = arcs_following(humps, fields_of(plan_arcs, beamlets, machine), beamlets, machine)
    left, right = (float(((t.x1_mm + t.x2_mm) / 2)[1:-1].mean()) for t in start.tips)
    assert left < -5.0 and right > 5.0


def test_the_objective_falls_far_by_moving_tips():
    # mutants: tips that stand still; MU that stand still
    _, problem, start = begun()
    after = optimised()
    assert dose_part(problem, after) < 0.2 * dose_part(problem, start)
    moved = max(float(np.abs(a.x1_mm - b.x1_mm).max()) for a, b in zip(after.tips, start.tips, strict=True))
    assert moved > 5.0
    assert max(float(np.abs(a - b).max()) for a, b in zip(after.mu, start.mu, strict=True)) > 0.5


def test_the_gradient_by_mu_and_tips_agrees_with_finite_differences():
    # mutants: leakage left out of the MU's; opening beyond the beamlets free; an arc's variables in another's place
    _, problem, _ = begun()
    search = _Search(problem, optimised(12))
    here = search.at(search.first())
    assert search.beyond > 0.0
    rng = np.random.default_rng(4)
    for j in [*rng.integers(0, search.n_mu, 8), *rng.integers(search.n_mu, len(here.flat), 60)]:
        found = []
        for step in (1e-4, -1e-4):
            found.append(search.at(_with(search, here.setting, int(j), step)).value)
        assert here.gradient[j] == pytest.approx((found[0] - found[1]) / 2e-4, rel=1e-3, abs=2e-3)


def _with(search: _Search, setting: Arcs, j: int, step: float) -> Arcs:
    """The setting with one variable moved, legal or not."""
    flat = search.flat(setting)
    flat[j] += step
    at, mus, tips = 0, [], []
    for mu in setting.mu:
        mus.append(flat[at : at + len(mu)])
        at += len(mu)
    for t in setting.tips:
        x1, x2 = flat[at : at + 2 * t.x1_mm.size].reshape(2, *t.x1_mm.shape)
        tips.append(replace(t, x1_mm=x1, x2_mm=x2))
        at += 2 * t.x1_mm.size
    return replace(setting, mu=tuple(mus), tips=tuple(tips))


def test_the_machine_can_turn_what_was_optimised_at_its_full_speed():
    # mutants: least MU of another interval; way of another speed; closed pairs anywhere; one control
    # point for each interval; jaws that move
    machine, _, start = begun()
    for found in (start, optimised()):
        plan = plan_of_arcs(found if found is not start else _legal_mu(start), FRACTIONS)
        assert faults(plan, machine) == []
        for b in plan.beams:
            assert np.abs(b.turns_deg).max() <= machine.arc.max_spacing_deg + 1e-9
            assert all(i.leaf_mm / 25.0 <= i.turn_deg / 6.0 + 1e-9 for i in intervals(b))
            assert min(dose_rate_mu_min(i, machine) for i in intervals(b)) >= machine.arc.min_dose_rate_mu_min
            assert len({(c.aperture.jaw_x1_mm, c.aperture.jaw_y2_mm) for c in b.control_points}) == 1
            for a in (c.aperture for c in b.control_points):  # the outermost pairs are beyond the target: under an X jaw
                assert a.leaf_x1_mm[0] == a.leaf_x1_mm[-1] and not a.jaw_x1_mm < a.leaf_x1_mm[0] < a.jaw_x2_mm
        assert [b.rotation for b in plan.beams] == ["CW", "CC"]


def _legal_mu(found: Arcs) -> Arcs:
    mu = [np.clip(m, *mu_limits(f.turn_deg, found.machine)) for f, m in zip(found.fields, found.mu, strict=True)]
    return replace(found, mu=tuple(mu))


@settings(max_examples=16, deadline=None, derandomize=True)
@given(
    speed=st.sampled_from([5.0, 25.0, 65.0]),
    gap_mm=st.sampled_from([0.0, 0.5, 3.0]),
    span_mm=st.sampled_from([40.0, 150.0]),
    area_cm2=st.sampled_from([1.0, 4.0]),
    spacing_deg=st.sampled_from([2.0, 5.0]),
    rate_mu_min=st.sampled_from([30.0, 120.0]),
)
@example(
    speed=5.0, gap_mm=0.0, span_mm=40.0, area_cm2=4.0, spacing_deg=2.0, rate_mu_min=120.0
)  # a column a row is not enough
def test_every_machine_can_turn_its_arcs(
    speed: float, gap_mm: float, span_mm: float, area_cm2: float, spacing_deg: float, rate_mu_min: float
):
    """Of a course so long that no interval wants the least MU. mutants: area at intervals instead of control points;
    windows of banks left out; the lowest dose rate forgotten"""
    plain = example_machine()
    mlc = replace(plain.mlc, max_leaf_speed_mm_s=speed, min_gap_mm=gap_mm, max_span_mm=span_mm)
    limits = replace(plain.arc, max_spacing_deg=spacing_deg, min_dose_rate_mu_min=rate_mu_min)
    machine = replace(plain, mlc=mlc, min_segment_area_cm2=area_cm2, arc=limits)
    plan_arcs = arcs()
    beamlets = beamlets_of(plan_arcs, machine)
    weights = np.random.default_rng(3).uniform(0.0, 3.0, len(beamlets))
    start = arcs_following(weights, fields_of(plan_arcs, beamlets, machine), beamlets, machine)
    found, _ = optimise_arcs(problem_on(beamlets, fractions=3000), start, steps=3)
    assert faults(plan_of_arcs(found, FRACTIONS), machine) == []


def test_the_fluence_of_arcs_is_what_the_plan_delivers():
    """Summed over each beam's intervals, away from the jaws. mutants: half an interval's motion; leakage forgotten"""
    machine, _, _ = begun()
    found = optimised()
    wanted, maps = found.fluence(), plan_fluence(plan_of_arcs(found, FRACTIONS), machine, pixel_mm=0.5, arc_step_deg=4.0)
    per_arc = len(maps) // 2
    for j in np.arange(0, len(found.beamlets), 7):
        b = found.beamlets
        beam_in_arc, arc = int(b.beam_index[j]) % 5, int(b.beam_index[j]) // 5
        delivered = 0.0
        for field in maps[arc * per_arc + PER_BEAM * beam_in_arc :][:PER_BEAM]:
            x = slice(*np.searchsorted(field.x_edges_mm, [b.x1_mm[j] - 0.1, b.x2_mm[j] - 0.1]))
            y = slice(*np.searchsorted(field.y_edges_mm, [b.y1_mm[j] - 0.1, b.y2_mm[j] - 0.1]))
            delivered += float(field.fluence_mu[y, x].mean()) if field.fluence_mu[y, x].size else 0.0
        scale = float(sum(m.sum() for m in found.mu)) / 10
        assert delivered == pytest.approx(wanted[j], abs=0.03 * scale)


def test_intervals_below_the_least_mu_are_raised_and_others_left():
    # mutant: the whole arc scaled
    machine, _, _ = begun()
    plan = plan_of_arcs(optimised(), FRACTIONS)
    assert raised_arcs(plan, machine) is plan
    weakest = min(i.mu for b in plan.beams for i in intervals(b))
    weak = scaled_plan(plan, 0.2 / weakest)  # half of 0.1 MU per degree
    strong = raised_arcs(weak, machine)
    before, after = ([i.mu for b in p.beams for i in intervals(b)] for p in (weak, strong))
    assert faults(weak, machine) and faults(strong, machine) == []
    assert all(a >= b - 1e-9 for a, b in zip(after, before, strict=True)) and max(before) == pytest.approx(max(after))


def test_an_arc_of_more_mu_than_a_beam_may_give_is_refused():
    found = optimised()
    with pytest.raises(PlanningFailed) as caught:
        plan_of_arcs(replace(found, mu=tuple(m * 100 for m in found.mu)), FRACTIONS)
    assert caught.value.code == "BEAM_MU"
