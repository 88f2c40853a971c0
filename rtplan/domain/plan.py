"""Deliverable plans: apertures, control points, MU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.beams import Beam

Rotation = Literal["NONE", "CW", "CC"]  # of the gantry; CW is towards greater angles, as IEC 61217 and DICOM have it
_NO_TURN_DEG = 1e-6  # what decimal strings round away


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
    """The machine's state when `cumulative_mu` of the beam's MU per fraction have been delivered.

    Gantry angle IEC 61217 in [0, 360). Between two control points everything moves linearly in MU.
    """

    cumulative_mu: float
    gantry_angle_deg: float
    aperture: Aperture


@dataclass(frozen=True, slots=True, eq=False)
class PlanBeam:
    """One beam as delivered: control points with ascending cumulative MU from 0. A step-and-shoot segment is a pair of
    control points with equal apertures; between segments the cumulative MU stands still.

    The gantry of an arc turns in one direction, `rotation`, from `beam.gantry_angle_deg` on; collimator, couch and
    isocentre stay. "NONE" is a fixed beam.
    """

    number: int
    beam: Beam
    control_points: tuple[ControlPoint, ...]
    rotation: Rotation = "NONE"

    @property
    def mu(self) -> float:
        """MU per fraction."""
        return self.control_points[-1].cumulative_mu

    @property
    def is_arc(self) -> bool:
        """Whether the gantry turns while MU are given."""
        return self.rotation != "NONE"

    @property
    def turns_deg(self) -> NDArray[np.float64]:
        """How far the gantry turns between control points, (n - 1,) degrees, positive towards greater angles.

        An arc turns in its direction and no other, so a step back by 2 degrees is a turn of 358. A fixed beam whose angles
        change all the same (its checks refuse it) turns the shorter way.
        """
        step = np.diff([p.gantry_angle_deg for p in self.control_points])
        if not self.is_arc:
            return np.asarray((step + 180.0) % 360.0 - 180.0)
        forward = (step if self.rotation == "CW" else -step) % 360.0
        forward[360.0 - forward < _NO_TURN_DEG] = 0.0
        return np.asarray(forward if self.rotation == "CW" else -forward)


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


def arc_beam(number: int, beam: Beam, rotation: Rotation, control_points: tuple[ControlPoint, ...]) -> PlanBeam:
    """An arc through `control_points`, the first of which stands at the beam's own gantry angle.

    Raises ValueError for what is no arc at all; what a machine can turn is for the checks to say.
    """
    if rotation not in ("CW", "CC") or len(control_points) < 2:
        raise ValueError(f"beam {number}: an arc of rotation {rotation} with {len(control_points)} control points")
    if control_points[0].gantry_angle_deg != beam.gantry_angle_deg:
        first = control_points[0].gantry_angle_deg
        raise ValueError(f"beam {number} stands at {beam.gantry_angle_deg:g} deg, its arc begins at {first:g} deg")
    return PlanBeam(number, beam, control_points, rotation)
