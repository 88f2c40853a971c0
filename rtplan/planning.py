"""From a prescribed patient to a deliverable plan: optimise, sequence, and correct both by the full dose.

The influence operator holds the near field of each beamlet. What it leaves out (scatter from afar, leaf transmission between
and outside the beamlets, the blur of the source) is measured: the full dose minus the operator's, added to the optimiser's
dose as a fixed offset and measured again after each solution. What is optimised is so what is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from rtplan.domain.beams import FluenceMap
from rtplan.domain.dose import Dose, dose_at_index
from rtplan.domain.image import DensityImage
from rtplan.domain.influence import Beamlets, FluencePlan, InfluenceOperator
from rtplan.domain.machine import Machine
from rtplan.domain.openings import static_segments
from rtplan.domain.plan import DeliverablePlan, Segment, step_and_shoot_beam
from rtplan.domain.prescription import Protocol
from rtplan.domain.progress import Progress
from rtplan.errors import PlanningFailed
from rtplan.registry import shelf
from rtplan.steps.apertures import beamlet_field
from rtplan.steps.fluence import plan_fluence
from rtplan.steps.optimise import (
    DenseOperator,
    Problem,
    Term,
    neighbour_smoothness,
    optimise,
    optimise_weights,
    uniform_weights,
)
from rtplan.steps.sequence import beamlet_transmission, sequence

Floats = NDArray[np.float64]

BOUND_OVER_UNIFORM = 10.0  # no beamlet may carry more than this many times the fluence of equal weights
FLUENCE_ROUNDS = (40, 40, 120)  # iterations between two measurements of the full dose
SEGMENT_ITERATIONS = 40
LEAST_MU_MARGIN = 1.05  # over the machine's smallest MU, so that the normalisation seldom undercuts it
SMOOTHNESS = 0.02  # of the squared highest prescription, spread over pairs of beamlets that differ by the mean weight


@dataclass(frozen=True, slots=True, eq=False)
class PlanningModel:
    """What the optimiser works on: the operator on the optimisation grid, the terms, and how to get the full dose there."""

    density: DensityImage
    operator: InfluenceOperator
    terms: tuple[Term, ...]
    machine: Machine
    protocol: Protocol
    target_rows: NDArray[np.int64]  # of the highest target, for the start
    backend: str
    engine: str = "collapsed_cone"

    def full_dose_gy(self, fluence: Sequence[FluenceMap]) -> Floats:
        """Full dose of the whole course in the operator's voxels, (n_voxels,) Gy."""
        dose = shelf("rtplan.engines")[self.engine].dose(
            self.density, fluence, self.machine.beam, quality="quick", backend=self.backend
        )
        total: Floats = self.protocol.fractions * dose.reshape(-1)[self.operator.voxel_index].astype(np.float64)
        return total

    def residual_gy(self, full_gy: Floats, beamlet_mu: Floats) -> Floats:
        """What the operator leaves out of the full dose, (n_voxels,) Gy."""
        return full_gy - self.protocol.fractions * np.asarray(self.operator.apply(beamlet_mu), dtype=np.float64)


def ideal_fluence(model: PlanningModel, progress: Progress) -> tuple[FluencePlan, Floats]:
    """The ideal fluence, and the residual (n_voxels,) Gy measured at it."""
    beamlets = model.operator.beamlets
    top_gy = model.protocol.levels[0].dose_gy
    start = uniform_weights(
        model.operator, len(beamlets), target_rows=model.target_rows, dose_gy=top_gy, fractions=model.protocol.fractions
    )
    upper = BOUND_OVER_UNIFORM * start
    smoothness = neighbour_smoothness(beamlets, SMOOTHNESS * (top_gy / float(start.mean())) ** 2)
    problem = Problem(model.operator, model.terms, model.protocol.fractions, upper, None, smoothness)
    weights = start
    for part, iterations in enumerate(FLUENCE_ROUNDS):
        heard = _as_part(progress, part, len(FLUENCE_ROUNDS))
        fluence = optimise(problem, weights, max_iterations=iterations, progress=heard)
        weights = fluence.weights_mu
        full = model.full_dose_gy(fluence_maps(beamlets, weights))
        problem = replace(problem, offset_gy=model.residual_gy(full, weights))
    assert problem.offset_gy is not None
    return fluence, problem.offset_gy


def _as_part(progress: Progress, part: int, parts: int) -> Progress:
    """Progress of one of several passes as progress of the whole."""

    def heard(step: str, fraction: float, message: str = "") -> None:
        progress(step, (part + min(fraction, 0.999)) / parts, f"pass {part + 1} of {parts}: {message}")

    return heard


def deliverable(model: PlanningModel, fluence: FluencePlan, offset_gy: Floats, progress: Progress) -> DeliverablePlan:
    """Segments for the ideal fluence, their MU optimised with the measured residual."""

    doses = SegmentDoses(model.operator)

    def solve(segments: sp.csc_matrix, start_mu: Floats) -> tuple[Floats, Floats]:
        return _segment_weights(model, doses.of(segments), start_mu, offset_gy)

    return sequence(
        fluence,
        model.machine,
        segments_per_beam=model.protocol.segments_per_beam,
        fractions=model.protocol.fractions,
        solve_weights=solve,
        progress=progress,
    )


def reweighed(model: PlanningModel, plan: DeliverablePlan, full_gy: Floats, progress: Progress) -> DeliverablePlan:
    """The same segments with MU optimised anew, where the plan's full dose is `full_gy` (n_voxels,) Gy.

    Segments that fall below the machine's smallest MU are held at it: the others rely on them.
    """
    segments = plan_segments(plan)
    matrix = plan_matrix(plan, model.operator.beamlets, model.machine)
    start = np.array([s.mu for s in segments])
    offset = model.residual_gy(full_gy, matrix @ start)
    mu, _ = _segment_weights(model, SegmentDoses(model.operator).of(matrix), start, offset)
    progress("reweigh", 1.0, f"{len(segments)} segments, {mu.sum():.0f} MU")
    return with_least_mu(plan_with_mu(plan, mu), LEAST_MU_MARGIN * model.machine.min_segment_mu)


class SegmentDoses:
    """Doses of segments in the operator's voxels. Each is calculated once: most segments stay while others come and go."""

    def __init__(self, operator: InfluenceOperator) -> None:
        self._operator = operator
        self._known: dict[bytes, NDArray[np.float32]] = {}

    def of(self, segments: sp.csc_matrix) -> DenseOperator:
        """Dose for 1 MU of each column of `segments` (n_beamlets, n_segments), as (n_voxels, n_segments) Gy per fraction."""
        columns = [np.asarray(segments[:, [j]].todense(), dtype=np.float64)[:, 0] for j in range(segments.shape[1])]
        keys = [column.tobytes() for column in columns]
        fresh = {k: self._operator.apply(c) for k, c in zip(keys, columns, strict=True) if k not in self._known}
        known = self._known | fresh
        self._known = {k: known[k] for k in keys}  # what is no longer in use would only fill the memory
        doses = np.stack([self._known[k] for k in keys], axis=1)
        doses.flags.writeable = False
        return DenseOperator(doses)


def _segment_weights(
    model: PlanningModel, segments: DenseOperator, start_mu: Floats, offset_gy: Floats
) -> tuple[Floats, Floats]:
    """MU that minimise the objectives (n_segments,), and the gradient by the beamlets' weights there (n_beamlets,)."""
    upper = np.full(segments.dose_gy.shape[1], model.machine.max_beam_mu)
    problem = Problem(segments, model.terms, model.protocol.fractions, upper, offset_gy)
    start = np.where(start_mu > 0, start_mu, 0.0)
    mu = optimise_weights(problem, start, max_iterations=SEGMENT_ITERATIONS).weights
    image_gradient = problem.evaluate(mu, problem.image(mu)).image_gradient
    by_beamlet = model.protocol.fractions * np.asarray(model.operator.adjoint(image_gradient), dtype=np.float64)
    return mu, by_beamlet


def plan_segments(plan: DeliverablePlan) -> tuple[Segment, ...]:
    """Segments of all beams in order; `beam_index` counts the plan's own beams. Refuses arcs, which would be lost."""
    if any(beam.is_arc for beam in plan.beams):
        raise PlanningFailed("ARC_NOT_SUPPORTED", "segments of an arc were asked for", "step-and-shoot beams")
    return tuple(Segment(i, aperture, mu) for i, beam in enumerate(plan.beams) for aperture, mu in static_segments(beam))


def with_least_mu(plan: DeliverablePlan, least_mu: float) -> DeliverablePlan:
    """The plan with every segment raised to at least `least_mu`; the plan itself when none is below."""
    mu = np.array([s.mu for s in plan_segments(plan)])
    return plan if mu.min() >= least_mu else plan_with_mu(plan, np.maximum(mu, least_mu))


def plan_matrix(plan: DeliverablePlan, beamlets: Beamlets, machine: Machine) -> sp.csc_matrix:
    """Fluence of each beamlet for 1 MU of each segment, (n_beamlets, n_segments) in the order of `plan_segments`."""
    columns = []
    for segment in plan_segments(plan):
        index = beamlets.beams.index(plan.beams[segment.beam_index].beam)
        field = beamlet_field(beamlets, index, machine)
        assert field is not None  # the segment was made of this beam's beamlets
        column = np.zeros(len(beamlets))
        column[field.beamlets] = beamlet_transmission(segment.aperture, field, beamlets, machine)
        columns.append(sp.csc_matrix(column[:, None]))
    return sp.csc_matrix(sp.hstack(columns))


def plan_with_mu(plan: DeliverablePlan, mu: Floats) -> DeliverablePlan:
    """The same segments with other MU per fraction, (n_segments,) in the order of `plan_segments`."""
    segments = [replace(s, mu=float(m)) for s, m in zip(plan_segments(plan), mu, strict=True)]
    beams = tuple(
        step_and_shoot_beam(beam.number, beam.beam, tuple(s for s in segments if s.beam_index == i))
        for i, beam in enumerate(plan.beams)
    )
    return replace(plan, beams=beams)


def fluence_maps(beamlets: Beamlets, weights_mu: Floats) -> tuple[FluenceMap, ...]:
    """Beamlet weights as fluence maps, one per beam that has beamlets."""
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
        maps.append(FluenceMap(beam, x_edges, y_edges, fluence))
    return tuple(maps)


def plan_dose_in_voxels(model: PlanningModel, plan: DeliverablePlan) -> Floats:
    """Quick full dose of a plan in the operator's voxels, (n_voxels,) Gy."""
    return model.full_dose_gy(plan_fluence(plan, model.machine))


def dose_in_voxels(model: PlanningModel, dose: Dose) -> Floats:
    """A dose on another grid at the centres of the operator's voxels, (n_voxels,) Gy."""
    grid = model.density.grid
    index = np.stack(np.unravel_index(model.operator.voxel_index, grid.shape_zyx), axis=1).astype(np.float64)
    return dose_at_index(dose, dose.grid.to_index(grid.to_point_mm(index))).astype(np.float64)
