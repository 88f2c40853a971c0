"""Deliverable plans: apertures, control points, MU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.beams import Beam


@dataclass(frozen=True, slots=True, eq=False)
class Aperture:
    """Leaf and jaw positions at the isocentre plane, mm in the beam limiting device system.

    `leaf_x1_mm`, `leaf_x2_mm`: (n_pairs,) tips of the banks at negative and positive X, in order of ascending Y.
    """

    leaf_x1_mm: NDArray[np.float64]
    leaf_x2_mm: NDArray[np.float64]
    jaw_x1_mm: float
    jaw_x2_mm: float
    jaw_y1_mm: float
    jaw_y2_mm: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "leaf_x1_mm", frozen(self.leaf_x1_mm, np.float64))
        object.__setattr__(self, "leaf_x2_mm", frozen(self.leaf_x2_mm, np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class ControlPoint:
    """The machine's state when `cumulative_mu` of the beam's MU per fraction have been delivered."""

    cumulative_mu: float
    gantry_angle_deg: float
    aperture: Aperture


@dataclass(frozen=True, slots=True, eq=False)
class PlanBeam:
    """One beam as delivered: control points with ascending cumulative MU from 0. A step-and-shoot segment is a pair of
    control points with equal apertures; between segments the cumulative MU stands still."""

    number: int
    beam: Beam
    control_points: tuple[ControlPoint, ...]

    @property
    def mu(self) -> float:
        """MU per fraction."""
        return self.control_points[-1].cumulative_mu


@dataclass(frozen=True, slots=True, eq=False)
class DeliverablePlan:
    """Beams on a machine for a number of fractions."""

    machine_id: str
    energy_id: str
    fractions: int
    beams: tuple[PlanBeam, ...]

    @property
    def mu(self) -> float:
        """MU per fraction over all beams."""
        return sum(b.mu for b in self.beams)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """An aperture and its MU per fraction, before it is turned into control points."""

    beam_index: int
    aperture: Aperture
    mu: float


def step_and_shoot_beam(number: int, beam: Beam, segments: tuple[Segment, ...]) -> PlanBeam:
    """Control points of a beam that delivers `segments` one after another with the radiation off in between."""
    points: list[ControlPoint] = []
    done = 0.0
    for segment in segments:
        points.append(ControlPoint(done, beam.gantry_angle_deg, segment.aperture))
        done += segment.mu
        points.append(ControlPoint(done, beam.gantry_angle_deg, segment.aperture))
    return PlanBeam(number, beam, tuple(points))
