"""Where arcs begin: apertures in motion that follow an ideal fluence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from rtplan.domain.influence import Beamlets
from rtplan.domain.machine import Machine
from rtplan.steps.arc_apertures import Arcs
from rtplan.steps.arc_tips import ArcField, Motion, legal_tips, motion_of, opened

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEARLY_HIGHEST = 0.95  # quantile of a beam's fluence that counts as its height
SIDE = 0.3  # of that height, by which the field's end counts more, to every second arc at the other end


def arcs_following(weights_mu: Floats, fields: Sequence[ArcField], beamlets: Beamlets, machine: Machine) -> Arcs:
    """Arcs whose apertures follow a fluence, (n_beamlets,) MU per fraction of all beamlets, made legal.

    The intervals that a beam stands for open what lies above equal steps of its fluence: together they are the fluence in
    as many steps. From beam to beam the steps go up and down in turn, so that leaves need not jump. Of all paths of a leaf
    pair whose tips go no further than leaves can the best is found by dynamic programming. Every second arc
    prefers the humps on the other side of what is to be spared in between: no pair can open both.
    """
    tips, mus = [], []
    for number, field in enumerate(fields):
        wanted, motion = np.maximum(field.cells(weights_mu), 0.0), motion_of(field, machine)
        height, step = _steps(wanted, field)
        middle = (field.x_edges_mm[:-1] + field.x_edges_mm[1:]) / 2
        side = SIDE * middle / np.abs(middle).max() * (1.0 if number % 2 else -1.0)
        worth = np.where(wanted > 0.0, wanted * (1.0 + side), 0.0) - (step * height)[:, None, None]
        left, right = _best_paths(worth, field, motion)
        a, b = _at_points(field.x_edges_mm[left]), _at_points(field.x_edges_mm[right])
        tips.append(opened(legal_tips(a, b, motion), field, motion))
        mus.append(height / field.per_beam)
    return Arcs(tuple(fields), beamlets, machine, tuple(tips), tuple(mus))


def _steps(wanted: Floats, field: ArcField) -> tuple[Floats, Floats]:
    """For each interval its beam's height of fluence in MU, and above what part of it the interval opens."""
    height = np.array([float(np.quantile(w[w > 0.0], NEARLY_HIGHEST)) if (w > 0.0).any() else 0.0 for w in wanted])
    up = (np.arange(field.per_beam) + 0.5) / field.per_beam
    return height, np.concatenate([up if i % 2 else up[::-1] for i in range(len(wanted) // field.per_beam)])


def _best_paths(worth: Floats, field: ArcField, motion: Motion) -> tuple[Ints, Ints]:
    """For each interval and row the edges between which opening is worth most along the whole arc, (n_intervals, n_rows)."""
    edges = field.x_edges_mm
    reach = max(1, int(motion.way_mm / (edges[1] - edges[0])))
    ok1 = (edges >= motion.x1_mm[0] - 1e-6) & (edges <= motion.x1_mm[1] + 1e-6)
    ok2 = (edges >= motion.x2_mm[0] - 1e-6) & (edges <= motion.x2_mm[1] + 1e-6)
    index = np.arange(len(edges))
    allowed = ok1[:, None] & ok2[None, :] & (index[:, None] <= index[None, :])
    sums = np.concatenate([np.zeros((*worth.shape[:2], 1)), np.cumsum(worth, axis=2)], axis=2)
    values = np.where(allowed, sums[:, :, None, :] - sums[:, :, :, None], -np.inf)
    for k in range(1, len(values)):
        values[k] += maximum_filter(values[k - 1], size=(1, 2 * reach + 1, 2 * reach + 1), mode="constant", cval=-np.inf)
    n, rows = worth.shape[:2]
    left, right = np.zeros((n, rows), dtype=np.int64), np.zeros((n, rows), dtype=np.int64)
    at = np.ones((rows, len(edges), len(edges)), dtype=bool)
    for k in range(n - 1, -1, -1):
        pick = np.where(at, values[k], -np.inf).reshape(rows, -1).argmax(axis=1)
        left[k], right[k] = np.unravel_index(pick, (len(edges), len(edges)))
        near1 = np.abs(index[None, :] - left[k][:, None]) <= reach
        near2 = np.abs(index[None, :] - right[k][:, None]) <= reach
        at = near1[:, :, None] & near2[:, None, :]
    return left, right


def _at_points(tips: Floats) -> Floats:
    """Tips at control points (n + 1, n_rows) from those of intervals: the means of neighbours."""
    return np.concatenate([tips[:1], (tips[:-1] + tips[1:]) / 2, tips[-1:]])
