"""Shape of what an aperture, or all apertures of a beam together, leave open."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from rtplan.domain.machine import Mlc
from rtplan.domain.openings import open_pairs
from rtplan.domain.plan import Aperture, PlanBeam

PIXEL_MM = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """Open pixels (ny, nx) of 0.5 mm at the isocentre plane; the centre of [0, 0] lies at (x0_mm, y0_mm)."""

    x0_mm: float
    y0_mm: float
    is_open: NDArray[np.bool_]

    def width_mm(self) -> float:
        """Diameter of the largest disc that fits in: twice the best distance of any point from all edges.

        It is what lateral electron equilibrium depends on (IAEA TRS-483), and it does not ask how the collimator is turned.
        To 0.5 mm.
        """
        # The border of closed pixels makes the edge of the array an edge of the field.
        return float(2.0 * PIXEL_MM * distance_transform_edt(np.pad(self.is_open, 1)).max())

    def longest_side_mm(self) -> float:
        """Longer side of the box around everything that is open."""
        sides = [np.flatnonzero(self.is_open.any(axis=axis)) for axis in (0, 1)]
        return max((float(s[-1] - s[0] + 1) * PIXEL_MM for s in sides if s.size), default=0.0)

    def holds(self, x_mm: NDArray[np.float64], y_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points of the isocentre plane lie in the opening."""
        column = np.rint((x_mm - self.x0_mm) / PIXEL_MM).astype(np.int64)
        row = np.rint((y_mm - self.y0_mm) / PIXEL_MM).astype(np.int64)
        ny, nx = self.is_open.shape
        inside = (row >= 0) & (row < ny) & (column >= 0) & (column < nx)
        found: NDArray[np.bool_] = np.zeros(x_mm.shape, dtype=bool)
        found[inside] = self.is_open[row[inside], column[inside]]
        return found


def spans(beam: PlanBeam) -> tuple[tuple[Aperture, Aperture, float], ...]:
    """First aperture, last aperture and MU of each span between control points in which radiation is given."""
    points = beam.control_points
    pairs = itertools.pairwise(points)
    return tuple(
        (a.aperture, b.aperture, b.cumulative_mu - a.cumulative_mu) for a, b in pairs if b.cumulative_mu > a.cumulative_mu
    )


def opening(apertures: Sequence[Aperture], mlc: Mlc) -> Opening:
    """Union of what the apertures leave open inside their jaws. Gaps of closed pairs do not count."""
    x_low, x_high, y_low, y_high = _box(apertures)
    x = _centres(x_low, x_high)
    y = _centres(y_low, y_high)
    # Beyond the outermost leaf only jaws shield: such rows take no pair.
    pair = np.searchsorted(mlc.leaf_boundaries_mm, y) - 1
    bare = (pair < 0) | (pair >= mlc.n_pairs)
    pair = np.clip(pair, 0, mlc.n_pairs - 1)
    is_open = np.zeros((len(y), len(x)), dtype=bool)
    for aperture in apertures:
        free = bare | open_pairs(aperture, mlc)[pair]
        low = np.where(bare, -np.inf, aperture.leaf_x1_mm[pair])
        high = np.where(bare, np.inf, aperture.leaf_x2_mm[pair])
        free &= (y > aperture.jaw_y1_mm) & (y < aperture.jaw_y2_mm)
        along = (x > np.maximum(low, aperture.jaw_x1_mm)[:, None]) & (x < np.minimum(high, aperture.jaw_x2_mm)[:, None])
        is_open |= along & free[:, None]
    return Opening(float(x[0]), float(y[0]), is_open)


def swept(start: Aperture, end: Aperture, mlc: Mlc) -> Aperture:
    """What a span opens at one time or another: leaves and jaws move in straight lines, so its ends say it.

    A pair that is closed at both ends stays closed, wherever it moves.
    """
    x1 = np.minimum(start.leaf_x1_mm, end.leaf_x1_mm)
    x2 = np.maximum(start.leaf_x2_mm, end.leaf_x2_mm)
    opens = open_pairs(start, mlc) | open_pairs(end, mlc)
    return Aperture(
        x1,
        np.where(opens, x2, x1),
        min(start.jaw_x1_mm, end.jaw_x1_mm),
        max(start.jaw_x2_mm, end.jaw_x2_mm),
        min(start.jaw_y1_mm, end.jaw_y1_mm),
        max(start.jaw_y2_mm, end.jaw_y2_mm),
    )


def beam_opening(beam: PlanBeam, mlc: Mlc) -> Opening | None:
    """Union of everything that a beam opens while it gives MU; None where it gives none."""
    apertures = [swept(a, b, mlc) for a, b, _ in spans(beam)]
    return opening(apertures, mlc) if apertures else None


def _box(apertures: Sequence[Aperture]) -> tuple[float, float, float, float]:
    return (
        min(a.jaw_x1_mm for a in apertures),
        max(a.jaw_x2_mm for a in apertures),
        min(a.jaw_y1_mm for a in apertures),
        max(a.jaw_y2_mm for a in apertures),
    )


def _centres(low_mm: float, high_mm: float) -> NDArray[np.float64]:
    """Centres of the pixels between two edges; pixels lie on multiples of their size, at least one."""
    first, last = np.floor(low_mm / PIXEL_MM), np.ceil(high_mm / PIXEL_MM)
    return np.asarray((np.arange(first, max(last, first + 1)) + 0.5) * PIXEL_MM, dtype=np.float64)
