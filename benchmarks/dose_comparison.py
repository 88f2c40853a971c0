"""Figures by which a dose is compared with Monte Carlo. Absolute: nothing is renormalised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from benchmarks.egsnrc_cases import ReferenceField
from rtplan.domain.beams import beam_frame

Floats = NDArray[np.float64]
AXIS_BIN_MM = 5.0
BEYOND_FIELD_MM = 10.0


def compare(field: ReferenceField, engine_dose: NDArray[np.floating]) -> dict[str, float]:
    """All figures of one case; % are of the Monte Carlo maximum on the axis, except where they are named otherwise."""
    ours = field.on_voxels(engine_dose)
    x, y, along = beam_frame(field.fluence.beam).to_bev(field.centres_xyz_mm())
    x = x - field.fluence.x_edges_mm.mean()
    y = y - field.fluence.y_edges_mm.mean()
    half_x, half_y = np.ptp(field.fluence.x_edges_mm) / 2, np.ptp(field.fluence.y_edges_mm) / 2
    weight = np.prod(np.meshgrid(*(np.diff(e) for e in field.edges_zyx_mm), indexing="ij"), axis=0)
    places = (x, y, along)
    result: dict[str, float] = {}
    top = _depth_dose(field, ours, weight, places, 12.5)[1].max()
    for name, run_mm in (("1cm", 5.0), ("2.5cm", 12.5)):
        result |= {
            f"axis_{name}_{k}": v for k, v in depth_figures(_depth_dose(field, ours, weight, places, run_mm), top).items()
        }
    result |= _profiles(field, ours, weight, places, (half_x, half_y), top)
    high = field.scored & (field.dose > 0.1 * top)
    difference = 100 * (ours - field.dose)[high] / top
    result["mae_above_10pct"] = float(np.abs(difference).mean())
    result["mean_above_10pct"] = float(difference.mean())
    result["noise_above_10pct"] = float(100 * np.sqrt(2 / np.pi) * field.sigma[high].mean() / top)
    for percent, distance_mm in ((2.0, 2.0), (3.0, 2.0)):
        passed = gamma_passes(field, ours, engine_dose, high, percent / 100 * top, distance_mm)
        result[f"gamma_{percent:g}pct_{distance_mm:g}mm"] = float(100 * passed.mean())
    return result


def _depth_dose(
    field: ReferenceField, ours: Floats, weight: Floats, places: tuple[Floats, Floats, Floats], run_mm: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Means over the central square of half-width `run_mm` by depth: depth mm, Monte Carlo, engine, 1 sigma of the mean."""
    x, y, along = places
    pick = field.scored & (np.abs(x) < run_mm) & (np.abs(y) < run_mm)
    bins = np.floor(along[pick] / AXIS_BIN_MM).astype(int)
    return _means(bins, AXIS_BIN_MM, weight[pick], field.dose[pick], ours[pick], field.sigma[pick])


def _means(
    bins: NDArray[np.int64], width_mm: float, weight: Floats, dose: Floats, ours: Floats, sigma: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Weighted means by bin: middle of the bin, Monte Carlo, engine, 1 sigma."""
    numbers, inverse = np.unique(bins, return_inverse=True)
    total = np.bincount(inverse, weight)
    mean, mean_ours = np.bincount(inverse, weight * dose) / total, np.bincount(inverse, weight * ours) / total
    noise = np.sqrt(np.bincount(inverse, (weight * sigma) ** 2)) / total
    return (numbers + 0.5) * width_mm, mean, mean_ours, noise


def depth_figures(curve: tuple[Floats, Floats, Floats, Floats], top: float) -> dict[str, float]:
    """Beyond the depth of maximum: mean, rms and largest difference, and the noise of one point, in % of the maximum."""
    _, reference, ours, noise = curve
    beyond = np.arange(len(reference)) > int(reference.argmax())
    difference = 100 * (ours - reference)[beyond] / top
    return {
        "mean": float(difference.mean()),
        "rms": float(np.sqrt((difference**2).mean())),
        "max": float(difference[np.abs(difference).argmax()]),
        "noise": float(100 * noise[beyond].mean() / top),
        "maximum_rel_pct": float(100 * (ours.max() / reference.max() - 1)),
    }


def _profiles(
    field: ReferenceField,
    ours: Floats,
    weight: Floats,
    places: tuple[Floats, Floats, Floats],
    half_mm: tuple[float, float],
    top: float,
) -> dict[str, float]:
    """Profiles along beam X in 40 mm thick layers through the field's middle: in field, out of field, penumbra."""
    x, y, along = places
    inside_y = np.abs(y) < 0.6 * half_mm[1]
    lit = field.scored & (field.dose > 0.2 * top) & (np.abs(x) < half_mm[0])
    entry = along[lit].min()
    in_field, out_of_field, shifts = [], [], []
    for layer in range(1, 6):
        at_depth = np.abs(along - entry - 40.0 * layer) < 20.0
        pick = field.scored & inside_y & at_depth
        inner, outer = pick & (np.abs(x) < 0.8 * half_mm[0]), pick & (np.abs(x) > half_mm[0] + BEYOND_FIELD_MM)
        for chosen, sink in ((inner, in_field), (outer, out_of_field)):
            if chosen.sum() > 20:
                bins = np.floor(x[chosen] / 10.0).astype(int)
                _, a, b, _ = _means(bins, 10.0, weight[chosen], field.dose[chosen], ours[chosen], field.sigma[chosen])
                sink.append(100 * (b - a) / top)
        for side in (-1, 1):
            shift = _penumbra_shift(field, ours, weight, x * side, pick, half_mm[0])
            if shift is not None:
                shifts.append(shift)
    return {
        "in_field_mean": float(np.mean(np.concatenate(in_field))),
        "in_field_max": float(np.abs(np.concatenate(in_field)).max()),
        "out_of_field_mean": float(np.mean(np.concatenate(out_of_field))) if out_of_field else float("nan"),
        "out_of_field_max": float(np.abs(np.concatenate(out_of_field)).max()) if out_of_field else float("nan"),
        "penumbra_shift_mm": float(np.mean(shifts)) if shifts else float("nan"),
        "penumbra_shift_max_mm": float(np.abs(shifts).max()) if shifts else float("nan"),
    }


def _penumbra_shift(
    field: ReferenceField, ours: Floats, weight: Floats, x: Floats, pick: NDArray[np.bool_], half_mm: float
) -> float | None:
    """How much further out the engine's 50 % point lies than Monte Carlo's, mm at the isocentre; levels by Monte Carlo."""
    near = pick & (x > 0) & (x < half_mm + 25.0)
    bins = np.floor(x[near] / 3.0).astype(int)
    if near.sum() < 50:
        return None
    at, a, b, _ = _means(bins, 3.0, weight[near], field.dose[near], ours[near], field.sigma[near])
    inner = at < 0.6 * half_mm
    if not inner.any():
        return None
    level = 0.5 * a[inner].mean()
    crossings = []
    for values in (a, b):
        crossed = np.nonzero((values[:-1] >= level) & (values[1:] < level))[0]
        if not len(crossed):
            return None
        j = crossed[0]
        crossings.append(at[j] + (values[j] - level) / (values[j] - values[j + 1]) * (at[j + 1] - at[j]))
    return float(crossings[1] - crossings[0])


def gamma_passes(
    field: ReferenceField,
    ours: Floats,
    engine_dose: NDArray[np.floating],
    high: NDArray[np.bool_],
    limit: float,
    distance_mm: float,
) -> NDArray[np.bool_]:
    """Which Monte Carlo voxels find an engine dose with gamma <= 1 (global limit in dose units), the engine trilinear."""
    points = field.centres_xyz_mm()[high]
    wanted = field.dose[high]
    passed = np.abs(ours[high] - wanted) <= limit
    step = np.arange(-distance_mm, distance_mm + 0.01, distance_mm / 4)
    offsets = np.stack(np.meshgrid(step, step, step), axis=-1).reshape(-1, 3)
    lengths = np.linalg.norm(offsets, axis=1)
    order = np.argsort(lengths)
    dose = np.asarray(engine_dose, dtype=np.float32)
    for offset, length in zip(offsets[order], lengths[order], strict=True):
        left = np.nonzero(~passed)[0]
        if length >= distance_mm or not len(left):
            break
        index = field.density.grid.to_index(points[left] + offset)
        there = map_coordinates(dose, index.T, order=1, mode="nearest")
        gamma2 = ((there - wanted[left]) / limit) ** 2 + (length / distance_mm) ** 2
        passed[left[gamma2 <= 1]] = True
    return passed
