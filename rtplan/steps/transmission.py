"""How much of the open fluence gets through leaves and jaws: sharp edges, exact averages over cells.

Leaves: rounded ends as a dosimetric leaf gap, tongue and groove as half the height where neighbours overlap, leakage within
and between leaves. `docs/machine-model.md` says why.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import Machine, Mlc
from rtplan.domain.plan import Aperture

Floats = NDArray[np.float64]
Motion: TypeAlias = tuple[Floats, Floats]  # where edges are at the start and at the end, mm


def strip_boundaries(mlc: Mlc) -> Floats:
    """Edges along Y of the strips that `strip_transmission` speaks of, ascending mm.

    Every leaf pair's own strip and, between neighbours, the strip where they overlap: 2 n_pairs - 1 strips; the leaves' own
    n_pairs strips when there is no tongue.
    """
    bounds = mlc.leaf_boundaries_mm
    if mlc.tongue_mm == 0.0:
        return bounds
    inner = (bounds[1:-1, None] + np.array([-0.5, 0.5]) * mlc.tongue_mm).ravel()
    return np.concatenate([bounds[:1], inner, bounds[-1:]])


def strip_transmission(x_edges_mm: Floats, start: Aperture, end: Aperture, machine: Machine) -> Floats:
    """Transmission of leaves and X jaws along each strip of `strip_boundaries` as the aperture goes from `start` to `end`.

    Averages over each cell [x_i, x_i+1] and over the motion of m(x, t) q(x, t): q is 1 between the X jaws and the jaws'
    transmission elsewhere. Between the tips m is 1, elsewhere the leaves' transmission T; rounded ends open each tip by
    half the dosimetric leaf gap. In an overlap m is 1 where both neighbours are open, √T (half the height) where one is,
    the interleaf transmission where none is. Edges move linearly.
    Shapes: (n_cells + 1,) ascending mm to (n_strips, n_cells). Exact as long as `tips_pass` is false.
    """
    mlc, jaw = machine.mlc, machine.jaws.transmission
    jaws = _jaw_x(start, end)
    openings = _openings(start, end, mlc.dosimetric_leaf_gap_mm)
    free, lit = _open_shares(x_edges_mm, openings, jaws)
    between_jaws = _mean_cover(x_edges_mm, *jaws)
    leaf = mlc.transmission
    # (leaf + (1 - leaf) o) (jaw + (1 - jaw) q), multiplied out, because o and q are 0 or 1 at each point.
    own = leaf * jaw + (1 - leaf) * jaw * free + leaf * (1 - jaw) * between_jaws + (1 - leaf) * (1 - jaw) * lit
    if mlc.tongue_mm == 0.0 or mlc.n_pairs < 2:
        return own
    free_both, lit_both = _open_shares(x_edges_mm, _common(openings), jaws)
    none, one = mlc.interleaf_transmission, math.sqrt(leaf)
    both = 1 - 2 * one + none
    # none + (one - none) (o1 + o2) + both o1 o2: none, one or both of the neighbours open.
    dark = none + (one - none) * (free[:-1] + free[1:]) + both * free_both
    bright = none * between_jaws + (one - none) * (lit[:-1] + lit[1:]) + both * lit_both
    rows = np.empty((2 * mlc.n_pairs - 1, own.shape[1]))
    rows[::2], rows[1::2] = own, jaw * dark + (1 - jaw) * bright
    return rows


def tips_pass(start: Aperture, end: Aperture, machine: Machine) -> bool:
    """Whether, on the way, a leaf tip passes an edge of an X jaw or, where neighbours overlap, the neighbour's tip."""
    low, high = _openings(start, end, machine.mlc.dosimetric_leaf_gap_mm)
    jaw = _jaw_x(start, end)
    passes = any(_cross(tip, edge) for tip in (low, high) for edge in jaw)
    if passes or machine.mlc.tongue_mm == 0.0:
        return passes
    return any(_cross((tip[0][:-1], tip[1][:-1]), (tip[0][1:], tip[1][1:])) for tip in (low, high))


def jaw_x_transmission(x_edges_mm: Floats, start: Aperture, end: Aperture, machine: Machine) -> Floats:
    """Transmission of the X jaws alone, (n_cells,), where there are no leaves."""
    jaw = machine.jaws.transmission
    transmission: Floats = (jaw + (1 - jaw) * _mean_cover(x_edges_mm, *_jaw_x(start, end)))[0]
    return transmission


def strip_weights(
    y1_mm: Floats, y2_mm: Floats, boundaries_mm: Floats, y_jaws_mm: tuple[float, float], jaw_transmission: float
) -> Floats:
    """Share of each strip between `boundaries_mm` in the interval [y1, y2], weighted by the Y jaws' transmission.

    Shapes: (n,), (n,), (n_strips + 1,) to (n, n_strips). Rows sum to the mean transmission of the Y jaws.
    """
    low, high = boundaries_mm[:-1], boundaries_mm[1:]
    inside = _overlap(y1_mm[:, None], y2_mm[:, None], low, high)
    lit = _overlap(y1_mm[:, None], y2_mm[:, None], np.maximum(low, y_jaws_mm[0]), np.minimum(high, y_jaws_mm[1]))
    shares: Floats = (jaw_transmission * inside + (1 - jaw_transmission) * lit) / (y2_mm - y1_mm)[:, None]
    return shares


def interpolated(start: Aperture, end: Aperture, fraction: float) -> Aperture:
    """Aperture at a fraction of a linear motion."""
    if fraction == 0.0:
        return start
    if fraction == 1.0:
        return end

    def mix(a: Floats, b: Floats) -> Floats:
        return a + (b - a) * fraction

    old = np.array([start.jaw_x1_mm, start.jaw_x2_mm, start.jaw_y1_mm, start.jaw_y2_mm])
    new = np.array([end.jaw_x1_mm, end.jaw_x2_mm, end.jaw_y1_mm, end.jaw_y2_mm])
    jaws = [float(v) for v in mix(old, new)]
    return Aperture(mix(start.leaf_x1_mm, end.leaf_x1_mm), mix(start.leaf_x2_mm, end.leaf_x2_mm), *jaws)


def _one(value: float) -> Floats:
    return np.array([value], dtype=np.float64)


def _jaw_x(start: Aperture, end: Aperture) -> tuple[Motion, Motion]:
    """Both X jaws."""
    return (_one(start.jaw_x1_mm), _one(end.jaw_x1_mm)), (_one(start.jaw_x2_mm), _one(end.jaw_x2_mm))


def _openings(start: Aperture, end: Aperture, gap_mm: float) -> tuple[Motion, Motion]:
    """Both tips of each pair as the photons see them: set back by half the dosimetric leaf gap."""
    back = gap_mm / 2
    return (start.leaf_x1_mm - back, end.leaf_x1_mm - back), (start.leaf_x2_mm + back, end.leaf_x2_mm + back)


def _common(openings: tuple[Motion, Motion]) -> tuple[Motion, Motion]:
    """What the openings of neighbours have in common, never less than nothing."""
    (low0, low1), (high0, high1) = openings
    low = np.maximum(low0[:-1], low0[1:]), np.maximum(low1[:-1], low1[1:])
    high = np.minimum(high0[:-1], high0[1:]), np.minimum(high1[:-1], high1[1:])
    return low, (np.maximum(low[0], high[0]), np.maximum(low[1], high[1]))


def _open_shares(edges_mm: Floats, openings: tuple[Motion, Motion], jaws: tuple[Motion, Motion]) -> tuple[Floats, Floats]:
    """Share of each cell that is open, and that is open between the jaws as well."""
    (low0, low1), (high0, high1) = openings
    low = np.maximum(low0, jaws[0][0]), np.maximum(low1, jaws[0][1])
    high = np.minimum(high0, jaws[1][0]), np.minimum(high1, jaws[1][1])
    lit = _mean_cover(edges_mm, low, (np.maximum(low[0], high[0]), np.maximum(low[1], high[1])))
    return _mean_cover(edges_mm, *openings), lit


def _cross(a: Motion, b: Motion) -> bool:
    """Whether two edges change places on the way."""
    return bool(np.any((a[0] - b[0]) * (a[1] - b[1]) < 0))


def _overlap(a1: Floats, a2: Floats, b1: Floats, b2: Floats) -> Floats:
    length: Floats = np.maximum(np.minimum(a2, b2) - np.maximum(a1, b1), 0.0)
    return length


def _mean_cover(edges_mm: Floats, low: Motion, high: Motion) -> Floats:
    """Mean over a linear motion of the share of each cell that lies in [low(t), high(t)]; low <= high throughout."""
    below = _mean_reach(edges_mm, *low) - _mean_reach(edges_mm, *high)
    share: Floats = np.diff(below, axis=1) / np.diff(edges_mm)
    return share


def _mean_reach(edges_mm: Floats, start: Floats, end: Floats) -> Floats:
    """∫₀¹ max(e - p(t), 0) dt for p moving linearly from start to end: (n_rows,) to (n_rows, n_edges)."""
    at_start = np.maximum(edges_mm - start[:, None], 0.0)
    at_end = np.maximum(edges_mm - end[:, None], 0.0)
    step = np.maximum(np.abs(end - start), 1e-12)[:, None]
    passed_once = np.maximum(at_start, at_end) ** 2 / (2 * step)
    reach: Floats = np.where((at_start > 0) & (at_end > 0) | (start == end)[:, None], (at_start + at_end) / 2, passed_once)
    return reach
