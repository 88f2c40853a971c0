"""How a machine goes through a beam: what moves between two control points, how long it takes, where the gantry can pass.

An interval lasts as long as its slowest axis: t = max(turn / gantry speed, leaf / leaf speed, jaw / jaw speed, MU / dose
rate). The dose rate gives way to what moves. Acceleration is left out: each axis is taken to have its full speed at once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import Machine
from rtplan.domain.plan import Aperture, PlanBeam

ANGLE_TOLERANCE_DEG = 1e-3  # at a stop: below what any gantry resolves


@dataclass(frozen=True, slots=True)
class Interval:
    """What changes between two control points: the gantry's turn, the furthest that a leaf and a jaw go, and the MU."""

    turn_deg: float
    leaf_mm: float
    jaw_mm: float
    mu: float


def intervals(beam: PlanBeam) -> tuple[Interval, ...]:
    """The intervals between a beam's control points in order, all values without sign but the MU."""
    pairs = itertools.pairwise(beam.control_points)
    return tuple(
        Interval(
            abs(float(turn)),
            float(np.abs(_leaves(a.aperture) - _leaves(b.aperture)).max()),
            float(np.abs(_jaws(a.aperture) - _jaws(b.aperture)).max()),
            b.cumulative_mu - a.cumulative_mu,
        )
        for (a, b), turn in zip(pairs, beam.turns_deg, strict=True)
    )


def motion_seconds(interval: Interval, machine: Machine) -> float:
    """The least time that gantry, leaves and jaws need, s."""
    return max(
        interval.turn_deg / machine.max_gantry_speed_deg_s,
        interval.leaf_mm / machine.mlc.max_leaf_speed_mm_s,
        interval.jaw_mm / machine.jaws.max_speed_mm_s,
    )


def dose_rate_mu_min(interval: Interval, machine: Machine) -> float:
    """The highest dose rate at which everything that moves keeps up, MU/min; it may be lower than the machine can go.

    Of a machine with dose rates in steps the next step below, where there is one.
    """
    moving_s = motion_seconds(interval, machine)
    rate = machine.max_dose_rate_mu_min
    if moving_s > 0.0:
        rate = min(rate, 60.0 * interval.mu / moving_s)
    steps = machine.arc.dose_rates_mu_min if machine.arc is not None else ()
    # A rate that is a step but for rounding is that step.
    return max((step for step in steps if step <= rate * (1 + 1e-9)), default=rate)


def interval_seconds(interval: Interval, machine: Machine) -> float:
    """How long an interval takes at least, s."""
    if interval.mu <= 0.0:
        return motion_seconds(interval, machine)
    return 60.0 * interval.mu / dose_rate_mu_min(interval, machine)


def gantry_paths_deg(beam: PlanBeam, machine: Machine) -> tuple[tuple[float, float], ...]:
    """Where the gantry may begin and end the beam, degrees between its stops; empty when a stop is in the way.

    Angles are unwrapped: with stops at -180 and 180 a fixed beam at 180 may be reached from either side.
    """
    low, high = machine.gantry_range_deg
    way = np.concatenate([[0.0], np.cumsum(beam.turns_deg)])
    found = []
    for turn in range(-3, 4):
        path = beam.control_points[0].gantry_angle_deg + 360.0 * turn + way
        if path.min() >= low - ANGLE_TOLERANCE_DEG and path.max() <= high + ANGLE_TOLERANCE_DEG:
            found.append((float(path[0]), float(path[-1])))
    return tuple(found)


def _leaves(aperture: Aperture) -> NDArray[np.float64]:
    return np.concatenate([aperture.leaf_x1_mm, aperture.leaf_x2_mm])


def _jaws(aperture: Aperture) -> NDArray[np.float64]:
    return np.array([aperture.jaw_x1_mm, aperture.jaw_x2_mm, aperture.jaw_y1_mm, aperture.jaw_y2_mm])
