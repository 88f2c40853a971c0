"""How much of the open fluence gets through leaves and jaws: sharp edges, exact averages over cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import Machine
from rtplan.domain.plan import Aperture

Floats = NDArray[np.float64]


def leaf_row_transmission(x_edges_mm: Floats, start: Aperture, end: Aperture, machine: Machine) -> Floats:
    """Transmission of leaves and X jaws along each leaf pair's strip while the aperture moves from `start` to `end`.

    Averages over each cell [x_i, x_i+1] and over the motion of m(x, t) q(x, t), where m is 1 between the leaf tips and the
    leaves' transmission elsewhere, q is 1 between the X jaws and the jaws' transmission elsewhere; edges move linearly.
    Shapes: (n_cells + 1,) ascending mm to (n_pairs, n_cells). Exact as long as no leaf tip crosses an edge of a jaw.
    """
    leaf, jaw = machine.mlc.transmission, machine.jaws.transmission
    tips = [(start.leaf_x1_mm, end.leaf_x1_mm), (start.leaf_x2_mm, end.leaf_x2_mm)]
    jaws = [(_one(start.jaw_x1_mm), _one(end.jaw_x1_mm)), (_one(start.jaw_x2_mm), _one(end.jaw_x2_mm))]
    low = (np.maximum(tips[0][0], jaws[0][0]), np.maximum(tips[0][1], jaws[0][1]))
    high = (np.minimum(tips[1][0], jaws[1][0]), np.minimum(tips[1][1], jaws[1][1]))
    high = (np.maximum(low[0], high[0]), np.maximum(low[1], high[1]))
    between_tips = _mean_cover(x_edges_mm, tips[0], tips[1])
    between_jaws = _mean_cover(x_edges_mm, jaws[0], jaws[1])
    both = _mean_cover(x_edges_mm, low, high)
    # (leaf + (1 - leaf) o) (jaw + (1 - jaw) q), multiplied out, because o and q are 0 or 1 at each point.
    return leaf * jaw + (1 - leaf) * jaw * between_tips + leaf * (1 - jaw) * between_jaws + (1 - leaf) * (1 - jaw) * both


def jaw_x_transmission(x_edges_mm: Floats, start: Aperture, end: Aperture, machine: Machine) -> Floats:
    """Transmission of the X jaws alone, (n_cells,), where there are no leaves."""
    jaw = machine.jaws.transmission
    low, high = (_one(start.jaw_x1_mm), _one(end.jaw_x1_mm)), (_one(start.jaw_x2_mm), _one(end.jaw_x2_mm))
    transmission: Floats = (jaw + (1 - jaw) * _mean_cover(x_edges_mm, low, high))[0]
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


def _overlap(a1: Floats, a2: Floats, b1: Floats, b2: Floats) -> Floats:
    length: Floats = np.maximum(np.minimum(a2, b2) - np.maximum(a1, b1), 0.0)
    return length


def _mean_cover(edges_mm: Floats, low: tuple[Floats, Floats], high: tuple[Floats, Floats]) -> Floats:
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
