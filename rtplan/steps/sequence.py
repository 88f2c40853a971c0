"""Step-and-shoot sequencing: from an ideal fluence to first segments, and from segments to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from rtplan.domain.influence import Beamlets, FluencePlan
from rtplan.domain.machine import Machine
from rtplan.domain.openings import equal_apertures
from rtplan.domain.plan import Aperture, DeliverablePlan, PlanBeam, Segment, step_and_shoot_beam
from rtplan.domain.progress import Progress, silent
from rtplan.errors import PlanningFailed
from rtplan.steps.apertures import BeamletField, Shape, beamlet_field
from rtplan.steps.closed_leaves import aperture_of, jaw_box, placed_shape
from rtplan.steps.direct_aperture import Segments
from rtplan.steps.tips import first_tips

Floats = NDArray[np.float64]

GOOD_FIT = 0.01  # relative residual at which more segments no longer follow the fluence, but its noise
WORTH_KEEPING = 0.125  # of the machine's smallest MU: what follows the fluence with less is noise


def first_segments(
    fluence: FluencePlan, machine: Machine, *, segments_per_beam: int, progress: Progress = silent
) -> Segments:
    """At most `segments_per_beam` segments a beam that follow the ideal fluence.

    Greedy: the best aperture for the residual, weights refitted by non-negative least squares, repeatedly. Beams whose
    fluence needs no segment have none. Raises PlanningFailed: TARGET_TOO_WIDE, NO_SEGMENTS.
    """
    beamlets = fluence.beamlets
    fields = {i: f for i in range(len(beamlets.beams)) if (f := beamlet_field(beamlets, i, machine)) is not None}
    shapes: list[Shape] = []
    mu: list[float] = []
    for i, field in fields.items():
        progress("sequence", i / len(beamlets.beams), f"{beamlets.beams[i].name}: segments from the fluence")
        found, weights = _follow(fluence.weights_mu[field.beamlets], field, beamlets, machine, segments_per_beam)
        shapes += found
        mu += [float(w) for w in weights]
    segments = Segments(fields, beamlets, machine, tuple(shapes), np.array(mu))
    return segments.keeping(segments.mu > WORTH_KEEPING * machine.min_segment_mu)


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
    mine = field.beamlets
    area = (beamlets.x2_mm[mine] - beamlets.x1_mm[mine]) * (beamlets.y2_mm[mine] - beamlets.y1_mm[mine])
    root = np.sqrt(area)
    shapes: list[Shape] = []
    columns = np.empty((len(mine), 0))
    mu, residual = np.zeros(0), target_mu.copy()
    while len(shapes) < n and np.linalg.norm(root * residual) > GOOD_FIT * np.linalg.norm(root * target_mu):
        shape = placed_shape(residual * area, field, machine)
        if shape is None or any(s.key == shape.key for s in shapes):
            break
        shapes.append(shape)
        columns = np.column_stack([columns, _transmission(shape, field, machine)])
        mu = np.asarray(nnls(root[:, None] * columns, root * target_mu)[0])
        residual = target_mu - columns @ mu
    return shapes, mu


def _transmission(shape: Shape, field: BeamletField, machine: Machine) -> Floats:
    """Fluence per MU in each beamlet of a field, (n,)."""
    tips = first_tips([shape], field, machine)
    share: Floats = tips.open_share(field)[0, field.row, field.column]
    return tips.transmission + (1 - tips.transmission) * share


def plan_of(segments: Segments, fractions: int) -> DeliverablePlan:
    """The step-and-shoot plan of some segments; equal ones are one. Beams without any are left out.

    Raises PlanningFailed BEAM_MU.
    """
    machine, beamlets = segments.machine, segments.beamlets
    apertures = _apertures(segments.shapes, segments.fields, machine)
    pairs = list(zip(apertures, segments.mu, segments.shapes, strict=True))
    beams: list[PlanBeam] = []
    for i, beam in enumerate(beamlets.beams):
        own = _without_twins([Segment(i, aperture, float(mu)) for aperture, mu, shape in pairs if shape.beam_index == i])
        if not own:
            continue
        plan_beam = step_and_shoot_beam(i + 1, beam, _short_travel(own))
        if plan_beam.mu > machine.max_beam_mu:
            found = f"{beam.name}: {plan_beam.mu:.0f} MU"
            raise PlanningFailed(
                "BEAM_MU", found, f"at most {machine.max_beam_mu:g} MU", "more beams or fewer fractions' dose"
            )
        beams.append(plan_beam)
    return DeliverablePlan(machine.machine_id, machine.beam.energy_id, fractions, tuple(beams))


def _without_twins(segments: Sequence[Segment]) -> list[Segment]:
    """Segments whose apertures the search made equal as one with the MU of all: leaves that stand still between two
    segments look like control points that were lost."""
    found: list[Segment] = []
    for segment in segments:
        twin = next((k for k, other in enumerate(found) if equal_apertures(other.aperture, segment.aperture)), None)
        if twin is None:
            found.append(segment)
        else:
            found[twin] = replace(found[twin], mu=found[twin].mu + segment.mu)
    return found


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
