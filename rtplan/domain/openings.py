"""What an aperture leaves open."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import Mlc
from rtplan.domain.plan import Aperture, PlanBeam

POSITION_TOLERANCE_MM = 0.01  # well below what any collimator resolves, above what decimal strings in a file round away


def open_pairs(aperture: Aperture, mlc: Mlc) -> NDArray[np.bool_]:
    """Which leaf pairs are meant to be open, (n_pairs,): those wider than the gap at which a closed pair stands."""
    return np.asarray(aperture.leaf_x2_mm - aperture.leaf_x1_mm > mlc.min_gap_mm + POSITION_TOLERANCE_MM)


def open_area_cm2(aperture: Aperture, mlc: Mlc) -> float:
    """Area at the isocentre plane, cm², that open leaf pairs leave inside the jaws. Gaps of closed pairs do not count."""
    low, high = mlc.leaf_boundaries_mm[:-1], mlc.leaf_boundaries_mm[1:]
    height = np.minimum(high, aperture.jaw_y2_mm) - np.maximum(low, aperture.jaw_y1_mm)
    width = np.minimum(aperture.leaf_x2_mm, aperture.jaw_x2_mm) - np.maximum(aperture.leaf_x1_mm, aperture.jaw_x1_mm)
    area = np.maximum(height, 0.0) * np.maximum(width, 0.0)
    return float(area[open_pairs(aperture, mlc)].sum()) / 100.0


def equal_apertures(a: Aperture, b: Aperture) -> bool:
    """Whether two apertures agree in every leaf and jaw to the position tolerance."""
    jaws = np.array([_jaws(a), _jaws(b)])
    return bool(
        len(a.leaf_x1_mm) == len(b.leaf_x1_mm)
        and np.abs(a.leaf_x1_mm - b.leaf_x1_mm).max() <= POSITION_TOLERANCE_MM
        and np.abs(a.leaf_x2_mm - b.leaf_x2_mm).max() <= POSITION_TOLERANCE_MM
        and np.abs(jaws[0] - jaws[1]).max() <= POSITION_TOLERANCE_MM
    )


def static_segments(beam: PlanBeam) -> tuple[tuple[Aperture, float], ...]:
    """Apertures that stand still while MU are given, with those MU per fraction, in order of delivery.

    Neighbouring intervals with one aperture count as one segment. Intervals in which leaves or the gantry move are left
    out: what an arc delivers is not in here, see `exposed_apertures`.
    """
    found: list[tuple[Aperture, float]] = []
    joined = False
    for start, end in zip(beam.control_points[:-1], beam.control_points[1:], strict=True):
        mu = end.cumulative_mu - start.cumulative_mu
        still = equal_apertures(start.aperture, end.aperture) and start.gantry_angle_deg == end.gantry_angle_deg
        if still and mu != 0.0:
            if joined:
                found[-1] = (found[-1][0], found[-1][1] + mu)
            else:
                found.append((start.aperture, mu))
        joined = still and (mu != 0.0 or joined)
    return tuple(found)


def exposed_apertures(beam: PlanBeam) -> tuple[tuple[int, Aperture], ...]:
    """Index and aperture of every control point at which MU are being given: those on either side of an interval with MU."""
    mu = np.diff([p.cumulative_mu for p in beam.control_points])
    given = np.concatenate([[False], mu > 0]) | np.concatenate([mu > 0, [False]])
    return tuple((int(i), beam.control_points[i].aperture) for i in np.flatnonzero(given))


def _jaws(aperture: Aperture) -> tuple[float, float, float, float]:
    return aperture.jaw_x1_mm, aperture.jaw_x2_mm, aperture.jaw_y1_mm, aperture.jaw_y2_mm
