"""From a prescribed patient to a deliverable plan: ideal fluence, apertures, and both corrected by the full dose.

The influence operator holds the near field of each beamlet. What it leaves out (scatter from afar, tongue and groove, jaws,
the blur of the source) is measured: the full dose minus the operator's, added to the optimiser's dose as a fixed offset and
measured again after each solution. What is optimised is so what is delivered. How the dose at the CT's own voxels differs
from what the optimiser's voxels show there is measured point by point in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import FluenceMap
from rtplan.domain.dose import Dose, dose_at_index, dose_in_mask
from rtplan.domain.goals import Certificate, Goal, evaluate_metric, parse_metric
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets, FluencePlan, InfluenceOperator
from rtplan.domain.machine import Machine
from rtplan.domain.openings import static_segments
from rtplan.domain.plan import DeliverablePlan, Segment, step_and_shoot_beam
from rtplan.domain.prescription import Prescription
from rtplan.domain.progress import Progress
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import PlanningFailed
from rtplan.registry import shelf
from rtplan.steps.arc_apertures import raised_arcs
from rtplan.steps.certificate import LowestOf, Question, certified, over_the_box
from rtplan.steps.direct_aperture import Segments, optimise_apertures, with_new_segments
from rtplan.steps.final_dose import LEAST_MU_MARGIN
from rtplan.steps.fluence import plan_fluence
from rtplan.steps.insistence import Standing, insisted, standing
from rtplan.steps.judging import JudgingDose
from rtplan.steps.optimise import Problem, neighbour_smoothness, optimise, uniform_weights
from rtplan.steps.samples import Samples
from rtplan.steps.sequence import first_segments, plan_of
from rtplan.steps.shaping import shaping_terms, surroundings, with_target_levels
from rtplan.steps.wishes import Wish, build_ideals, build_wishes, first_prices, holds, within_reach

Floats = NDArray[np.float64]

BOUND_OVER_UNIFORM = 10.0  # no beamlet may carry more than this many times the fluence of equal weights
FLUENCE_ROUNDS = (25, 35, 60)  # iterations between two measurements of the full dose
IDEAL_ITERATIONS = 60  # more, for the protocol's ideals, where every goal is met
SEGMENT_ROUNDS = (20, 15, 15)  # steps of apertures between two measurements of the full dose, while segments come and go
JUDGED_STEPS = 25  # and between two on the grid that is judged
FEWEST_ROUNDS, MOST_ROUNDS = 4, 11  # of these: more than the fewest only for goals that are missed
PATIENCE = 5  # rounds without a better plan that end them
FINAL_FROM = 3  # round from which on the dose is measured as it is judged, and plans are told apart
INSISTENCE = 4.0  # price cap for apertures over that for the ideal fluence
SMOOTHNESS = 0.1  # of the squared highest prescription, spread over pairs of beamlets that differ by the mean weight
ROOM_GY = 0.3  # inside every limit: what the last rounding and the normalisation take


@dataclass(frozen=True, slots=True, eq=False)
class PlanningModel:
    """What the optimiser works on: the operator on the optimisation grid, who is where, and how to get the full dose there.

    `sets` gives each structure's rows of the dose vector and the part of each voxel that lies inside, `samples` the points
    at which its goals are judged.
    """

    density: DensityImage
    operator: InfluenceOperator
    prescription: Prescription
    structures: StructureSet
    sets: Mapping[str, tuple[NDArray[np.int64], Floats]]
    samples: Mapping[str, Samples]
    machine: Machine
    backend: str
    engine: str = "collapsed_cone"

    @property
    def fractions(self) -> int:
        """Fractions of the course."""
        return self.prescription.protocol.fractions

    def full_dose_gy(self, fluence: Sequence[FluenceMap]) -> Floats:
        """Full dose of the whole course in the operator's voxels, (n_voxels,) Gy."""
        dose = shelf("rtplan.engines")[self.engine].dose(
            self.density, fluence, self.machine.beam, quality="quick", backend=self.backend
        )
        total: Floats = self.fractions * dose.reshape(-1)[self.operator.voxel_index].astype(np.float64)
        return total

    def residual_gy(self, full_gy: Floats, beamlet_mu: Floats) -> Floats:
        """What the operator leaves out of the full dose, (n_voxels,) Gy."""
        return full_gy - self.fractions * np.asarray(self.operator.apply(beamlet_mu), dtype=np.float64)


def first_problem(model: PlanningModel) -> tuple[Problem, Floats]:
    """The optimisation problem that the goals make, and equal weights (n_beamlets,) to begin with."""
    prescription, operator = model.prescription, model.operator
    beamlets, top = operator.beamlets, prescription.targets[0]
    around = surroundings(prescription.targets, model.sets, operator.grid, operator.voxel_index)
    wishes = build_wishes(prescription, model.samples, room_gy=ROOM_GY)
    start = uniform_weights(
        operator, len(beamlets), target_rows=model.sets[top.name][0], dose_gy=top.dose_gy, fractions=model.fractions
    )
    problem = Problem(
        operator,
        shaping_terms(prescription, model.sets, around),
        model.fractions,
        BOUND_OVER_UNIFORM * start,
        smoothness=neighbour_smoothness(beamlets, SMOOTHNESS * (top.dose_gy / float(start.mean())) ** 2),
        wishes=wishes,
        prices=first_prices(wishes),
    )
    return problem, start


def not_optimised(model: PlanningModel) -> tuple[Finding, ...]:
    """ORGAN_NOT_OPTIMISED for each structure with goals of which nothing lies in the body within the optimiser's grid."""
    names = sorted({goal.structure for goal in model.prescription.goals if model.samples[goal.structure].beyond})
    text = "no part of {} lies in the body near the targets' level: its goals are judged, but nothing was done for them"
    return tuple(Finding("ORGAN_NOT_OPTIMISED", "flag", text.format(name), name) for name in names)


def ideal_fluence(
    model: PlanningModel, progress: Progress, *, rounds: Sequence[int] = FLUENCE_ROUNDS, of_arc: bool = False
) -> tuple[FluencePlan, Problem]:
    """The ideal fluence, and the problem with the residual and the prices that go with it.

    `rounds` are the iterations between two measurements of the full dose; beams `of_arc` stand for a turning gantry.
    """
    problem, weights = first_problem(model)
    ideals = build_ideals(model.prescription, model.samples, room_gy=ROOM_GY)
    parts = len(rounds) + (1 if ideals else 0)
    for part, iterations in enumerate(rounds):
        heard = as_part(progress, part, parts)
        fluence, problem = optimise(problem, weights, max_iterations=iterations, progress=heard)
        weights = fluence.weights_mu
        full = model.full_dose_gy(fluence_maps(model.operator.beamlets, weights, of_arc=of_arc))
        problem = corrected(model, problem, weights, full)
    if ideals and not _missed(problem, weights):
        problem = replace(problem, wishes=problem.wishes + ideals, prices=problem.prices + first_prices(ideals))
        heard = as_part(progress, len(rounds), parts)
        fluence, problem = optimise(problem, weights, max_iterations=IDEAL_ITERATIONS, progress=heard)
    return fluence, problem


def _missed(problem: Problem, beamlet_mu: Floats) -> list[int]:
    """Priorities of the goals that are missed, ideals not counted."""
    dose = problem.dose_gy(problem.image(beamlet_mu))
    return [w.goal.priority for w in problem.wishes if not w.is_ideal and w.missed_gy(dose) > w.room_gy]


def for_apertures(problem: Problem, fluence: FluencePlan) -> Problem:
    """The problem for apertures: what the ideal fluence kept is worth `INSISTENCE` times its price, for apertures may only
    cost what they must; what it could not keep is let go; and smoothness has done its work."""
    dose = problem.dose_gy(problem.image(fluence.weights_mu))
    reachable = (within_reach(w, p, dose) for w, p in zip(problem.wishes, problem.prices, strict=True))
    wishes = tuple(w if w.let_go else replace(w, price_cap=INSISTENCE * w.price_cap) for w in reachable)
    return replace(problem, wishes=wishes, smoothness=None)


def goals_first(problem: Problem, beamlet_mu: Floats) -> Problem:
    """The problem without ideals where a goal is missed."""
    return without_ideals(problem) if _missed(problem, beamlet_mu) else problem


def without_ideals(problem: Problem) -> Problem:
    """The problem without the wishes and prices of ideals."""
    kept = [(w, p) for w, p in zip(problem.wishes, problem.prices, strict=True) if not w.is_ideal]
    return replace(problem, wishes=tuple(w for w, _ in kept), prices=tuple(p for _, p in kept))


def certificates(
    model: PlanningModel,
    problem: Problem,
    fluence: FluencePlan,
    dose: Dose,
    progress: Progress,
    lowest_of: LowestOf = over_the_box,
) -> tuple[Certificate, ...]:
    """What goals' metrics provably cannot be with the plan's coverage and beams; never better than what the plan has, and of
    goals that it misses which other goal excludes them.

    `problem` and `fluence` are the ideal ones, `dose` the final one. `lowest_of` as in `certified`.
    """
    grid, prescription = model.structures.grid, model.prescription

    def value(goal: Goal) -> float:
        voxels = dose_in_mask(dose, model.structures[goal.structure].mask, grid)
        return evaluate_metric(goal.metric, voxels, grid.voxel_cc, prescription.prescribed_gy(goal.structure))

    values = {goal: value(goal) for goal in prescription.goals}
    missed = frozenset(goal for goal, found in values.items() if not goal.met_by(found))
    looked_at = np.zeros(len(model.operator.voxel_index), dtype=bool)
    for wish in problem.wishes:
        looked_at[wish.rows] = True
    light = replace(problem, operator=model.operator.only(looked_at))
    doses = (problem.dose_gy(problem.image(fluence.weights_mu)), dose_in_voxels(model, dose))
    question = Question(light, fluence.weights_mu, doses, prescription, model.samples)
    return tuple(
        replace(c, bound=(min if c.goal.sense == "<=" else max)(c.bound, values[c.goal]))
        for c in certified(question, missed, progress, lowest_of)
    )


def as_part(progress: Progress, part: int, parts: int) -> Progress:
    """Progress of one of several passes as progress of the whole."""

    def heard(step: str, fraction: float, message: str = "") -> None:
        progress(step, (part + min(fraction, 0.999)) / parts, f"pass {part + 1} of {parts}: {message}")

    return heard


def deliverable(
    model: PlanningModel, fluence: FluencePlan, problem: Problem, judge: JudgingDose, progress: Progress
) -> tuple[DeliverablePlan, Dose]:
    """Segments that follow the ideal fluence, then optimised themselves, between measurements of the full dose: the best
    plan that was found, and its dose as it is judged.

    The last rounds see the CT's own voxels one by one. They go on while a goal is missed that was not let go, and insist on
    it; ideals are given up for it.
    """
    segments, problem = _with_segments(model, fluence, for_apertures(problem, fluence), progress)
    best: tuple[DeliverablePlan, Dose, Standing] | None = None
    part = found_in = 0
    while True:
        plan = plan_of(segments, model.fractions)
        dose = judge.measured(plan) if part < FINAL_FROM else judge.of(plan)
        stands = standing(dose, model.structures, model.prescription)
        if part >= FINAL_FROM and (best is None or stands.no_worse_than(best[2])):
            best, found_in = (plan, dose, stands), part
        reachable = {w.goal for w in problem.wishes if not w.let_go}
        done = part >= FEWEST_ROUNDS and not stands.goals & reachable
        if best is not None and (done or part == MOST_ROUNDS or part - found_in == PATIENCE):
            return best[0], best[1]
        if part:
            problem = insisted(without_ideals(problem) if stands.goals & reachable else problem, stands.goals)
        problem = measured(model, problem, segments.fluence(), dose)
        heard = as_part(progress, len(SEGMENT_ROUNDS) + part, len(SEGMENT_ROUNDS) + MOST_ROUNDS)
        least_mu = LEAST_MU_MARGIN * model.machine.min_segment_mu
        segments, problem = optimise_apertures(problem, segments, steps=JUDGED_STEPS, least_mu=least_mu, progress=heard)
        part += 1


def _with_segments(
    model: PlanningModel, fluence: FluencePlan, problem: Problem, progress: Progress
) -> tuple[Segments, Problem]:
    """Segments after the rounds in which they come and go, and the problem as it then is."""
    machine, budget = model.machine, model.prescription.protocol.segments_per_beam
    segments = first_segments(fluence, machine, segments_per_beam=budget, progress=progress)
    for part, steps in enumerate(SEGMENT_ROUNDS):
        heard = as_part(progress, part, len(SEGMENT_ROUNDS) + MOST_ROUNDS)
        full = model.full_dose_gy(plan_fluence(plan_of(segments, model.fractions), machine))
        problem = corrected(model, problem, segments.fluence(), full)
        segments, problem = optimise_apertures(problem, segments, steps=steps, least_mu=0.0, progress=heard)
        segments = segments.keeping(segments.mu > machine.min_segment_mu / 2)
        segments = with_new_segments(problem, segments, budget * len(segments.fields), machine.min_segment_mu)
    return segments, problem


def corrected(model: PlanningModel, problem: Problem, fluence_mu: Floats, full_gy: Floats) -> Problem:
    """The problem with the residual of a full dose (n_voxels,) Gy of a fluence (n_beamlets,) MU, and a target's levels where
    the protocol's normalisation will leave them: what that takes away is not asked for.

    Less than `ROOM_GY` changes nothing, nor does a rule that a goal's wish holds already.
    """
    problem = replace(problem, offset_gy=model.residual_gy(full_gy, fluence_mu))
    rule = model.prescription.protocol.normalisation
    if rule is None or holds(problem.wishes, rule):
        return problem
    (target,) = (t for t in model.prescription.targets if t.name == rule.structure)
    samples, metric = model.samples[target.name], parse_metric(rule.metric)
    points = np.asarray(samples.mixing @ full_gy[samples.rows])
    value = evaluate_metric(metric, points, samples.volume_cc / len(points), target.dose_gy)
    if abs(value - rule.value) <= ROOM_GY:
        return problem
    return replace(problem, terms=with_target_levels(problem.terms, target, rule.value / max(value, 0.5 * rule.value)))


def measured(model: PlanningModel, problem: Problem, fluence_mu: Floats, dose: Dose) -> Problem:
    """The problem with the residual of a plan's dose on the grid that it is judged on, and with the points of all wishes as
    the CT's voxels have them; `fluence_mu` (n_beamlets,) is what the optimiser takes for the plan's fluence."""
    full = dose_in_voxels(model, dose)
    wishes = measured_wishes(model, problem.wishes, dose, full)
    return corrected(model, replace(problem, wishes=wishes), fluence_mu, full)


def measured_wishes(model: PlanningModel, wishes: tuple[Wish, ...], dose: Dose, full_gy: Floats) -> tuple[Wish, ...]:
    """The wishes with each point's dose as the CT's voxel has it, and with levels that allow for the voxels that are no
    points; `full_gy` (n_voxels,) is the dose in the optimiser's voxels."""
    grid, structures = model.structures.grid, model.structures
    found = []
    for wish in wishes:
        voxels = dose_in_mask(dose, structures[wish.goal.structure].mask, grid).astype(np.float64)
        points = voxels[model.samples[wish.goal.structure].chosen]
        wish = replace(wish, beside_gy=points - wish.at_points_of(full_gy[wish.rows]))
        share = np.full(len(voxels), 1.0 / len(voxels))
        fine = replace(wish, rows=np.arange(len(voxels)), share=share, mixing=None, beside_gy=None)
        unseen = fine.value_gy(voxels) - wish.value_gy(full_gy)  # nothing where every voxel is a point
        found.append(replace(wish, level_gy=wish.level_gy - unseen + wish.unseen_gy, unseen_gy=unseen))
    return tuple(found)


def plan_segments(plan: DeliverablePlan) -> tuple[Segment, ...]:
    """Segments of all beams in order; `beam_index` counts the plan's own beams. Refuses arcs, which would be lost."""
    if any(beam.is_arc for beam in plan.beams):
        raise PlanningFailed("ARC_NOT_SUPPORTED", "segments of an arc were asked for", "step-and-shoot beams")
    return tuple(Segment(i, aperture, mu) for i, beam in enumerate(plan.beams) for aperture, mu in static_segments(beam))


def with_least_mu(plan: DeliverablePlan, machine: Machine) -> DeliverablePlan:
    """The plan with every segment, or interval of an arc, raised to the least that the machine gives; the plan itself when
    none is below. A plan has arcs or fixed beams alone."""
    if any(beam.is_arc for beam in plan.beams):
        return raised_arcs(plan, machine)
    mu = np.array([s.mu for s in plan_segments(plan)])
    least_mu = machine.min_segment_mu
    return plan if mu.min() >= least_mu else plan_with_mu(plan, np.maximum(mu, least_mu))


def plan_with_mu(plan: DeliverablePlan, mu: Floats) -> DeliverablePlan:
    """The same segments with other MU per fraction, (n_segments,) in the order of `plan_segments`."""
    segments = [replace(s, mu=float(m)) for s, m in zip(plan_segments(plan), mu, strict=True)]
    beams = tuple(
        step_and_shoot_beam(beam.number, beam.beam, tuple(s for s in segments if s.beam_index == i))
        for i, beam in enumerate(plan.beams)
    )
    return replace(plan, beams=beams)


def fluence_maps(beamlets: Beamlets, weights_mu: Floats, *, of_arc: bool = False) -> tuple[FluenceMap, ...]:
    """Beamlet weights as fluence maps, one per beam that has beamlets; beams `of_arc` stand for a turning gantry."""
    maps = []
    for index, beam in enumerate(beamlets.beams):
        own = np.flatnonzero(beamlets.beam_index == index)
        if not own.size:
            continue
        x_edges = np.unique(np.round(np.concatenate([beamlets.x1_mm[own], beamlets.x2_mm[own]]), 6))
        y_edges = np.unique(np.round(np.concatenate([beamlets.y1_mm[own], beamlets.y2_mm[own]]), 6))
        fluence = np.zeros((len(y_edges) - 1, len(x_edges) - 1))
        row = np.searchsorted(y_edges, beamlets.y1_mm[own] + 1e-3) - 1
        column = np.searchsorted(x_edges, beamlets.x1_mm[own] + 1e-3) - 1
        fluence[row, column] = weights_mu[own]
        maps.append(FluenceMap(beam, x_edges, y_edges, fluence, of_arc))
    return tuple(maps)


def dose_in_voxels(model: PlanningModel, dose: Dose) -> Floats:
    """A dose on another grid at the centres of the operator's voxels, (n_voxels,) Gy."""
    grid = model.density.grid
    index = np.stack(np.unravel_index(model.operator.voxel_index, grid.shape_zyx), axis=1).astype(np.float64)
    return dose_at_index(dose, dose.grid.to_index(grid.to_point_mm(index))).astype(np.float64)
