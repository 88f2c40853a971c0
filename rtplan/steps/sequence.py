"""Step-and-shoot sequencing: from an ideal fluence to deliverable segments, chosen for the dose they give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import nnls

from rtplan.domain.influence import Beamlets, FluencePlan
from rtplan.domain.machine import Machine
from rtplan.domain.plan import Aperture, DeliverablePlan, PlanBeam, Segment, step_and_shoot_beam
from rtplan.domain.progress import Progress, silent
from rtplan.errors import PlanningFailed
from rtplan.steps.apertures import BeamletField, Shape, beamlet_field, best_shape
from rtplan.steps.closed_leaves import aperture_of, jaw_box
from rtplan.steps.transmission import strip_boundaries, strip_transmission, strip_weights

Floats = NDArray[np.float64]

FROM_FLUENCE = 0.6  # of the segments come from the ideal fluence, the rest from the objective's gradient
WORTH_ADDING = 1e-3  # smallest reduced cost of a new segment, relative to the sum of its terms' magnitudes
GOOD_FIT = 0.01  # relative residual at which more segments no longer follow the fluence, but its noise
ROUNDS_TO_DROP_ALL = 3  # after so many rounds every segment that is still too weak goes at once


class WeightSolver(Protocol):
    """Optimises the segments' MU on the plan's own objectives."""

    def __call__(self, segments: sp.csc_matrix, start_mu: Floats) -> tuple[Floats, Floats]:
        """`segments` (n_beamlets, n_segments) is the beamlet fluence of each segment per MU (1 open, the transmission where
        closed); `start_mu` (n_segments,). Returns the best MU >= 0 (n_segments,) and the objective's gradient with respect
        to the beamlet weights there (n_beamlets,)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Segments under construction: shapes, their MU, and the beamlet fields they live on."""

    fields: dict[int, BeamletField]
    beamlets: Beamlets
    machine: Machine
    shapes: tuple[Shape, ...]
    mu: Floats

    def keeping(self, keep: NDArray[np.bool_]) -> _Pool:
        shapes = tuple(s for s, k in zip(self.shapes, keep, strict=True) if k)
        return _Pool(self.fields, self.beamlets, self.machine, shapes, self.mu[keep])

    def adding(self, shapes: Sequence[Shape]) -> _Pool:
        mu = np.concatenate([self.mu, np.zeros(len(shapes))])
        return _Pool(self.fields, self.beamlets, self.machine, (*self.shapes, *shapes), mu)

    def with_mu(self, mu: Floats) -> _Pool:
        return _Pool(self.fields, self.beamlets, self.machine, self.shapes, mu)


def sequence(
    fluence: FluencePlan,
    machine: Machine,
    *,
    segments_per_beam: int,
    fractions: int,
    solve_weights: WeightSolver,
    progress: Progress = silent,
) -> DeliverablePlan:
    """Step-and-shoot plan of at most `segments_per_beam` segments per beam on average.

    1. Segments that follow the ideal fluence: the best aperture for the residual, weights refitted by non-negative least
       squares, repeatedly. 2. Weights re-optimised on the objectives, and apertures of the greatest reduced cost added
    (column generation; Romeijn et al., SIAM J Optim 15:838, 2005), until the budget is used. 3. Segments below the machine's
    smallest MU dropped and the rest re-optimised, until none is left. Beams that keep no segment are left out of the plan.
    Raises PlanningFailed: TARGET_TOO_WIDE, NO_SEGMENTS, BEAM_MU, WEIGHTS_INVALID.
    """
    beamlets = fluence.beamlets
    fields = {i: f for i in range(len(beamlets.beams)) if (f := beamlet_field(beamlets, i, machine)) is not None}
    wanted = max(1, math.ceil(FROM_FLUENCE * segments_per_beam))
    pool = _Pool(fields, beamlets, machine, (), np.zeros(0))
    for i, field in fields.items():
        progress("sequence", 0.2 * i / len(beamlets.beams), f"{beamlets.beams[i].name}: segments from the fluence")
        shapes, mu = _follow(fluence.weights_mu[field.beamlets], field, beamlets, machine, wanted)
        pool = pool.adding(shapes).with_mu(np.concatenate([pool.mu, mu]))
    _refuse_empty(pool)
    pool = _generate(pool, segments_per_beam, solve_weights, progress)
    pool = _drop_weak(pool, solve_weights, progress)
    return _plan(pool, fractions)


def segment_matrix(
    shapes: Sequence[Shape], fields: dict[int, BeamletField], beamlets: Beamlets, machine: Machine
) -> sp.csc_matrix:
    """Beamlet fluence per MU of each segment, (n_beamlets, n_segments), from leaves and jaws exactly as they will stand."""
    values, rows, starts = [], [], [0]
    for shape, aperture in zip(shapes, _apertures(shapes, fields, machine), strict=True):
        field = fields[shape.beam_index]
        values.append(beamlet_transmission(aperture, field, beamlets, machine))
        rows.append(field.beamlets)
        starts.append(starts[-1] + len(field.beamlets))
    data = (np.concatenate(values), np.concatenate(rows), np.array(starts))
    return sp.csc_matrix(data, shape=(len(beamlets), len(shapes)))


def beamlet_transmission(aperture: Aperture, field: BeamletField, beamlets: Beamlets, machine: Machine) -> Floats:
    """Fluence per MU that an aperture lets into each beamlet of a field, (n,): 1 open, the transmission where closed."""
    along = strip_transmission(field.x_edges_mm, aperture, aperture, machine)
    y1, y2 = beamlets.y1_mm[field.beamlets], beamlets.y2_mm[field.beamlets]
    jaws = aperture.jaw_y1_mm, aperture.jaw_y2_mm
    # Every beamlet of a row lies in the same strips, so one beamlet of each row is enough.
    rows, first = np.unique(field.row, return_index=True)
    across = strip_weights(y1[first], y2[first], strip_boundaries(machine.mlc), jaws, machine.jaws.transmission)
    transmission: Floats = (across @ along)[np.searchsorted(rows, field.row), field.column]
    return transmission


def _apertures(shapes: Sequence[Shape], fields: dict[int, BeamletField], machine: Machine) -> list[Aperture]:
    """Leaves and jaws of all segments. The jaws stand still within a beam, around all of its openings: machines do not in
    general move jaws between segments. Only where leaves may not interdigitate do the jaws follow each segment, because
    there the closed pairs' gaps can hide nowhere but behind the Y jaws."""
    found = []
    for shape in shapes:
        together = [s for s in shapes if s.beam_index == shape.beam_index] if machine.mlc.interdigitation else [shape]
        field = fields[shape.beam_index]
        aperture = aperture_of(shape, field, jaw_box(together, field, machine), machine)
        if aperture is None:
            raise PlanningFailed("NO_PLACE_FOR_CLOSED_LEAVES", f"a segment of beam {shape.beam_index}")
        found.append(aperture)
    return found


def _follow(
    target_mu: Floats, field: BeamletField, beamlets: Beamlets, machine: Machine, n: int
) -> tuple[list[Shape], Floats]:
    """Up to `n` segments whose sum follows a beam's fluence in the least squares, weighted by the beamlets' areas."""
    one = {field.beam_index: field}
    mine = field.beamlets
    area = (beamlets.x2_mm[mine] - beamlets.x1_mm[mine]) * (beamlets.y2_mm[mine] - beamlets.y1_mm[mine])
    root = np.sqrt(area)
    shapes: list[Shape] = []
    mu, residual = np.zeros(0), target_mu.copy()
    while len(shapes) < n and np.linalg.norm(root * residual) > GOOD_FIT * np.linalg.norm(root * target_mu):
        shape = _placed(best_shape(residual * area, field, machine), field, machine)
        if shape is None or any(s.key == shape.key for s in shapes):
            break
        shapes.append(shape)
        columns = segment_matrix(shapes, one, beamlets, machine)[mine].toarray()
        mu = np.asarray(nnls(root[:, None] * columns, root * target_mu)[0])
        residual = target_mu - columns @ mu
    return shapes, mu


def _placed(shape: Shape | None, field: BeamletField, machine: Machine) -> Shape | None:
    """The shape, if its closed pairs have a legal place."""
    if shape is None or aperture_of(shape, field, jaw_box([shape], field, machine), machine) is None:
        return None
    return shape


def _generate(pool: _Pool, segments_per_beam: int, solve_weights: WeightSolver, progress: Progress) -> _Pool:
    """Column generation: re-optimise, drop what is unused, add the best new aperture of each beam, until nothing helps."""
    budget = segments_per_beam * len(pool.fields)
    rounds = 2 * math.ceil((1 - FROM_FLUENCE) * segments_per_beam) + 1
    for i in range(rounds):
        pool, gradient = _solved(pool, solve_weights)
        progress("sequence", 0.2 + 0.6 * i / rounds, f"{len(pool.shapes)} segments, {pool.mu.sum():.0f} MU")
        used = pool.mu >= pool.machine.min_segment_mu / 4
        pool = pool.keeping(used) if used.any() else pool
        fresh = _best_new(pool, gradient)[: max(0, budget - len(pool.shapes))]
        if not fresh:
            break
        pool = pool.adding(fresh)
    return pool


def _best_new(pool: _Pool, gradient: Floats) -> list[Shape]:
    """The aperture of the most negative reduced cost of each beam, best first; closed beamlets count by the transmission."""
    known = {s.key for s in pool.shapes}
    found = []
    for field in pool.fields.values():
        descent = -gradient[field.beamlets]
        shape = _placed(best_shape(descent, field, pool.machine), field, pool.machine)
        if shape is None or shape.key in known:
            continue
        jaws = jaw_box([shape, *(s for s in pool.shapes if s.beam_index == shape.beam_index)], field, pool.machine)
        aperture = aperture_of(shape, field, jaws, pool.machine)
        if aperture is None:
            continue
        open_share = beamlet_transmission(aperture, field, pool.beamlets, pool.machine)
        value = float(descent @ open_share)
        if value > WORTH_ADDING * float(np.abs(descent) @ open_share):
            found.append((value, shape))
    return [shape for _, shape in sorted(found, key=lambda pair: -pair[0])]


def _drop_weak(pool: _Pool, solve_weights: WeightSolver, progress: Progress) -> _Pool:
    """Re-optimise and drop segments below the smallest MU until none is left below it."""
    smallest = pool.machine.min_segment_mu
    for i in range(len(pool.shapes) + 1):
        pool, _ = _solved(pool, solve_weights)
        progress("sequence", 0.8 + 0.19 * (1 - 0.5**i), f"{len(pool.shapes)} segments, {pool.mu.sum():.0f} MU")
        weak = pool.mu < smallest
        if not weak.any():
            break
        # The weakest half only, at first: what they gave is taken over by their neighbours, which may then be strong enough.
        level = smallest if i >= ROUNDS_TO_DROP_ALL else max(smallest / 2, float(np.median(pool.mu[weak])))
        pool = pool.keeping((pool.mu > level) | ~weak)
        _refuse_empty(pool)
    return pool


def _solved(pool: _Pool, solve_weights: WeightSolver) -> tuple[_Pool, Floats]:
    matrix = segment_matrix(pool.shapes, pool.fields, pool.beamlets, pool.machine)
    mu, gradient = solve_weights(matrix, pool.mu)
    sound = mu.shape == pool.mu.shape and gradient.shape == (len(pool.beamlets),) and np.all(np.isfinite(gradient))
    if not sound or not np.all(np.isfinite(mu)) or np.any(mu < 0):
        raise PlanningFailed(
            "WEIGHTS_INVALID", "the weight solver returned MU or a gradient that are negative or not finite"
        )
    return pool.with_mu(np.asarray(mu, dtype=np.float64)), np.asarray(gradient, dtype=np.float64)


def _plan(pool: _Pool, fractions: int) -> DeliverablePlan:
    apertures = _apertures(pool.shapes, pool.fields, pool.machine)
    beams: list[PlanBeam] = []
    for i, beam in enumerate(pool.beamlets.beams):
        segments = [
            Segment(i, a, float(m)) for a, m, s in zip(apertures, pool.mu, pool.shapes, strict=True) if s.beam_index == i
        ]
        if not segments:
            continue
        plan_beam = step_and_shoot_beam(i + 1, beam, _short_travel(segments))
        if plan_beam.mu > pool.machine.max_beam_mu:
            found = f"{beam.name}: {plan_beam.mu:.0f} MU"
            raise PlanningFailed(
                "BEAM_MU", found, f"at most {pool.machine.max_beam_mu:g} MU", "more beams or fewer fractions' dose"
            )
        beams.append(plan_beam)
    return DeliverablePlan(pool.machine.machine_id, pool.machine.beam.energy_id, fractions, tuple(beams))


def _short_travel(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """Delivery order: from the strongest segment always on to the one that the slowest leaf reaches first."""
    left = sorted(segments, key=lambda s: -s.mu)
    order = [left.pop(0)]
    while left:
        here = order[-1].aperture
        travel = [
            max(
                float(np.abs(s.aperture.leaf_x1_mm - here.leaf_x1_mm).max()),
                float(np.abs(s.aperture.leaf_x2_mm - here.leaf_x2_mm).max()),
            )
            for s in left
        ]
        order.append(left.pop(int(np.argmin(travel))))
    return tuple(order)


def _refuse_empty(pool: _Pool) -> None:
    if not pool.shapes:
        raise PlanningFailed("NO_SEGMENTS", "no segment reaches the machine's smallest MU and area", "", "check the fluence")
