"""From a prescribed patient to a plan of arcs: a fluence by beams, apertures in motion that follow it, and both by the full
dose.

The same problem as that of fixed fields (`rtplan.planning`): the same wishes, prices, residuals and measurements; what is
optimised are the tips and MU of arcs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rtplan import planning
from rtplan.domain.beams import Beam, FluenceMap
from rtplan.domain.dose import Dose
from rtplan.domain.goals import Certificate
from rtplan.domain.influence import FluencePlan, InfluenceOperator
from rtplan.domain.machine import Machine
from rtplan.domain.plan import DeliverablePlan
from rtplan.domain.prescription import Prescription
from rtplan.domain.progress import Progress
from rtplan.domain.structures import StructureSet
from rtplan.planning import PlanningModel
from rtplan.registry import shelf
from rtplan.steps.arc_apertures import optimise_arcs, plan_of_arcs
from rtplan.steps.arc_bounds import Rows, lowest_by_arcs, turned
from rtplan.steps.arc_start import arcs_following
from rtplan.steps.arc_tips import arc_field
from rtplan.steps.fluence import PLANNING_STEP_DEG, plan_fluence
from rtplan.steps.optimise import Problem
from rtplan.steps.place_beams import ArcBeams, place_arcs
from rtplan.steps.solver import LowerModel

GRID_FACTOR = 1.25  # of the optimisation grid over that of fixed beams: there are several times as many beamlets
BEAM_SPACING_DEG = 12.0  # of the angles that have beamlets
INTERVALS_PER_BEAM = 3  # that are optimised by the beamlets of one angle, each with its own aperture
FLUENCE_ROUNDS = (30, 30)  # iterations between two measurements of the full dose
# Steps of each round of apertures, and whether it begins with a measurement on the grid that is judged.
APERTURE_ROUNDS = ((60, False), (60, False), (50, True), (30, True))


def arcs_of(
    prescription: Prescription, structures: StructureSet, machine: Machine
) -> tuple[tuple[ArcBeams, ...], tuple[Beam, ...]]:
    """The protocol's arcs as they are optimised, and all their beams in order. Raises as `place_arcs` does."""
    arcs = place_arcs(prescription, structures, machine, spacing_deg=BEAM_SPACING_DEG, intervals_per_beam=INTERVALS_PER_BEAM)
    return arcs, tuple(beam for arc in arcs for beam in arc.middles)


def ideal_fluence(model: PlanningModel, progress: Progress) -> tuple[FluencePlan, Problem]:
    """The ideal fluence of the arcs' beams, and the problem with the residual and the prices that go with it."""
    return planning.ideal_fluence(model, progress, rounds=FLUENCE_ROUNDS, of_arc=True)


def fluence_maps(fluence: FluencePlan) -> tuple[FluenceMap, ...]:
    """The ideal fluence as maps of a turning gantry."""
    return planning.fluence_maps(fluence.beamlets, fluence.weights_mu, of_arc=True)


def deliverable(
    model: PlanningModel,
    arcs: Sequence[ArcBeams],
    fluence: FluencePlan,
    problem: Problem,
    dose_of: Callable[[DeliverablePlan], Dose],
    progress: Progress,
) -> DeliverablePlan:
    """Arcs that follow the ideal fluence, then optimised themselves, between measurements of the full dose.

    `dose_of` gives the dose of a plan on the grid that it is judged on; it is used for the last two measurements.
    """
    fields, first = [], 0
    for arc in arcs:
        fields.append(arc_field(fluence.beamlets, arc, first, model.machine))
        first += len(arc.middles)
    made = arcs_following(fluence.weights_mu, fields, fluence.beamlets, model.machine)
    problem = planning.for_apertures(problem, fluence)
    for part, (steps, on_judging_grid) in enumerate(APERTURE_ROUNDS):
        plan = plan_of_arcs(made, model.fractions)
        if on_judging_grid:
            problem = planning.measured(model, problem, made.fluence(), dose_of(plan))
        else:
            full = model.full_dose_gy(plan_fluence(plan, model.machine, arc_step_deg=PLANNING_STEP_DEG))
            problem = planning.corrected(model, problem, made.fluence(), full)
        heard = planning.as_part(progress, part, len(APERTURE_ROUNDS))
        made, problem = optimise_arcs(problem, made, steps=steps, progress=heard)
        if part:
            problem = planning.goals_first(problem, made.fluence())
    return plan_of_arcs(made, model.fractions)


def certificates(
    model: PlanningModel,
    arcs: Sequence[ArcBeams],
    problem: Problem,
    fluence: FluencePlan,
    mu: float,
    dose: Dose,
    progress: Progress,
) -> tuple[Certificate, ...]:
    """As those of fixed fields, of all arcs over these angles with no more than `mu` a fraction: what the fluence of the
    beams proves is made to hold in the middle of every interval."""

    def lowest_of(planes: Sequence[LowerModel]) -> list[float]:
        return lowest_by_arcs(planes, _intervals(model, arcs, planes, progress), model.fractions, mu)

    return planning.certificates(model, problem, fluence, dose, progress, lowest_of)


def _intervals(
    model: PlanningModel, arcs: Sequence[ArcBeams], planes: Sequence[LowerModel], progress: Progress
) -> Iterator[tuple[InfluenceOperator, Rows]]:
    """Operators for the middles of all intervals, and their rows: the beams' own, then those beside them."""

    def heard(step: str, fraction: float, message: str = "") -> None:
        progress("certify", fraction, message)

    yield model.operator, np.arange(len(model.operator.voxel_index))
    rows = np.flatnonzero(np.any([plane.image_slope != 0.0 for plane in planes], axis=0))
    first = 0
    for arc in arcs:
        own = slice(first, first + len(arc.middles))
        first = own.stop
        turn_deg = arc.arc.length_deg / (len(arc.angles_deg) - 1)
        for interval in range(INTERVALS_PER_BEAM):
            by_deg = (interval - (INTERVALS_PER_BEAM - 1) / 2) * turn_deg
            if by_deg:
                beamlets = turned(model.operator.beamlets, own, by_deg)
                engine, voxels = shelf("rtplan.engines")[model.engine], model.operator.voxel_index[rows]
                beside = engine.influence(
                    model.density, beamlets, model.machine.beam, voxels, backend=model.backend, progress=heard
                )
                yield beside, rows
