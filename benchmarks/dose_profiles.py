"""Profiles across the beam against Monte Carlo: in the field, outside it, and where its edges lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.dose_comparison import View

Floats = NDArray[np.float64]
LAYER_STEP_MM = 40.0
N_LAYERS = 5
RUN_MM = 10.0
EDGE_BIN_MM = 3.0
BEYOND_FIELD_MM = 10.0
MIN_VOXELS = 20


def profile_figures(seen: View) -> dict[str, float]:
    """Along beam X and Y through the field's middle, in layers 40 mm thick every 40 mm from 20 mm below the entrance.

    Differences of runs of 1 cm in % of the maximum, within 0.8 of the half side and from 10 mm outside the edge on; how much
    further out the engine's 50 % point lies, mm on the isocentre plane. NaN where a field has no such place.
    """
    lit = seen.field.scored & (seen.field.dose > 0.2 * seen.top)
    entry = seen.along[lit & (np.abs(seen.x) < seen.half_mm[0]) & (np.abs(seen.y) < seen.half_mm[1])].min()
    inside: list[Floats] = []
    outside: list[Floats] = []
    shifts: list[float] = []
    for across, other, half, half_other in (
        (seen.x, seen.y, seen.half_mm[0], seen.half_mm[1]),
        (seen.y, seen.x, seen.half_mm[1], seen.half_mm[0]),
    ):
        for layer in range(1, N_LAYERS + 1):
            at_depth = np.abs(seen.along - entry - LAYER_STEP_MM * layer) < LAYER_STEP_MM / 2
            pick = seen.field.scored & (np.abs(other) < 0.6 * half_other) & at_depth
            inside += _differences(seen, across, pick & (np.abs(across) < 0.8 * half))
            outside += _differences(seen, across, pick & (np.abs(across) > half + BEYOND_FIELD_MM))
            edges = [_edge_shift(seen, side * across, pick, half) for side in (-1.0, 1.0)]
            shifts += [e for e in edges if e is not None]
    return {
        "in_field_mean": _mean(inside),
        "in_field_max": _largest(inside),
        "out_of_field_mean": _mean(outside),
        "out_of_field_max": _largest(outside),
        "penumbra_shift_mm": float(np.mean(shifts)) if shifts else float("nan"),
        "penumbra_shift_max_mm": float(np.abs(shifts).max()) if shifts else float("nan"),
    }


def _mean(runs: list[Floats]) -> float:
    return float(np.mean(np.concatenate(runs))) if runs else float("nan")


def _largest(runs: list[Floats]) -> float:
    return float(np.abs(np.concatenate(runs)).max()) if runs else float("nan")


def _differences(seen: View, across: Floats, pick: NDArray[np.bool_]) -> list[Floats]:
    """Engine less Monte Carlo in runs of 1 cm, % of the maximum; no runs where there are hardly any voxels."""
    if pick.sum() < MIN_VOXELS:
        return []
    _, dose, ours = _means(seen, across, pick, RUN_MM)
    return [100 * (ours - dose) / seen.top]


def _means(seen: View, across: Floats, pick: NDArray[np.bool_], width_mm: float) -> tuple[Floats, Floats, Floats]:
    """Volume-weighted means by bins across the beam: place of the bin's voxels, Monte Carlo, engine."""
    bins, inverse = np.unique(np.floor(across[pick] / width_mm), return_inverse=True)
    total = np.bincount(inverse, seen.volume[pick], minlength=len(bins))
    place, dose, ours = (
        np.bincount(inverse, (seen.volume * values)[pick], minlength=len(bins)) / total
        for values in (across, seen.field.dose, seen.ours)
    )
    return place, dose, ours


def _edge_shift(seen: View, across: Floats, pick: NDArray[np.bool_], half_mm: float) -> float | None:
    """How much further out the engine's dose falls to half of Monte Carlo's inner mean than Monte Carlo's, mm."""
    near = pick & (across > 0) & (across < half_mm + 25.0)
    if near.sum() < MIN_VOXELS:
        return None
    place, dose, ours = _means(seen, across, near, EDGE_BIN_MM)
    inner = place < 0.6 * half_mm
    if not inner.any():
        return None
    level = 0.5 * float(dose[inner].mean())
    places = [_falls_below(place, values, level) for values in (dose, ours)]
    return None if places[0] is None or places[1] is None else places[1] - places[0]


def _falls_below(place: Floats, values: Floats, level: float) -> float | None:
    """Where a profile first falls below a level, linear between its points."""
    crossed = np.flatnonzero((values[:-1] >= level) & (values[1:] < level))
    if not len(crossed):
        return None
    j = int(crossed[0])
    return float(place[j] + (values[j] - level) / (values[j] - values[j + 1]) * (place[j + 1] - place[j]))
