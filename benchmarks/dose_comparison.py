"""Figures by which a dose is compared with Monte Carlo. Absolute: nothing is renormalised.

% are of the Monte Carlo maximum: the largest mean by depth over the field's central 2.5 cm square, in layers of 5 mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.egsnrc_cases import ReferenceField
from benchmarks.gamma_index import Criterion, averaged, gamma_index
from rtplan.domain.beams import beam_frame

Floats = NDArray[np.float64]
LAYER_MM = 5.0
RUN_LAYERS = 5  # runs of 2.5 cm
WINDOW_LAYERS = 6  # the 3 cm over which a departure counts as systematic
CRITERIA = ((2.0, 2.0), (3.0, 2.0))
NOISE_SEED = 20


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A Monte Carlo field and the engine's dose `ours` on its voxels, as the beam sees them: all arrays (z, y, x).

    `x`, `y` mm on the isocentre plane from the field's middle, `along` mm from the source, `volume` mm³, `half_mm` the
    field's half sides, `top` the maximum that % refer to.
    """

    field: ReferenceField
    ours: Floats
    x: Floats
    y: Floats
    along: Floats
    volume: Floats
    half_mm: tuple[float, float]
    top: float


@dataclass(frozen=True, slots=True, eq=False)
class DepthCurve:
    """Means by layers of 5 mm along the beam, in % of the maximum.

    `reference` and `difference` (engine less Monte Carlo); `alone`, 1 sigma of a layer if its voxels were independent;
    `parts` (n, layers), Monte Carlo in the n parts of the square that symmetry makes equal, None where there are none.
    """

    reference: Floats
    difference: Floats
    alone: Floats
    parts: Floats | None


def view(field: ReferenceField, engine_dose: NDArray[np.floating]) -> View:
    """The engine's dose averaged over the Monte Carlo voxels, with their places in the beam."""
    x, y, along = beam_frame(field.fluence.beam).to_bev(field.centres_xyz_mm())
    edges_x, edges_y = field.fluence.x_edges_mm, field.fluence.y_edges_mm
    volume = np.prod(np.meshgrid(*(np.diff(e) for e in field.edges_zyx_mm), indexing="ij"), axis=0)
    ours = averaged(engine_dose, field.density.grid, field.edges_zyx_mm)
    half = (float(np.ptp(edges_x)) / 2, float(np.ptp(edges_y)) / 2)
    raw = View(field, ours, x - edges_x.mean(), y - edges_y.mean(), along, volume, half, 100.0)
    top = float(depth_curve(raw, 12.5).reference.max())
    return View(field, ours, raw.x, raw.y, along, volume, half, top)


def compare(field: ReferenceField, engine_dose: NDArray[np.floating]) -> dict[str, float]:
    """All figures of one case but its profiles (`dose_profiles`), in % of the maximum except where they say otherwise."""
    seen = view(field, engine_dose)
    result: dict[str, float] = {}
    for name, half_mm in (("1cm", 5.0), ("2.5cm", 12.5)):
        figures = depth_figures(depth_curve(seen, half_mm))
        result |= {f"axis_{name}_{key}": value for key, value in figures.items()}
    result |= integral_figures(seen)
    high = above_a_tenth(seen)
    difference = 100 * (seen.ours - field.dose)[high] / seen.top
    result["mae_above_10pct"] = float(np.abs(difference).mean())
    result["mean_above_10pct"] = float(difference.mean())
    result["noise_above_10pct"] = float(100 * np.sqrt(2 / np.pi) * field.sigma[high].mean() / seen.top)
    return result | gamma_figures(seen, engine_dose)


def above_a_tenth(seen: View) -> NDArray[np.bool_]:
    """Voxels that are scored and receive more than 10 % of the maximum from Monte Carlo."""
    high: NDArray[np.bool_] = seen.field.scored & (seen.field.dose > 0.1 * seen.top)
    return high


def gamma_figures(seen: View, engine_dose: NDArray[np.floating]) -> dict[str, float]:
    """Pass rates in %, of the engine, and `noise_...` of a perfect engine against its own dose with the case's noise."""
    high, field = above_a_tenth(seen), seen.field
    replica = seen.ours + np.random.default_rng(NOISE_SEED).normal(size=seen.ours.shape) * field.sigma
    result = {}
    for percent, distance_mm in CRITERIA:
        limit = Criterion(percent / 100 * seen.top, distance_mm)
        for name, truth in (("", field.dose), ("noise_", replica)):
            gamma = gamma_index(engine_dose, field.density.grid, truth, field.edges_zyx_mm, high, limit)
            result[f"{name}gamma_{percent:g}pct_{distance_mm:g}mm"] = float(100 * (gamma <= 1).mean())
    return result


def depth_curve(seen: View, half_mm: float) -> DepthCurve:
    """Means over the field's central square of half-width `half_mm`, or 0.8 of the field's where that is less."""
    inside = (np.abs(seen.x) < min(half_mm, 0.8 * seen.half_mm[0])) & (np.abs(seen.y) < min(half_mm, 0.8 * seen.half_mm[1]))
    pick = inside & seen.field.scored
    layer = np.floor(seen.along / LAYER_MM).astype(np.int64)
    layer = layer - layer[pick].min()
    count = int(layer[pick].max()) + 1
    dose, ours = (_layer_means(layer, seen.volume, values, pick, count) for values in (seen.field.dose, seen.ours))
    filled = np.bincount(layer[pick], seen.volume[pick], minlength=count)
    keep = filled > 0.3 * np.median(filled)
    scale = 100 / seen.top
    variance = _layer_means(layer, seen.volume, seen.volume * seen.field.sigma**2, pick, count)
    alone = np.sqrt(variance / np.maximum(filled, 1e-30))
    parts = None
    if seen.field.unfolded is not None:
        unfolded = seen.field.unfolded
        parts = np.array([_layer_means(layer, seen.volume, unfolded, pick & p, count) for p in symmetric_parts(seen)])
        parts = scale * parts[:, keep]
    return DepthCurve(scale * dose[keep], scale * (ours - dose)[keep], scale * alone[keep], parts)


def _layer_means(layer: NDArray[np.int64], volume: Floats, values: Floats, pick: NDArray[np.bool_], count: int) -> Floats:
    """Volume-weighted means by layer; NaN where a layer has no voxels."""
    total = np.bincount(layer[pick], volume[pick], minlength=count)
    summed = np.bincount(layer[pick], (volume * values)[pick], minlength=count)
    return np.divide(summed, total, out=np.full(count, np.nan), where=total > 0)


def symmetric_parts(seen: View) -> list[NDArray[np.bool_]]:
    """Halves or quarters of the field that the phantom's symmetry makes equal."""
    halves_y: list[NDArray[np.bool_]] = [seen.y < 0, seen.y > 0]
    if not seen.field.mirrored_in_x:
        return halves_y
    return [a & b for a in halves_y for b in (seen.x < 0, seen.x > 0)]


def depth_figures(curve: DepthCurve) -> dict[str, float]:
    """Beyond the depth of maximum, in % of the maximum: mean; rms and largest of the runs of 2.5 cm; largest mean over any
    3 cm; rms and largest of single layers; `noise`, 1 sigma of a run, and `noise_mean` of the mean."""
    beyond = np.arange(len(curve.reference)) > int(np.nanargmax(curve.reference))
    difference = curve.difference[beyond]
    runs = _runs(difference)
    windows = np.convolve(difference, np.ones(WINDOW_LAYERS) / WINDOW_LAYERS, mode="valid")
    windows = windows if len(difference) >= WINDOW_LAYERS else np.array([difference.mean()])
    noise, noise_mean = _noise(curve, beyond)
    return {
        "mean": float(difference.mean()),
        "rms": float(np.sqrt((runs**2).mean())),
        "max": float(runs[np.abs(runs).argmax()]),
        "worst_3cm": float(windows[np.abs(windows).argmax()]),
        "layer_rms": float(np.sqrt((difference**2).mean())),
        "layer_max": float(difference[np.abs(difference).argmax()]),
        "noise": noise,
        "noise_mean": noise_mean,
    }


def _runs(values: Floats) -> Floats:
    """Means of whole runs of 2.5 cm; a rest shorter than half a run goes with the last one."""
    starts = np.arange(0, max(len(values) - RUN_LAYERS // 2, 1), RUN_LAYERS)
    stops = np.append(starts[1:], len(values))
    return np.array([values[a:b].mean() for a, b in zip(starts, stops, strict=True)])


def _noise(curve: DepthCurve, beyond: NDArray[np.bool_]) -> tuple[float, float]:
    """1 sigma of a run of 2.5 cm and of the mean of all: from the symmetric parts, else as if voxels were independent.

    The split photons of one history correlate neighbouring voxels, so that independent voxels tell 2 to 3 times too little.
    """
    if curve.parts is None:
        alone = curve.alone[beyond]
        return float(np.sqrt((alone**2).mean() / RUN_LAYERS)), float(np.sqrt((alone**2).sum()) / len(alone))
    parts = curve.parts[:, beyond]
    runs = np.array([_runs(part) for part in parts])
    count = len(parts)
    return float(np.sqrt(runs.var(axis=0, ddof=1).mean() / count)), float(np.sqrt(parts.mean(axis=1).var(ddof=1) / count))


def integral_figures(seen: View) -> dict[str, float]:
    """Integral depth dose: dose times volume summed over layers across the beam; differences in % of its maximum."""
    field = seen.field
    pick = field.scored & np.isfinite(seen.ours)
    layer = np.floor(seen.along / LAYER_MM).astype(np.int64)
    layer -= layer[pick].min()
    ours, reference = (np.bincount(layer[pick], (seen.volume * dose)[pick]) for dose in (seen.ours, field.dose))
    difference = 100 * (ours - reference) / reference.max()
    lit = reference > 0.01 * reference.max()
    return {
        "idd_mean": float(difference[lit].mean()),
        "idd_mae": float(np.abs(difference[lit]).mean()),
        "idd_max": float(difference[lit][np.abs(difference[lit]).argmax()]),
    }
