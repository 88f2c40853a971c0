"""How long the delivery of a plan takes, estimated from the machine's speeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from rtplan.domain.machine import Machine
from rtplan.domain.motion import Interval, gantry_paths_deg, interval_seconds, intervals
from rtplan.domain.plan import DeliverablePlan, PlanBeam
from rtplan.errors import PlanningFailed

# Choices of this project, unverified: accelerators differ by more than these are long.
SEGMENT_PAUSE_S = 1.0  # leaves confirmed and radiation switched on again, before each segment after a beam's first
BEAM_START_S = 10.0  # beam loaded, confirmed and switched on


@dataclass(frozen=True, slots=True)
class BeamTime:
    """Seconds of one beam: loading, radiation, leaves and gantry moving without it, and pauses between segments."""

    number: int
    start_s: float
    radiation_s: float
    moving_s: float
    pauses_s: float

    @property
    def total_s(self) -> float:
        """All of it, s."""
        return self.start_s + self.radiation_s + self.moving_s + self.pauses_s


@dataclass(frozen=True, slots=True)
class DeliveryTime:
    """Seconds of every beam, and of the gantry on its way from one to the next."""

    beams: tuple[BeamTime, ...]
    between_beams_s: float

    @property
    def total_s(self) -> float:
        """From the first beam's loading to the last one's end, s."""
        return sum(b.total_s for b in self.beams) + self.between_beams_s


def delivery_time(plan: DeliverablePlan, machine: Machine) -> DeliveryTime:
    """Least time of one fraction's beams in their order, s.

    Each interval between control points lasts as long as its slowest axis (gantry, leaves, jaws, dose rate). Between beams
    the gantry takes the shortest way that does not pass a stop; a beam at a stop is reached from whichever side makes the
    whole shortest. A segment with radiation costs a pause unless it is the beam's first.

    Left out: acceleration, so arcs of uneven speed take longer; turning collimator and couch, and leaves moving to a beam's
    first aperture, all taken to happen while the gantry turns or the beam is loaded; imaging, set-up, and entering the room.
    Raises PlanningFailed GANTRY_PATH for a beam with a stop in its way.
    """
    return DeliveryTime(tuple(_beam_time(b, machine) for b in plan.beams), _between_beams_s(plan, machine))


def _beam_time(beam: PlanBeam, machine: Machine) -> BeamTime:
    lit = [(interval, interval_seconds(interval, machine)) for interval in intervals(beam)]
    radiation = sum(seconds for interval, seconds in lit if interval.mu > 0.0)
    moving = sum(seconds for interval, seconds in lit if interval.mu <= 0.0)
    pauses = 0.0 if beam.is_arc else SEGMENT_PAUSE_S * _interruptions([interval for interval, _ in lit])
    return BeamTime(beam.number, BEAM_START_S, radiation, moving, pauses)


def _interruptions(spans: list[Interval]) -> int:
    """How often radiation goes off and on again within a beam."""
    switched_on = sum(now.mu > 0.0 and before.mu <= 0.0 for before, now in pairwise(spans))
    return switched_on - (0 if spans[0].mu > 0.0 else 1)


def _between_beams_s(plan: DeliverablePlan, machine: Machine) -> float:
    """The gantry's way from beam to beam, each taken from the side of the stops that makes the whole way shortest."""
    reached: dict[float, float] = {}  # where the gantry may stand after the beam, and how far it has turned until then
    for i, beam in enumerate(plan.beams):
        paths = gantry_paths_deg(beam, machine)
        if not paths:
            low, high = machine.gantry_range_deg
            expected = f"a gantry that turns from {low:g} to {high:g} deg"
            raise PlanningFailed("GANTRY_PATH", f"beam {beam.number} passes a stop", expected)
        before = reached if i else {paths_start: 0.0 for paths_start, _ in paths}
        reached = {}
        for start, end in paths:
            turned = min(way + abs(start - angle) for angle, way in before.items())
            reached[end] = min(turned, reached.get(end, math.inf))
    return min(reached.values(), default=0.0) / machine.max_gantry_speed_deg_s
