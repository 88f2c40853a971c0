"""Apertures on the beamlet grid of one beam: which ones a collimator can form, and which of them is worth most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import Machine, Mlc
from rtplan.domain.openings import POSITION_TOLERANCE_MM
from rtplan.errors import PlanningFailed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class BeamletField:
    """The beamlets of one beam as cells of a grid: leaf pairs by columns along the leaves' travel.

    `beamlets` (n,) index the plan's beamlets; `row`, `column` (n,) say in which cell each lies; row 0 is leaf pair
    `first_pair`; `x_edges_mm` (n_columns + 1,). `openable` (n_rows, n_columns + 1, n_columns + 1) tells whether a pair may
    stand with its tips on two edges: only beamlets between them, and both tips within the leaves' travel.
    """

    beam_index: int
    beamlets: Ints
    row: Ints
    column: Ints
    first_pair: int
    x_edges_mm: Floats
    row_height_mm: Floats
    openable: Bools


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """An aperture on a beamlet field: tips per row in mm at the isocentre plane, (n_rows,) each; NaN for a closed pair."""

    beam_index: int
    x1_mm: Floats
    x2_mm: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "x1_mm", frozen(self.x1_mm, np.float64))
        object.__setattr__(self, "x2_mm", frozen(self.x2_mm, np.float64))

    @property
    def key(self) -> tuple[int, bytes, bytes]:
        """Equal for equal shapes."""
        return self.beam_index, self.x1_mm.tobytes(), self.x2_mm.tobytes()

    @property
    def is_open(self) -> Bools:
        """(n_rows,) which pairs are open."""
        return ~np.isnan(self.x1_mm)


def beamlet_field(beamlets: Beamlets, beam_index: int, machine: Machine) -> BeamletField | None:
    """Grid of one beam's beamlets; None when it has none. Raises PlanningFailed TARGET_TOO_WIDE beyond leaves or jaws."""
    mine = np.flatnonzero(beamlets.beam_index == beam_index)
    if not mine.size:
        return None
    column, edges = raster(beamlets, mine, machine)
    pair = beamlets.leaf_pair[mine].astype(np.int64)
    first, last = int(pair.min()), int(pair.max())
    bounds = machine.mlc.leaf_boundaries_mm
    present = np.zeros((last - first + 1, len(edges) - 1), dtype=bool)
    present[pair - first, column] = True
    return BeamletField(
        beam_index,
        mine.astype(np.int64),
        pair - first,
        column,
        first,
        edges,
        np.diff(bounds[first : last + 2]),
        _openable(present, edges, machine.mlc),
    )


def raster(beamlets: Beamlets, mine: Ints, machine: Machine) -> tuple[Ints, Floats]:
    """Columns (n,) of the beamlets `mine` along the leaves' travel, and the columns' edges in mm.

    Raises ValueError for beamlets off a regular grid, PlanningFailed TARGET_TOO_WIDE beyond leaves or jaws.
    """
    x1, x2, pair = beamlets.x1_mm[mine], beamlets.x2_mm[mine], beamlets.leaf_pair[mine]
    name = beamlets.beams[int(beamlets.beam_index[mine[0]])].name
    width = float(np.median(x2 - x1))
    column = np.rint((x1 - x1.min()) / width).astype(np.int64)
    edges = x1.min() + width * np.arange(int(column.max()) + 2)
    if not (np.allclose(edges[column], x1, atol=1e-6) and np.allclose(edges[column + 1], x2, atol=1e-6)):
        raise ValueError(f"beamlets of {name} do not lie on a regular grid along X")
    bounds = machine.mlc.leaf_boundaries_mm
    _refuse_too_wide(name, (edges[0], edges[-1], bounds[int(pair.min())], bounds[int(pair.max()) + 1]), machine)
    return column, edges


def best_shape(benefit: Floats, field: BeamletField, machine: Machine) -> Shape | None:
    """Deliverable aperture that opens the greatest sum of `benefit`, (n,) per beamlet; None if no sum is positive.

    Per leaf pair the best run of columns, over all pairs of tips (so for each row the exact optimum); with the bank's span
    by trying windows that the tips of each bank must share; where interdigitation is forbidden by dynamic programming over
    the rows. Openings below the machine's smallest area are tried again with wider openings per pair.
    """
    cells = np.zeros((len(field.row_height_mm), len(field.x_edges_mm) - 1))
    np.add.at(cells, (field.row, field.column), benefit)
    sums = np.concatenate([np.zeros((len(cells), 1)), np.cumsum(cells, axis=1)], axis=1)
    gain = np.where(field.openable, sums[:, None, :] - sums[:, :, None], -np.inf)
    columns = np.arange(len(field.x_edges_mm))
    for wider in range(4):
        at_least = smallest_opening(field, machine.mlc) + wider
        allowed = np.where(columns[None, :] - columns[:, None] >= at_least, gain, -np.inf)
        shape = _best_over_windows(allowed, field, machine.mlc)
        if shape is None or shape_area_cm2(shape, field) >= machine.min_segment_area_cm2:
            return shape
    return None


def shape_area_cm2(shape: Shape, field: BeamletField) -> float:
    """Open area at the isocentre plane."""
    return float(np.nansum((shape.x2_mm - shape.x1_mm) * field.row_height_mm)) / 100.0


def smallest_opening(field: BeamletField, mlc: Mlc) -> int:
    """Columns that an open pair has to span so that it is wider than a closed one."""
    width = float(field.x_edges_mm[1] - field.x_edges_mm[0])
    return max(1, math.ceil((mlc.min_gap_mm + 2 * POSITION_TOLERANCE_MM) / width))


def _best_over_windows(gain: Floats, field: BeamletField, mlc: Mlc) -> Shape | None:
    best, best_value = None, 0.0
    for left_ok, right_ok in _windows(field, mlc):
        allowed = np.where(left_ok[:, None] & right_ok[None, :], gain, -np.inf)
        left, right = _free_rows(allowed) if mlc.interdigitation else _joined_rows(allowed, smallest_opening(field, mlc))
        rows = np.flatnonzero(left >= 0)
        value = float(allowed[rows, left[rows], right[rows]].sum())
        if value > best_value:
            best, best_value = _in_mm(field, left, right), value
    return best


def _in_mm(field: BeamletField, left: Ints, right: Ints) -> Shape:
    """The shape whose tips stand on these column edges; -1 for a closed pair."""
    closed, edges = left < 0, field.x_edges_mm
    return Shape(field.beam_index, np.where(closed, np.nan, edges[left]), np.where(closed, np.nan, edges[right]))


def _windows(field: BeamletField, mlc: Mlc) -> list[tuple[Bools, Bools]]:
    """Edges that the tips of the banks may use together: all of them, or windows of one span at the left, middle and right
    of a field that is wider. Windows that leave no common place for closed pairs are not offered."""
    edges = field.x_edges_mm
    excess = float(edges[-1] - edges[0]) - mlc.max_span_mm
    if excess <= 0:
        return [(np.ones(len(edges), dtype=bool), np.ones(len(edges), dtype=bool))]
    starts = [float(edges[0]) + share * excess for share in (0.0, 0.5, 1.0)]
    found = []
    for a in starts:
        for b in starts:
            if max(a, b - mlc.min_gap_mm) <= min(a, b - mlc.min_gap_mm) + mlc.max_span_mm:
                found.append(tuple((edges >= s - 1e-6) & (edges <= s + mlc.max_span_mm + 1e-6) for s in (a, b)))
    return [(left, right) for left, right in found]


def _free_rows(gain: Floats) -> tuple[Ints, Ints]:
    """Best tips per row, each row for itself."""
    rows, n = gain.shape[0], gain.shape[1]
    flat = gain.reshape(rows, -1)
    pick = flat.argmax(axis=1)
    worth = flat[np.arange(rows), pick] > 0
    return np.where(worth, pick // n, -1), np.where(worth, pick % n, -1)


def _joined_rows(gain: Floats, overlap: int) -> tuple[Ints, Ints]:
    """Best tips of a connected run of rows in which neighbours overlap by at least `overlap` columns."""
    values = np.full_like(gain, -np.inf)
    for k in range(len(gain)):
        before = _best_neighbour(values[k - 1], overlap) if k else np.zeros_like(gain[0])
        values[k] = gain[k] + np.maximum(before, 0.0)
    left, right = np.full(len(gain), -1), np.full(len(gain), -1)
    row, a, b = (int(i) for i in np.unravel_index(int(values.argmax()), values.shape))
    if not values[row, a, b] > 0:
        return left, right
    while True:
        left[row], right[row] = a, b
        if row == 0 or not values[row, a, b] > gain[row, a, b]:
            return left, right
        row -= 1
        n = np.arange(gain.shape[1])
        joined = (n[:, None] <= b - overlap) & (n[None, :] >= a + overlap)
        a, b = (int(i) for i in np.unravel_index(int(np.where(joined, values[row], -np.inf).argmax()), joined.shape))


def _best_neighbour(values: Floats, overlap: int) -> Floats:
    """For tips (l, r) the greatest value among neighbours (l', r') with l' <= r - overlap and r' >= l + overlap."""
    reach = np.maximum.accumulate(values, axis=0)
    reach = np.maximum.accumulate(reach[:, ::-1], axis=1)[:, ::-1]
    best = np.full_like(values, -np.inf)
    best[: len(best) - overlap, overlap:] = reach[: len(best) - overlap, overlap:].T
    return best


def _openable(present: Bools, edges: Floats, mlc: Mlc) -> Bools:
    count = np.concatenate([np.zeros((len(present), 1), dtype=np.int64), np.cumsum(present, axis=1)], axis=1)
    columns = np.arange(len(edges))
    wide = columns[None, :] - columns[:, None]
    left_ok = (edges >= -mlc.max_position_mm) & (edges <= mlc.max_overtravel_mm)
    right_ok = (edges >= -mlc.max_overtravel_mm) & (edges <= mlc.max_position_mm)
    filled = count[:, None, :] - count[:, :, None] == wide
    return np.asarray(filled & (wide >= 1) & left_ok[:, None] & right_ok[None, :])


def _refuse_too_wide(beam: str, box_mm: tuple[float, float, float, float], machine: Machine) -> None:
    jaws, mlc = machine.jaws, machine.mlc
    low_x = max(jaws.x1_range_mm[0], -mlc.max_position_mm)
    high_x = min(jaws.x2_range_mm[1], mlc.max_position_mm)
    low_y, high_y = jaws.y1_range_mm[0], jaws.y2_range_mm[1]
    x1, x2, y1, y2 = (float(v) for v in box_mm)
    if x1 < low_x - 1e-6 or x2 > high_x + 1e-6 or y1 < low_y - 1e-6 or y2 > high_y + 1e-6:
        raise PlanningFailed(
            "TARGET_TOO_WIDE",
            f"{beam}: the target needs X {x1:g} to {x2:g} mm, Y {y1:g} to {y2:g} mm",
            f"X {low_x:g} to {high_x:g} mm, Y {low_y:g} to {high_y:g} mm",
            "move the isocentre, turn the collimator, or use two isocentres",
        )
