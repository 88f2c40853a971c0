"""Make `envelopes.json`: `python -m segmentation.training.envelopes --data DIR -o FILE`.

Usual ranges of organs and scans over the ground truth of the patients that train, so what the network is shown is also what
it is held to. A patient flagged with a wrong mask or a shifted CT is left out of the measures that this spoils.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from segmentation.contract import Float3
from segmentation.doubt.body import body_of
from segmentation.doubt.envelopes import QUANTILES, Envelopes, Range, dumped
from segmentation.doubt.measures import OPEN_ENDED, PAIRS, Shape, anchors, off_mm, pair_measures, shapes_of
from segmentation.doubt.scan import scan_measures
from segmentation.training.data import split_ids
from segmentation.training.truth import Truth, truth_of

# Fewer patients than this make no envelope.
MIN_PATIENTS = 20
# Measures of a whole organ: an end of the scan spoils them.
_WHOLE = ("volume_cc", "extent_z_mm", "elongation", "area_mean_cm2", "area_max_cm2")

Values = dict[str, dict[str, list[float]]]


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command."""
    parser = argparse.ArgumentParser(prog="python -m segmentation.training.envelopes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with dev/ and dev_extra/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the envelopes.json to write")
    options = parser.parse_args(arguments)
    envelopes = envelopes_over(truth_of(options.data, patient) for patient in split_ids("train"))
    options.output.write_text(json.dumps(rounded(dumped(envelopes)), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{options.output}: {len(envelopes.structures)} structures\n")


def envelopes_over(truths: Iterable[Truth]) -> Envelopes:
    """Envelopes over patients."""
    structures: Values = defaultdict(lambda: defaultdict(list))
    scans: dict[str, list[float]] = defaultdict(list)
    everyone: list[dict[str, Shape]] = []
    for truth in truths:
        body = body_of(truth.evidence.hu, truth.evidence.spacing_zyx_mm)
        if body.ends is None:
            continue
        shapes = {name: s for name, s in shapes_of(truth.evidence, body).items() if name not in truth.spoilt}
        everyone.append(shapes)
        _gather(structures, shapes, truth)
        for key, value in scan_measures(truth.evidence.hu, body, truth.evidence.spacing_zyx_mm).items():
            if not (truth.hu_suspect and "hu" in key):
                scans[key].append(value)
    offsets = offsets_over(everyone)
    for shapes in everyone:
        for name, off in off_mm(shapes, offsets).items():
            _add(structures[name], off)
    ranges = {name: _ranges(part) for name, part in structures.items()}
    return Envelopes({name: part for name, part in ranges.items() if part}, _ranges(scans), offsets)


def _gather(structures: Values, shapes: Mapping[str, Shape], truth: Truth) -> None:
    for name, shape in shapes.items():
        kept = dict(shape.measures)
        if name in OPEN_ENDED:
            kept = {k: v for k, v in kept.items() if k not in ("volume_cc", "extent_z_mm", "elongation")}
        elif shape.cut:
            kept = {k: v for k, v in kept.items() if k not in _WHOLE}
        if truth.hu_suspect:
            kept.pop("hu_mean")
        _add(structures[name], kept)
    for left, right in PAIRS:
        if left in shapes and right in shapes and not shapes[left].cut and not shapes[right].cut:
            _add(structures[left], pair_measures(shapes[left], shapes[right]))


def offsets_over(everyone: Iterable[Mapping[str, Shape]]) -> dict[str, dict[str, Float3]]:
    """Median way (z, y, x) mm from each anchor to each other."""
    ways: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for shapes in everyone:
        points = anchors(shapes)
        for name, point in points.items():
            for other, start in points.items():
                if other != name:
                    ways[name, other].append(np.subtract(point, start))
    out: dict[str, dict[str, Float3]] = defaultdict(dict)
    for (name, other), found in ways.items():
        if len(found) >= MIN_PATIENTS:
            z, y, x = np.median(found, axis=0)
            out[name][other] = (float(z), float(y), float(x))
    return dict(out)


def rounded(data: object) -> object:
    """Plain JSON with four significant digits: nothing more is known, and it keeps the file readable."""
    if isinstance(data, dict):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [rounded(value) for value in data]
    return float(f"{data:.4g}") if isinstance(data, float) else data


def _add(store: dict[str, list[float]], measures: Mapping[str, float]) -> None:
    for key, value in measures.items():
        store[key].append(value)


def _ranges(measures: Mapping[str, list[float]]) -> dict[str, Range]:
    out = {}
    for key, values in measures.items():
        if len(values) >= MIN_PATIENTS:
            q01, q05, q50, q95, q99 = (float(q) for q in np.quantile(values, QUANTILES))
            out[key] = Range(len(values), (q01, q05, q50, q95, q99))
    return out


if __name__ == "__main__":
    main()
