"""Beams in IEC 61217, and their frames in patient coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.grid import Float3


@dataclass(frozen=True, slots=True)
class Beam:
    """A static beam direction. Angles are IEC 61217 degrees, the isocentre is LPS mm of a head-first supine patient."""

    name: str
    gantry_angle_deg: float
    collimator_angle_deg: float
    couch_angle_deg: float
    isocentre_xyz_mm: Float3
    sad_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class BeamFrame:
    """Axes of the IEC beam limiting device system in LPS: unit vectors (3,) and the source point (3,) mm.

    `axis_z` points from the isocentre to the source.
    """

    source_xyz_mm: NDArray[np.float64]
    isocentre_xyz_mm: NDArray[np.float64]
    axis_x: NDArray[np.float64]
    axis_y: NDArray[np.float64]
    axis_z: NDArray[np.float64]
    sad_mm: float

    def to_bev(self, point_xyz_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Points (..., 3) to (x, y, distance): mm projected from the source onto the isocentre plane, and mm along the
        axis from the source."""
        relative = np.asarray(point_xyz_mm, dtype=np.float64) - self.source_xyz_mm
        distance = -(relative @ self.axis_z)
        scale = self.sad_mm / distance
        return (relative @ self.axis_x) * scale, (relative @ self.axis_y) * scale, distance


def beam_frame(beam: Beam) -> BeamFrame:
    """Frame of a beam for a head-first supine patient.

    IEC fixed axes in LPS with the couch at 0: Xf = +x (left), Yf = +z (superior), Zf = -y (anterior). The gantry turns
    about Yf, the collimator about the beam axis, the couch about Zf (IEC 61217). Source at gantry angle g:
    isocentre + SAD (sin g, -cos g, 0).
    """
    g, c, t = np.radians([beam.gantry_angle_deg, beam.collimator_angle_deg, beam.couch_angle_deg])
    gantry_x = np.array([np.cos(g), 0.0, -np.sin(g)])
    gantry_z = np.array([np.sin(g), 0.0, np.cos(g)])
    gantry_y = np.array([0.0, 1.0, 0.0])
    fixed = (np.cos(c) * gantry_x + np.sin(c) * gantry_y, -np.sin(c) * gantry_x + np.cos(c) * gantry_y, gantry_z)

    def to_patient(v: NDArray[np.float64]) -> NDArray[np.float64]:
        # The table turns the patient by +t about Zf, so fixed vectors turn by -t as the patient sees them.
        xs, ys = np.cos(t) * v[0] + np.sin(t) * v[1], -np.sin(t) * v[0] + np.cos(t) * v[1]
        return np.array([xs, -v[2], ys])

    x, y, z = (to_patient(v) for v in fixed)
    iso = np.array(beam.isocentre_xyz_mm, dtype=np.float64)
    return BeamFrame(iso + beam.sad_mm * z, iso, x, y, z, beam.sad_mm)


@dataclass(frozen=True, slots=True, eq=False)
class FluenceMap:
    """Open-field-equivalent MU per fraction at the isocentre plane in air, per pixel: (ny, nx) with ascending edges in mm
    (beam limiting device X and Y). 1 everywhere is the open beam on its axis for 1 MU; the machine's off-axis factor and
    the inverse square are not in it. Outside the edges it is zero. `of_arc`: one of the many maps that stand for a turning
    gantry, whose neighbours an engine may let share what varies slowly with the angle."""

    beam: Beam
    x_edges_mm: NDArray[np.float64]
    y_edges_mm: NDArray[np.float64]
    fluence_mu: NDArray[np.float64]
    of_arc: bool = False

    def __post_init__(self) -> None:
        for name in ("x_edges_mm", "y_edges_mm", "fluence_mu"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.float64))
        if self.fluence_mu.shape != (len(self.y_edges_mm) - 1, len(self.x_edges_mm) - 1):
            raise ValueError("fluence does not fit its edges")
