"""Leaf tips along one arc: what they open on their way from control point to control point, and what motion is legal.

An interval between two control points is one aperture in motion: tips go linearly from where they stand at its beginning to
where they stand at its end, and a beamlet is open for the share of the interval's MU (and of its width) for which it lies
between them. That share is the mean of a clipped ramp along the way, which has a closed form, as have its derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.beams import Beam
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import Machine
from rtplan.domain.openings import POSITION_TOLERANCE_MM
from rtplan.domain.prescription import Arc
from rtplan.errors import PlanningFailed
from rtplan.steps.apertures import raster
from rtplan.steps.place_beams import ArcBeams

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_SWEEP_MM = 0.5  # tips that stand still are taken to go this far: their beamlets then open smoothly
AREA_MARGIN = 1.1  # over the machine's smallest area, in what is optimised


@dataclass(frozen=True, slots=True, eq=False)
class ArcField:
    """The beamlets of one arc on one raster: intervals by leaf pairs by columns along the leaves' travel.

    `beamlet` (n_intervals, n_rows, n_columns) indexes the plan's beamlets, -1 where an interval has none; the `per_beam`
    intervals that one beam stands for have the same. Row 0 is leaf pair
    `first_pair`; `x_edges_mm` (n_columns + 1,). `angles_deg` (n_intervals + 1,) are the gantry angles of the control points
    in order of delivery, `beam` stands at the first of them.
    """

    arc: Arc
    beam: Beam
    angles_deg: Floats
    per_beam: int
    beamlet: Ints
    first_pair: int
    x_edges_mm: Floats
    row_height_mm: Floats

    @property
    def turn_deg(self) -> float:
        """How far the gantry turns in an interval, degrees without sign."""
        return float(self.arc.length_deg / len(self.beamlet))

    @property
    def present(self) -> NDArray[np.bool_]:
        """Where there are beamlets, (n_intervals, n_rows, n_columns)."""
        return np.asarray(self.beamlet >= 0)

    def cells(self, by_beamlet: Floats) -> Floats:
        """Values of beamlets on the raster (n_intervals, n_rows, n_columns), zero where there is none."""
        return np.where(self.present, by_beamlet[np.maximum(self.beamlet, 0)], 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class ArcTips:
    """Tips (n_intervals + 1, n_rows) mm at the control points of an arc, x1 + gap <= x2."""

    x1_mm: Floats
    x2_mm: Floats


@dataclass(frozen=True, slots=True)
class Motion:
    """What tips of an arc may do: bounds of each bank (low, high) in mm, the smallest gap, the furthest way in an interval,
    and the smallest area in cm². Tips let photons through `back_mm` further out than they stand, leaves `transmission`."""

    x1_mm: tuple[float, float]
    x2_mm: tuple[float, float]
    gap_mm: float
    way_mm: float
    area_cm2: float
    back_mm: float
    transmission: float


def arc_field(beamlets: Beamlets, arc: ArcBeams, first_beam: int, machine: Machine) -> ArcField:
    """The raster of one arc whose beams are those from `first_beam` on. Raises as `raster` does."""
    n = len(arc.middles)
    mine = np.flatnonzero((beamlets.beam_index >= first_beam) & (beamlets.beam_index < first_beam + n))
    column, edges = raster(beamlets, mine, machine)
    pair = beamlets.leaf_pair[mine].astype(np.int64)
    first, last = int(pair.min()), int(pair.max())
    beamlet = np.full((n, last - first + 1, len(edges) - 1), -1, dtype=np.int64)
    beamlet[beamlets.beam_index[mine] - first_beam, pair - first, column] = mine
    heights = np.diff(machine.mlc.leaf_boundaries_mm[first : last + 2])
    per_beam = (len(arc.angles_deg) - 1) // n
    whole = np.repeat(beamlet, per_beam, axis=0)
    return ArcField(arc.arc, arc.start, arc.angles_deg, per_beam, whole, first, edges, heights)


def motion_of(field: ArcField, machine: Machine) -> Motion:
    """What the machine lets the tips of an arc do while the gantry turns at its full speed.

    Where the field is wider than a bank's span each bank keeps to a window of one span at its own side.
    Raises PlanningFailed ARC_NOT_SUPPORTED for a machine without arcs, or whose opposite neighbours may not pass.
    """
    mlc = machine.mlc
    if machine.arc is None or not mlc.interdigitation:
        found = (
            f"{machine.machine_id} has no arcs" if machine.arc is None else f"leaves of {machine.machine_id} may not pass"
        )
        raise PlanningFailed(
            "ARC_NOT_SUPPORTED", found, "a machine with arcs and leaves that interdigitate", "plan with imrt"
        )
    low, high = float(field.x_edges_mm[0]), float(field.x_edges_mm[-1])
    left = max(low, -mlc.max_position_mm), min(high, mlc.max_overtravel_mm, low + mlc.max_span_mm)
    right = max(low, -mlc.max_overtravel_mm, high - mlc.max_span_mm), min(high, mlc.max_position_mm)
    return Motion(
        x1_mm=left,
        x2_mm=right,
        gap_mm=mlc.min_gap_mm,
        way_mm=mlc.max_leaf_speed_mm_s * field.turn_deg / machine.max_gantry_speed_deg_s,
        area_cm2=AREA_MARGIN * machine.min_segment_area_cm2,
        back_mm=mlc.dosimetric_leaf_gap_mm / 2,
        transmission=mlc.mean_transmission,
    )


def open_share(tips: ArcTips, field: ArcField, motion: Motion) -> Floats:
    """Part of each interval's MU that passes between the tips, mean over each beamlet: (n_intervals, n_rows, n_columns)."""
    left, right = _ramps(tips.x1_mm - motion.back_mm, field), _ramps(tips.x2_mm + motion.back_mm, field)
    return np.asarray(right[0] - left[0])


def share_gradient(tips: ArcTips, field: ArcField, motion: Motion, cells: Floats) -> tuple[Floats, Floats]:
    """Change of Σ cells · open_share by the tips of both banks, (n_intervals + 1, n_rows) each, per mm."""
    found = []
    for x, sign in ((tips.x1_mm - motion.back_mm, -1.0), (tips.x2_mm + motion.back_mm, 1.0)):
        _, by_start, by_end = _ramps(x, field)
        total = np.zeros_like(x)
        total[:-1] += np.einsum("krc,krc->kr", cells, by_start)
        total[1:] += np.einsum("krc,krc->kr", cells, by_end)
        found.append(sign * total)
    return found[0], found[1]


def areas_cm2(tips: ArcTips, field: ArcField, motion: Motion) -> Floats:
    """Open area at each control point, (n_intervals + 1,) cm²: pairs at their smallest gap count as closed."""
    width = np.maximum(tips.x2_mm - tips.x1_mm - motion.gap_mm, 0.0)
    return np.asarray(width @ field.row_height_mm / 100.0)


def legal_tips(x1_mm: Floats, x2_mm: Floats, motion: Motion) -> ArcTips:
    """Tips near those wished for that keep to bounds, gap and speed.

    Of all paths that a leaf can follow, the middle between the lowest that stays above the wish and the highest that stays
    below it is nowhere further from the wish than any must be; it keeps order and bounds, which both have alike.
    """
    x1, x2 = np.clip(x1_mm, *motion.x1_mm), np.clip(x2_mm, *motion.x2_mm) - motion.gap_mm
    # Both banks' windows overlap by more than the gap, so the middle of crossed tips lies in both.
    lowest, highest = (
        max(motion.x1_mm[0], motion.x2_mm[0] - motion.gap_mm),
        min(motion.x1_mm[1], motion.x2_mm[1] - motion.gap_mm),
    )
    middle, crossed = np.clip((x1 + x2) / 2, lowest, highest), x1 > x2
    x1, x2 = np.where(crossed, middle, x1), np.where(crossed, middle, x2)
    return ArcTips(_followable(x1, motion.way_mm), _followable(x2, motion.way_mm) + motion.gap_mm)


def opened(tips: ArcTips, field: ArcField, motion: Motion) -> ArcTips:
    """The tips with every control point opened to the smallest area: the widest pair and its neighbours open further, and
    leaves before and after follow as far as their speed demands."""
    short = areas_cm2(tips, field, motion) < motion.area_cm2
    if not short.any():
        return tips
    x1, x2 = tips.x1_mm.copy(), tips.x2_mm.copy()
    for i in np.flatnonzero(short):
        widest = int((x2[i] - x1[i]).argmax())
        rows = np.argsort(np.abs(np.arange(x1.shape[1]) - widest), kind="stable")
        centre = np.clip((x1[i, widest] + x2[i, widest]) / 2, motion.x2_mm[0], motion.x1_mm[1])
        # A column wide row by row; where that is not enough, wider.
        for columns, row in ((n, r) for n in range(1, len(field.x_edges_mm)) for r in rows):
            half = (columns * (field.x_edges_mm[1] - field.x_edges_mm[0]) + motion.gap_mm) / 2
            x1[i, row] = max(min(x1[i, row], centre - half), motion.x1_mm[0])
            x2[i, row] = min(max(x2[i, row], centre + half), motion.x2_mm[1])
            width = np.maximum(x2[i] - x1[i] - motion.gap_mm, 0.0)
            if float(width @ field.row_height_mm) / 100.0 >= motion.area_cm2:
                break
    return replace(tips, x1_mm=_envelope(x1, motion.way_mm, upper=False), x2_mm=_envelope(x2, motion.way_mm, upper=True))


def is_open(tips: ArcTips, motion: Motion) -> NDArray[np.bool_]:
    """Which pairs stand further apart than closed ones do, (n_intervals + 1, n_rows)."""
    return np.asarray(tips.x2_mm - tips.x1_mm > motion.gap_mm + POSITION_TOLERANCE_MM)


def _followable(x_mm: Floats, way_mm: float) -> Floats:
    return (_envelope(x_mm, way_mm, upper=True) + _envelope(x_mm, way_mm, upper=False)) / 2


def _envelope(x_mm: Floats, way_mm: float, *, upper: bool) -> Floats:
    """The lowest path above `x_mm` (n_points, n_rows), or the highest below, that goes at most `way_mm` between points."""
    sign = 1.0 if upper else -1.0
    path = sign * x_mm
    for i in range(1, len(path)):
        path[i] = np.maximum(path[i], path[i - 1] - way_mm)
    for i in range(len(path) - 2, -1, -1):
        path[i] = np.maximum(path[i], path[i + 1] - way_mm)
    return sign * path


def _ramps(x_mm: Floats, field: ArcField) -> tuple[Floats, Floats, Floats]:
    """Mean part of each beamlet to the left of tips that move from `x_mm`[k] to `x_mm`[k + 1], (n_intervals, n_rows,
    n_columns), and its derivatives by where they begin and end, per mm."""
    edges, width = field.x_edges_mm, float(field.x_edges_mm[1] - field.x_edges_mm[0])
    start, end = x_mm[:-1], x_mm[1:]
    still = np.abs(end - start) < LEAST_SWEEP_MM
    middle = (start + end) / 2
    a = np.where(still, middle - LEAST_SWEEP_MM / 2, start)[..., None]
    b = np.where(still, middle + LEAST_SWEEP_MM / 2, end)[..., None]
    u, v = (a - edges[:-1]) / width, (b - edges[:-1]) / width
    f_a, f_b = np.clip(u, 0.0, 1.0), np.clip(v, 0.0, 1.0)
    # The integral of a clipped ramp: u²/2 on it, u - 1/2 beyond.
    area_a, area_b = f_a * (f_a / 2) + np.maximum(u - 1.0, 0.0), f_b * (f_b / 2) + np.maximum(v - 1.0, 0.0)
    mean = (area_b - area_a) / (v - u)
    by_a, by_b = (mean - f_a) / (b - a), (f_b - mean) / (b - a)
    both = (by_a + by_b) / 2
    moves = ~still[..., None]
    return mean, np.where(moves, by_a, both), np.where(moves, by_b, both)
