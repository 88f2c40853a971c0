"""Leaf tips of one beam's segments as numbers that move freely: what they open, what moving them changes, what is legal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import Machine
from rtplan.domain.openings import POSITION_TOLERANCE_MM
from rtplan.steps.apertures import BeamletField, Shape

Floats = NDArray[np.float64]

CLOSED_MM = 1.0  # a pair that is open by less, or by no more than the smallest gap, is closed in the end
AREA_MARGIN = 1.02  # over the machine's smallest area


@dataclass(frozen=True, slots=True, eq=False)
class Tips:
    """Tips (n_segments, n_rows) mm of both banks, x1 <= x2, between `low_mm` and `high_mm` (2, n_segments, n_rows).

    Photons see each tip of an open pair `back_mm` further out; leaves let `transmission` through. Pairs open by less than
    `closed_mm` are closed in the end: no accelerator gives such a slit as planned.
    """

    x1_mm: Floats
    x2_mm: Floats
    low_mm: Floats
    high_mm: Floats
    back_mm: float
    transmission: float
    closed_mm: float

    def open_share(self, field: BeamletField) -> Floats:
        """Part of each beamlet between the tips, (n_segments, n_rows, n_columns)."""
        edges = field.x_edges_mm
        back = np.where(self.x2_mm > self.x1_mm, self.back_mm, 0.0)
        low, high = (self.x1_mm - back)[..., None], (self.x2_mm + back)[..., None]
        width = edges[1] - edges[0]
        return np.asarray(np.clip((np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])) / width, 0.0, 1.0))

    def gradient(self, field: BeamletField, cells: Floats) -> tuple[Floats, Floats]:
        """Change of Σ cells · open_share by each tip, per mm, where `cells` is (n_rows, n_columns)."""
        edges, last = field.x_edges_mm, len(field.x_edges_mm) - 2
        width = edges[1] - edges[0]
        row = np.arange(len(cells))[None, :]
        # On an edge the beamlet counts that opening further would uncover.
        at1 = np.clip(np.ceil((self.x1_mm - self.back_mm - edges[0]) / width - 1e-9).astype(np.int64) - 1, 0, last)
        at2 = np.clip(np.floor((self.x2_mm + self.back_mm - edges[0]) / width + 1e-9).astype(np.int64), 0, last)
        return -cells[row, at1] / width, cells[row, at2] / width

    def shapes(self, beam_index: int) -> list[Shape]:
        """The tips as shapes: pairs open by less than `closed_mm` are closed."""
        closed = self.x2_mm - self.x1_mm < self.closed_mm
        x1, x2 = np.where(closed, np.nan, self.x1_mm), np.where(closed, np.nan, self.x2_mm)
        return [Shape(beam_index, a, b) for a, b in zip(x1, x2, strict=True)]


def roughness(x1_mm: Floats, x2_mm: Floats, soft_mm: float) -> tuple[Floats, Floats, Floats]:
    """Σ of the steps between neighbouring tips beyond `soft_mm`, (n,) mm for tips (n, n_rows), and its gradients by them.

    Steps count as sqrt(step² + soft²) - soft: an even edge costs nothing, a ragged one its length.
    """
    total, gradients = np.zeros(len(x1_mm)), []
    for tip in (x1_mm, x2_mm):
        step = np.diff(tip, axis=1)
        length = np.sqrt(step**2 + soft_mm**2)
        total += (length - soft_mm).sum(axis=1)
        slope = step / length
        gradient = np.zeros_like(tip)
        gradient[:, 1:] += slope
        gradient[:, :-1] -= slope
        gradients.append(gradient)
    return total, gradients[0], gradients[1]


def first_tips(shapes: Sequence[Shape], field: BeamletField, machine: Machine) -> Tips:
    """Tips of one beam's shapes. Closed pairs stand in the middle of the nearest open one, or as near as their own beamlets
    are, from where they can open; those that no place would let open are held there."""
    x1, x2 = np.stack([s.x1_mm for s in shapes]), np.stack([s.x2_mm for s in shapes])
    is_open = ~np.isnan(x1)
    low, high = _limits(x1, x2, field, machine)
    lowest, highest = low.max(axis=0), high.min(axis=0)
    stuck = ~is_open & (lowest > highest)
    for i, opened in enumerate(is_open):
        rows, closed = np.flatnonzero(opened), np.flatnonzero(~opened)
        nearest = rows[np.abs(closed[:, None] - rows[None, :]).argmin(axis=1)]
        middle = (x1[i, nearest] + x2[i, nearest]) / 2
        place = np.clip(middle, lowest[i, closed], highest[i, closed])
        x1[i, closed] = x2[i, closed] = np.where(stuck[i, closed], middle, place)
    low, high = np.where(stuck, x1, low), np.where(stuck, x1, high)
    mlc = machine.mlc
    closed_mm = max(CLOSED_MM, mlc.min_gap_mm + 2 * POSITION_TOLERANCE_MM)
    x1, x2 = np.clip((x1, x2), low, high)
    return Tips(x1, x2, low, high, mlc.dosimetric_leaf_gap_mm / 2, mlc.mean_transmission, closed_mm)


def legal_tips(old: Tips, x1_mm: Floats, x2_mm: Floats, field: BeamletField, machine: Machine) -> Tips:
    """The nearest tips to those wished for that the machine can set; segments that would be too small stay as they were."""
    x1, x2 = np.clip((x1_mm, x2_mm), old.low_mm, old.high_mm)
    middle, crossed = np.clip((x1 + x2) / 2, old.low_mm.max(axis=0), old.high_mm.min(axis=0)), x1 > x2
    x1, x2 = np.where(crossed, middle, x1), np.where(crossed, middle, x2)
    # Both leaf ends see a pair as soon as it opens: a closed one opens by a whole slit or not at all, else no step is short
    # enough for a line search.
    slit = (old.x1_mm == old.x2_mm) & (x2 - x1 < old.closed_mm)
    x1, x2 = np.where(slit, old.x1_mm, x1), np.where(slit, old.x2_mm, x2)
    if not machine.mlc.interdigitation:
        x1, x2 = _joined(old, x1, x2, machine.mlc.min_gap_mm)
    small = _area_cm2(x1, x2, old.closed_mm, field) < AREA_MARGIN * machine.min_segment_area_cm2
    x1[small], x2[small] = old.x1_mm[small], old.x2_mm[small]
    return replace(old, x1_mm=x1, x2_mm=x2)


def _limits(x1: Floats, x2: Floats, field: BeamletField, machine: Machine) -> tuple[Floats, Floats]:
    """How far the tips of each bank may go, (2, n_segments, n_rows) mm: the beamlets of their row, travel, overtravel, and a
    window of one span for the bank. The windows hold the open tips and lie as near to the segment's middle as that allows,
    so that closed pairs keep a place in both."""
    mlc, edges = machine.mlc, field.x_edges_mm
    present = np.zeros((len(field.row_height_mm), len(edges) - 1), dtype=bool)
    present[field.row, field.column] = True
    first = np.where(present.any(axis=1), edges[present.argmax(axis=1)], np.inf)
    last = np.where(present.any(axis=1), edges[present.shape[1] - present[:, ::-1].argmax(axis=1)], -np.inf)
    centred = (np.nanmin(x1, axis=1) + np.nanmax(x2, axis=1) - mlc.max_span_mm) / 2
    window = [np.clip(centred, np.nanmax(x, axis=1) - mlc.max_span_mm, np.nanmin(x, axis=1))[:, None] for x in (x1, x2)]
    furthest = (-mlc.max_position_mm, mlc.max_overtravel_mm), (-mlc.max_overtravel_mm, mlc.max_position_mm)
    low = [np.maximum(np.maximum(first, out[0]), w) for out, w in zip(furthest, window, strict=True)]
    high = [np.minimum(np.minimum(last, out[1]), w + mlc.max_span_mm) for out, w in zip(furthest, window, strict=True)]
    return np.stack(low), np.stack(high)


def _joined(old: Tips, x1: Floats, x2: Floats, gap_mm: float) -> tuple[Floats, Floats]:
    """Rows whose tips would pass the opposite tip of a neighbour go back to where they were, until none does."""
    for _ in range(x1.shape[1]):
        passes = np.zeros(x1.shape, dtype=bool)
        bad = (x1[:, 1:] > x2[:, :-1] - gap_mm) | (x1[:, :-1] > x2[:, 1:] - gap_mm)
        passes[:, 1:] |= bad
        passes[:, :-1] |= bad
        moved = passes & ((x1 != old.x1_mm) | (x2 != old.x2_mm))
        if not moved.any():
            break
        x1, x2 = np.where(moved, old.x1_mm, x1), np.where(moved, old.x2_mm, x2)
    return x1, x2


def _area_cm2(x1: Floats, x2: Floats, closed_mm: float, field: BeamletField) -> Floats:
    width = np.where(x2 - x1 < closed_mm, 0.0, x2 - x1)
    return np.asarray((width * field.row_height_mm).sum(axis=1) / 100.0)
