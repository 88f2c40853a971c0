"""From a prescribed patient to a conformal plan: open fields, field-in-field segments, and their weights.

Few segments, so each one's full dose is calculated; the weights are then a small bounded problem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from rtplan.domain.beams import Beam
from rtplan.domain.image import DensityImage
from rtplan.domain.machine import Machine
from rtplan.domain.plan import Aperture, DeliverablePlan, PlanBeam, Segment, step_and_shoot_beam
from rtplan.domain.prescription import Prescription
from rtplan.domain.progress import Progress
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import PlanningFailed
from rtplan.steps.conformal_fields import OpenField, open_fields, subfield
from rtplan.steps.final_dose import LEAST_MU_MARGIN, plan_dose
from rtplan.steps.ingest import resample_density
from rtplan.steps.place_beams import place_beams
from rtplan.steps.voxels import planning_grid, voxel_sets, voxels_of_interest

Floats = NDArray[np.float64]

UNIT_MU = 100.0
BEYOND = 10.0  # how much worse dose beyond the two percentages is than the same distance within them
HOT_SHARE = 0.5  # of the excess over the prescription: what is hotter than that is closed by the next subfields
EVEN_ENOUGH = 0.02  # excess of the hottest 0.5 % of the target at which subfields no longer help
WORTH_ADDING = 0.02  # smallest relative gain of a round of subfields


@dataclass(frozen=True, slots=True, eq=False)
class ConformalPlan:
    """The plan, what its reviewer must know, the beams that were placed, and how well the weights solve their problem."""

    plan: DeliverablePlan
    findings: tuple[Finding, ...]
    beams: tuple[Beam, ...]
    objective_value: float
    iterations: int
    converged: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Aims:
    """Rows of the dose vector: of the highest target, of the body, and of organs with a limit; doses in Gy."""

    target: NDArray[np.int64]
    body: NDArray[np.int64]
    organs: tuple[tuple[NDArray[np.int64], float, bool], ...]  # rows, limit, whether it is a limit of the mean
    prescribed_gy: float
    low_gy: float
    high_gy: float


@dataclass(frozen=True, slots=True, eq=False)
class _Segments:
    """Segments with their dose for 100 MU, (n_voxels, n) Gy over the whole course."""

    of_field: tuple[int, ...]
    apertures: tuple[Aperture, ...]
    dose_gy: Floats

    def adding(self, fresh: Sequence[tuple[int, Aperture]], dose_of: Callable[[int, Aperture], Floats]) -> _Segments:
        columns = [dose_of(index, aperture)[:, None] for index, aperture in fresh]
        return _Segments(
            self.of_field + tuple(index for index, _ in fresh),
            self.apertures + tuple(aperture for _, aperture in fresh),
            np.concatenate([self.dose_gy, *columns], axis=1),
        )

    def keeping(self, keep: NDArray[np.bool_]) -> _Segments:
        kept = [i for i, k in enumerate(keep) if k]
        return _Segments(
            tuple(self.of_field[i] for i in kept), tuple(self.apertures[i] for i in kept), self.dose_gy[:, kept]
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    weights: Floats
    value: float
    iterations: int
    converged: bool


def conformal_plan(
    patient_density: DensityImage,
    structures: StructureSet,
    prescription: Prescription,
    machine: Machine,
    *,
    backend: str,
    engine: str,
    progress: Progress,
) -> ConformalPlan:
    """Open fields on the targets' outline, and up to `segments_per_beam` segments each whose weights even out the dose.

    A round adds to each beam the open field without the projection of what is still hot, solves all weights anew on full
    doses of quality "quick", and ends when the target is even, a round gains too little, or the segments are used up.
    Segments below the machine's smallest MU are left out.
    Raises CaseRejected ISO, TARGET_TOO_LARGE; PlanningFailed LEAVES_OUT_OF_REACH, FIELD_TOO_SMALL, NO_DOSE, BEAM_MU.
    """
    protocol = prescription.protocol
    if protocol.conformal is None:
        raise ValueError(f"{protocol.protocol_id} is no conformal protocol")
    beams = place_beams(prescription, structures, machine)
    fields, findings = open_fields(beams, prescription, structures, machine)
    grid = planning_grid(structures, tuple(t.name for t in prescription.targets), protocol.optimisation_grid_mm)
    density = resample_density(patient_density, grid)
    voxels = voxels_of_interest(structures, grid)
    aims = _aims(prescription, structures, density, voxels)

    def dose_of(index: int, aperture: Aperture) -> Floats:
        plan = _plan(fields, ((index, aperture, UNIT_MU),), machine, protocol.fractions)
        dose = plan_dose(density, plan, machine, quality="quick", backend=backend, engine=engine)
        return dose.dose_gy.reshape(-1)[voxels].astype(np.float64)

    nothing = _Segments((), (), np.zeros((len(voxels), 0)))
    segments = nothing.adding([(i, field.aperture) for i, field in enumerate(fields)], dose_of)
    solution = _solve(segments.dose_gy, aims)
    xyz = grid.to_point_mm(np.stack(np.unravel_index(voxels, grid.shape_zyx), axis=1).astype(np.float64))
    for part in range(1, protocol.segments_per_beam):
        progress("conformal", part / protocol.segments_per_beam, f"{len(segments.apertures)} segments")
        hot = xyz[_hot(segments.dose_gy @ solution.weights, aims)]
        closed = ((i, subfield(f, hot, max(grid.spacing_zyx_mm), machine)) for i, f in enumerate(fields) if len(hot))
        more = segments.adding([(i, aperture) for i, aperture in closed if aperture is not None], dose_of)
        better = _solve(more.dose_gy, aims)
        if len(more.apertures) == len(segments.apertures) or better.value > (1.0 - WORTH_ADDING) * solution.value:
            break
        segments, solution = more, better
    segments, solution = _strong_enough(segments, solution, aims, machine)
    mu = (float(m) for m in UNIT_MU * solution.weights)
    plan = _plan(fields, tuple(zip(segments.of_field, segments.apertures, mu, strict=True)), machine, protocol.fractions)
    _refuse_too_much(plan, machine)
    progress("conformal", 1.0, f"{len(segments.apertures)} segments, {plan.mu:.0f} MU")
    return ConformalPlan(plan, findings, beams, solution.value, solution.iterations, solution.converged)


def _aims(prescription: Prescription, structures: StructureSet, density: DensityImage, voxels: NDArray[np.int64]) -> _Aims:
    """What the weights are solved for: the target, the body, and every organ with a limit in Gy on mean or maximum."""
    rules, top = prescription.protocol.conformal, prescription.targets[0]
    assert rules is not None
    targets = {t.name for t in prescription.targets}
    limits = [g for g in prescription.goals if g.sense == "<=" and g.structure not in {*targets, structures.external.name}]
    limits = [g for g in limits if g.metric.kind in ("mean_gy", "max_gy", "dose_at_cc")]
    sets = voxel_sets(structures, {top.name, *(g.structure for g in limits)}, density.grid, voxels)
    organs = ((sets[g.structure][0], g.limit, g.metric.kind == "mean_gy") for g in limits)
    return _Aims(
        target=sets[top.name][0],
        body=np.arange(len(voxels)),
        organs=tuple(organ for organ in organs if organ[0].size),
        prescribed_gy=top.dose_gy,
        low_gy=top.dose_gy * rules.low_percent / 100.0,
        high_gy=top.dose_gy * rules.high_percent / 100.0,
    )


def _solve(dose_gy: Floats, aims: _Aims) -> _Solution:
    """Weights >= 0 (n,) that minimise the penalties, by L-BFGS-B: convex, a handful of unknowns.

    With D the dose and d the prescription, means over the target: (D - d)²; ten-fold (low - D)² below the lower and
    (D - high)² above the upper percentage, the latter over the whole body but per voxel of the target; and for organs
    (D - limit)² above a limit of the maximum, (mean - limit)² above one of the mean. Gy².
    Raises PlanningFailed NO_DOSE when the fields do not reach the target.
    """
    n_target, alone = len(aims.target), dose_gy[aims.target]
    reached = alone.sum(axis=1).mean()
    if not reached > 0:
        raise PlanningFailed(
            "NO_DOSE", "no field gives dose to the target", "fields that reach it", "check target and beams"
        )

    def cost(weights: Floats) -> tuple[float, Floats]:
        dose = dose_gy @ weights
        slope = np.zeros_like(dose)
        off = dose[aims.target] - aims.prescribed_gy
        cold = np.minimum(dose[aims.target] - aims.low_gy, 0.0)
        hot = np.maximum(dose[aims.body] - aims.high_gy, 0.0)
        value = float((off**2).mean() + BEYOND * (cold**2).mean() + BEYOND * (hot**2).sum() / n_target)
        slope[aims.target] += 2.0 * (off + BEYOND * cold) / n_target
        slope[aims.body] += 2.0 * BEYOND * hot / n_target
        for rows, limit_gy, of_mean in aims.organs:
            over = np.maximum((dose[rows].mean() if of_mean else dose[rows]) - limit_gy, 0.0)
            value += float((np.asarray(over) ** 2).mean())
            slope[rows] += 2.0 * over / len(rows)
        return value, dose_gy.T @ slope

    start = np.full(dose_gy.shape[1], aims.prescribed_gy / reached)
    found = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * len(start))
    return _Solution(np.asarray(found.x), float(found.fun), int(found.nit), bool(found.success))


def _hot(dose_gy: Floats, aims: _Aims) -> NDArray[np.bool_]:
    """Voxels (n,) that the next subfields should shield: the hotter part of the excess over the prescription in the target,
    and everything as hot elsewhere. None once the target is even."""
    excess = float(np.percentile(dose_gy[aims.target], 99.5)) / aims.prescribed_gy - 1.0
    if excess < EVEN_ENOUGH:
        return np.zeros(len(dose_gy), dtype=bool)
    return np.asarray(dose_gy > aims.prescribed_gy * (1.0 + HOT_SHARE * excess))


def _strong_enough(segments: _Segments, solution: _Solution, aims: _Aims, machine: Machine) -> tuple[_Segments, _Solution]:
    """Segments without those that are too weak for the machine, the weakest first, and the weights of the rest."""
    least = LEAST_MU_MARGIN * machine.min_segment_mu / UNIT_MU
    while len(solution.weights) > 1 and float(solution.weights.min()) < least:
        keep = np.arange(len(solution.weights)) != int(solution.weights.argmin())
        segments = segments.keeping(keep)
        solution = _solve(segments.dose_gy, aims)
    return segments, solution


def _plan(
    fields: Sequence[OpenField], chosen: Sequence[tuple[int, Aperture, float]], machine: Machine, fractions: int
) -> DeliverablePlan:
    """Beams of (field, aperture, MU per fraction); beams without a segment are left out."""
    beams: list[PlanBeam] = []
    for i, field in enumerate(fields):
        own = tuple(Segment(i, aperture, mu) for index, aperture, mu in chosen if index == i)
        if own:
            beams.append(step_and_shoot_beam(i + 1, field.beam, own))
    return DeliverablePlan(machine.machine_id, machine.beam.energy_id, fractions, tuple(beams))


def _refuse_too_much(plan: DeliverablePlan, machine: Machine) -> None:
    for beam in plan.beams:
        if beam.mu > machine.max_beam_mu:
            found, expected = f"{beam.beam.name}: {beam.mu:.0f} MU", f"at most {machine.max_beam_mu:g} MU"
            raise PlanningFailed("BEAM_MU", found, expected, "more beams or more fractions")
