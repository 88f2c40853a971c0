"""Contours against a reference: python -m benchmarks.bench_contours --patients DIR [--split validation] [--model ID]

DIR holds npz files of the OpenKBP format (okbp-npz-1), in any folders. A model gets the CT in the slices in which the body
is whole (`body_z`) and its masks are compared there with those of the file: Dice, surface Dice at 3 mm, 95 % Hausdorff
distance (MONAI's metrics, in mm on the patient's own grid). Structures without a reference are left out; cord and
esophagus, which are drawn only as far down as the fields reach, are compared down to there. Intervals are of the mean over
patients, 95 %, bootstrap. Writes benchmarks/results/contours.json.

The data set's External is not always the skin: it holds air around it, 6 % of its volume on average in the validation
patients. It is compared as it is, and as `External, skin`: what of it is tissue, filled slice by slice.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray

from benchmarks.results_file import write_results
from rtplan.registry import shelf
from segmentation.contract import CtVolume, Float3, Segmentation, Segmenter
from segmentation.models.body_threshold import TISSUE_HU
from segmentation.shapes import Mask, box_around, filled_plane
from segmentation.training.data import GOES_ON_BELOW, WRONG_BY_FLAG, reference_masks, split_ids

TOLERANCE_MM = 3.0
RESAMPLES, SEED = 4000, 0
BAD_DICE, GOOD_DICE = 0.6, 0.8
SKIN = "External, skin"
MEASURES = ("dice", "surface_dice_3mm", "hausdorff95_mm")


@dataclass(frozen=True, slots=True)
class Row:
    """One structure of one patient. `codes` are the doubts about it that ask for a person (flag or hold)."""

    patient: str
    structure: str
    dice: float
    surface_dice_3mm: float
    hausdorff95_mm: float  # infinite when nothing was found
    confidence: float  # 0 when nothing was found
    codes: tuple[str, ...]


def patients(folder: Path, split: str | None) -> list[Path]:
    """Files to compare with. Raises SystemExit when there is none, or one of the split is missing."""
    files = {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.rglob("*.npz"))}
    if split is not None:
        missing = [name for name in split_ids(split) if name not in files]
        if missing:
            raise SystemExit(f"{folder} lacks {len(missing)} patients of the split {split}: {missing[:3]}")
        files = {name: files[name] for name in split_ids(split)}
    if not files:
        raise SystemExit(f"no npz file in {folder}")
    return list(files.values())


def rows_of(path: Path, model: Segmenter, device: str) -> tuple[list[Row], Segmentation]:
    """Every structure that the file has a reference for and the model may return."""
    hu, reference, spacing, flags = reference_masks(path)
    found = model.segment(CtVolume.standard(hu, spacing), device=device)
    wrong = {name for flag in flags for name in WRONG_BY_FLAG.get(flag, ())}
    rows = []
    for name in model.labels:
        if name in reference and name not in wrong:
            truth = reference[name]
            first = int(np.flatnonzero(truth.any(axis=(1, 2)))[0]) if name in GOES_ON_BELOW else 0
            mask = found.masks.get(name, np.zeros_like(truth))
            codes = tuple(d.code for d in found.doubts if d.structure == name and d.severity != "info")
            measured = measures(mask[first:], truth[first:], spacing)
            rows.append(Row(path.stem, name, *measured, float(found.confidence.get(name, 0.0)), codes))
    if "External" in reference and "External" in found.masks:
        skin = np.stack([filled_plane(plane) for plane in reference["External"] & (hu > TISSUE_HU)])
        measured = measures(found.masks["External"], skin, spacing)
        rows.append(Row(path.stem, SKIN, *measured, float(found.confidence["External"]), ()))
    return rows, found


def measures(mask: Mask, truth: Mask, spacing_zyx_mm: Float3) -> tuple[float, float, float]:
    """Dice, surface Dice at 3 mm, and 95 % Hausdorff distance in mm, of masks (z, y, x); the truth is not empty."""
    if not mask.any():
        return 0.0, 0.0, float("inf")
    box = box_around(mask | truth, (2, 2, 2))
    dice = 2 * float((mask & truth).sum()) / float(mask.sum() + truth.sum())
    given, wanted = (torch.from_numpy(np.ascontiguousarray(m[box]))[None, None].float() for m in (mask, truth))
    surface = compute_surface_dice(given, wanted, [TOLERANCE_MM], include_background=True, spacing=list(spacing_zyx_mm))
    distance = compute_hausdorff_distance(
        given, wanted, include_background=True, percentile=95, spacing=list(spacing_zyx_mm)
    )
    return dice, float(surface), float(distance)


def interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and its 95 % bootstrap interval over patients; infinite distances are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    drawn = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def summary(rows: list[Row]) -> dict[str, Any]:
    """Figures by structure."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(row.structure for row in rows):
        own = [row for row in rows if row.structure == name]
        figures: dict[str, Any] = {"patients": len(own), "not_found": sum(row.dice == 0 for row in own)}
        for measure in MEASURES:
            mean, low, high = interval(np.array([getattr(row, measure) for row in own]))
            figures[measure] = {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}
        figures["median_dice"] = round(float(np.median([row.dice for row in own])), 4)
        figures["confidence_error"] = round(float(np.mean([abs(row.confidence - row.dice) for row in own])), 4)
        codes = [code for row in own for code in row.codes]
        out[name] = figures | {"doubts": {code: codes.count(code) for code in sorted(set(codes))}}
    return out


def doubt_figures(rows: list[Row]) -> dict[str, Any]:
    """How many of the bad contours were doubted, and how many of the good ones."""
    rows = [row for row in rows if row.structure != SKIN]
    bad, good = [r for r in rows if r.dice < BAD_DICE], [r for r in rows if r.dice > GOOD_DICE]
    share = {name: (sum(bool(r.codes) for r in part), len(part)) for name, part in (("bad", bad), ("good", good))}
    missed = [f"{r.patient} {r.structure} {r.dice:.2f}" for r in bad if not r.codes]
    return {
        f"dice_below_{BAD_DICE}": {"doubted": share["bad"][0], "of": share["bad"][1], "missed": missed},
        f"dice_above_{GOOD_DICE}": {"doubted": share["good"][0], "of": share["good"][1]},
    }


def table(figures: dict[str, Any]) -> str:
    """What is printed."""
    lines = [f"{'':14s} {'n':>3s}  {'Dice':22s} {'surface Dice 3 mm':22s} {'95 % Hausdorff, mm':22s} doubts"]
    for name, own in figures.items():
        cells = []
        for measure in MEASURES:
            value, digits = own[measure], 1 if measure.endswith("_mm") else 3
            cells.append(f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})")
        doubts = " ".join(f"{code} {count}" for code, count in own["doubts"].items())
        lines.append(f"{name:14s} {own['patients']:3d}  " + " ".join(f"{cell:22s}" for cell in cells) + " " + doubts)
    return "\n".join(lines)


def main() -> None:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=Path, required=True)
    parser.add_argument("--split", choices=("validation", "calibration", "train"))
    parser.add_argument("--model", default="head_neck_oar")
    parser.add_argument("--folder", type=Path, help="another folder of the model's files than the shipped one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="contours", help="of the file in benchmarks/results")
    args = parser.parse_args()
    model = shelf("segmentation.models")[args.model]
    if args.folder is not None:
        model = replace(model, folder=args.folder)
    rows: list[Row] = []
    whole: list[str] = []
    files, started = patients(args.patients, args.split), time.perf_counter()
    for path in files:
        own, found = rows_of(path, model, args.device)
        rows += own
        whole += [d.code for d in found.doubts if d.structure is None and d.severity != "info"]
        print(f"{path.stem:8s} " + " ".join(f"{row.structure} {row.dice:.2f}" for row in own), flush=True)
    figures = summary(rows)
    print(table(figures))
    doubts = doubt_figures(rows) | {"whole_ct": {code: whole.count(code) for code in sorted(set(whole))}}
    print("doubts:", doubts)
    result = {
        "model": {"id": args.model, "version": model.version},
        "split": args.split,
        "patients": len(files),
        "seconds_per_patient": round((time.perf_counter() - started) / len(files), 2),
        "structures": figures,
        "doubts": doubts,
        "dice": {path.stem: {r.structure: round(r.dice, 4) for r in rows if r.patient == path.stem} for path in files},
    }
    print(write_results(args.name, result))


if __name__ == "__main__":
    main()
