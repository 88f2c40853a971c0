"""From a shape on the beamlet grid to every leaf and jaw: where closed pairs stand, and where the jaws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.machine import Machine, Mlc
from rtplan.domain.plan import Aperture
from rtplan.steps.apertures import BeamletField, Shape, best_shape

Floats = NDArray[np.float64]

UNDER_JAW_MM = 5.0  # how deep under a jaw the gap of a closed pair goes, out of the jaw's penumbra


def jaw_box(shapes: Sequence[Shape], field: BeamletField, machine: Machine) -> tuple[float, float, float, float]:
    """Jaws X1, X2, Y1, Y2 around the openings of `shapes`, mm, as far in as the jaws can come."""
    is_open = np.array([s.is_open for s in shapes])
    rows = np.flatnonzero(is_open.any(axis=0)) + field.first_pair
    bounds, jaws = machine.mlc.leaf_boundaries_mm, machine.jaws
    return (
        min(min(float(np.nanmin(s.x1_mm)) for s in shapes), jaws.x1_range_mm[1]),
        max(max(float(np.nanmax(s.x2_mm)) for s in shapes), jaws.x2_range_mm[0]),
        min(float(bounds[rows[0]]), jaws.y1_range_mm[1]),
        max(float(bounds[rows[-1] + 1]), jaws.y2_range_mm[0]),
    )


def aperture_of(
    shape: Shape, field: BeamletField, jaws_mm: tuple[float, float, float, float], machine: Machine
) -> Aperture | None:
    """The aperture of a shape between given jaws; None when the closed pairs find no legal place."""
    x1, x2 = np.full(machine.mlc.n_pairs, np.nan), np.full(machine.mlc.n_pairs, np.nan)
    rows = np.flatnonzero(shape.is_open)
    pairs = rows + field.first_pair
    x1[pairs], x2[pairs] = shape.x1_mm[rows], shape.x2_mm[rows]
    return with_closed_pairs(x1, x2, jaws_mm, machine)


def with_closed_pairs(
    x1_mm: Floats, x2_mm: Floats, jaws_mm: tuple[float, float, float, float], machine: Machine
) -> Aperture | None:
    """The aperture of open pairs at `x1_mm`, `x2_mm` (n_pairs,), closed where these are NaN; None when the closed pairs find
    no legal place.

    Closed pairs stand at the smallest gap. Where leaves may interdigitate, the gap goes under an X jaw, all at one place; if
    span or travel forbid that, beside the nearest opening. Where they may not, it stays at the edge of the nearest opening
    (the Y jaws then have to cover it).
    """
    mlc = machine.mlc
    x1, x2 = x1_mm.copy(), x2_mm.copy()
    pairs, closed = np.flatnonzero(~np.isnan(x1)), np.flatnonzero(np.isnan(x1))
    low, high = _reach(x1[pairs], x2[pairs], mlc)
    if low > high:
        return None
    nearest = pairs[np.abs(closed[:, None] - pairs[None, :]).argmin(axis=1)]
    if mlc.interdigitation:
        place = _under_a_jaw(jaws_mm, (low, high), mlc)
        at = np.clip(x2[nearest], low, high) if place is None else np.full(len(closed), place)
    else:
        at = np.clip(np.clip(x2[nearest] - mlc.min_gap_mm, low, high), x1[nearest], x2[nearest] - mlc.min_gap_mm)
        if np.any((at < low) | (at > high)):
            return None
    x1[closed], x2[closed] = at, at + mlc.min_gap_mm
    return Aperture(x1, x2, *jaws_mm)


def placed_shape(benefit: Floats, field: BeamletField, machine: Machine) -> Shape | None:
    """The shape that opens the greatest sum of `benefit` (n,), if its closed pairs have a legal place."""
    shape = best_shape(benefit, field, machine)
    if shape is None or aperture_of(shape, field, jaw_box([shape], field, machine), machine) is None:
        return None
    return shape


def _reach(x1: Floats, x2: Floats, mlc: Mlc) -> tuple[float, float]:
    """Lowest and highest X1 of a closed pair beside open ones at `x1`, `x2`: travel, overtravel, and both banks' spans."""
    gap, span = mlc.min_gap_mm, mlc.max_span_mm
    low = max(-mlc.max_position_mm, -mlc.max_overtravel_mm - gap, float(x1.max()) - span, float(x2.max()) - span - gap)
    high = min(mlc.max_overtravel_mm, mlc.max_position_mm - gap, float(x1.min()) + span, float(x2.min()) + span - gap)
    return low, high


def _under_a_jaw(jaws_mm: tuple[float, float, float, float], reach_mm: tuple[float, float], mlc: Mlc) -> float | None:
    """X1 of the closed pairs so that their gap lies under an X jaw, well under it if possible; None if out of reach.

    The gap is what the photons see: half the dosimetric leaf gap wider on either side.
    """
    x1, x2 = jaws_mm[:2]
    end = mlc.dosimetric_leaf_gap_mm / 2
    for place in (x2 + UNDER_JAW_MM, x1 - UNDER_JAW_MM - mlc.min_gap_mm, x2 + end, x1 - end - mlc.min_gap_mm):
        if reach_mm[0] <= place <= reach_mm[1]:
            return place
    return None
