"""From a prescribed patient to a plan of arcs: a fluence by sectors, apertures that follow it, and both by the full dose.

The same problem as that of fixed fields (`rtplan.planning`): the same wishes, prices, residuals and measurements; what is
optimised are the tips and MU of arcs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtplan import planning
from rtplan.domain.beams import FluenceMap
from rtplan.domain.dose import Dose
from rtplan.domain.influence import FluencePlan
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.progress import Progress
from rtplan.planning import PlanningModel
from rtplan.steps.arc_apertures import optimise_arcs, plan_of_arcs
from rtplan.steps.arc_start import SectorOperator, arcs_from_sectors, sector_operator
from rtplan.steps.arc_tips import ArcField, arc_field
from rtplan.steps.fluence import plan_fluence
from rtplan.steps.optimise import Problem, optimise
from rtplan.steps.place_beams import ArcBeams
from rtplan.steps.sequence import first_segments

Floats = NDArray[np.float64]

SPACING_DEG = 8.0  # of the intervals that are optimised; what is delivered is cut finer
SECTOR_INTERVALS = 3  # intervals that share an ideal fluence
FLUENCE_ROUNDS = (30, 30)  # iterations between two measurements of the full dose
APERTURE_ROUNDS = (
    (30, False),
    (30, False),
    (30, True),
    (30, True),
)  # steps, and whether measured on the grid that is judged
QUICK_STEP_DEG = 4.0  # of the maps while planning


@dataclass(frozen=True, slots=True, eq=False)
class ArcModel:
    """The planning model of all intervals' beamlets, the arcs' rasters, and the sectors that the fluence is optimised by."""

    model: PlanningModel
    fields: tuple[ArcField, ...]
    sectors: SectorOperator


def arc_model(model: PlanningModel, arcs: Sequence[ArcBeams]) -> ArcModel:
    """The model of arcs whose intervals' beams are the operator's, in order."""
    fields, first = [], 0
    for arc in arcs:
        fields.append(arc_field(model.operator.beamlets, arc, first, model.machine))
        first += len(arc.middles)
    return ArcModel(model, tuple(fields), sector_operator(model.operator, fields, SECTOR_INTERVALS))


def ideal_fluence(arcs: ArcModel, progress: Progress) -> tuple[FluencePlan, Problem]:
    """The ideal fluence of the sectors, and the problem with the residual and the prices that go with it."""
    model = replace(arcs.model, operator=arcs.sectors)
    problem, weights = planning.first_problem(model)
    for part, iterations in enumerate(FLUENCE_ROUNDS):
        heard = planning.as_part(progress, part, len(FLUENCE_ROUNDS))
        fluence, problem = optimise(problem, weights, max_iterations=iterations, progress=heard)
        weights = fluence.weights_mu
        full = model.full_dose_gy(interval_maps(arcs, weights))
        problem = replace(problem, offset_gy=model.residual_gy(full, weights))
    return fluence, problem


def interval_maps(arcs: ArcModel, weights_mu: Floats) -> tuple[FluenceMap, ...]:
    """The sectors' fluence as maps at the middle of every interval."""
    maps = planning.fluence_maps(arcs.model.operator.beamlets, arcs.sectors.spread(weights_mu))
    return tuple(replace(m, of_arc=True) for m in maps)


def deliverable(
    arcs: ArcModel,
    fluence: FluencePlan,
    problem: Problem,
    dose_of: Callable[[DeliverablePlan], Dose],
    progress: Progress,
) -> DeliverablePlan:
    """Arcs that follow the sectors' fluence, then optimised themselves, between measurements of the full dose."""
    model, fractions = arcs.model, arcs.model.fractions
    segments = first_segments(fluence, model.machine, segments_per_beam=SECTOR_INTERVALS, progress=progress)
    made = arcs_from_sectors(segments, arcs.fields, model.operator.beamlets, SECTOR_INTERVALS, model.machine)
    problem = planning.for_apertures(problem, fluence)
    # The same problem, for the beamlets of all intervals.
    upper = np.full(len(model.operator.beamlets), float(problem.upper_mu.max()))
    problem = replace(problem, operator=model.operator, upper_mu=upper)
    for part, (steps, on_judging_grid) in enumerate(APERTURE_ROUNDS):
        heard = planning.as_part(progress, part, len(APERTURE_ROUNDS))
        plan = plan_of_arcs(made, fractions)
        if on_judging_grid:
            problem = planning.measured(model, problem, made.fluence(), dose_of(plan))
        else:
            full = model.full_dose_gy(plan_fluence(plan, model.machine, arc_step_deg=QUICK_STEP_DEG))
            problem = replace(problem, offset_gy=model.residual_gy(full, made.fluence()))
        made, problem = optimise_arcs(problem, made, steps=steps, progress=heard)
        if part:
            problem = planning.reachable(problem, made.fluence())
    return plan_of_arcs(made, fractions)
