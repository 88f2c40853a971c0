"""Make `calibration.json`, or judge one: how sure a model may be, and where its doubts begin.

`python -m segmentation.training.calibrate --data DIR --checkpoint FILE [--checkpoint FILE ...] --envelopes FOLDER -o FILE`
fits on the calibration patients of the split, as they are and under conditions in which the network fails, and on training
patients as they are: many ordinary contours, on which a network of few steps is hardly better than on others (the report
says by how much). Further checkpoints add the mistakes of a network less trained. `--split validation --calibration FOLDER`
only counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from segmentation.doubt.assess import assess, confidence_inputs
from segmentation.doubt.body import body_of
from segmentation.doubt.calibration import INPUTS, Calibration, Limits, dumped, load_calibration
from segmentation.doubt.envelopes import Envelopes, load_envelopes
from segmentation.doubt.measures import shapes_of
from segmentation.doubt.plausibility import oddities
from segmentation.shapes import dice
from segmentation.training.data import split_ids
from segmentation.training.envelopes import rounded
from segmentation.training.fit import Sample, conditions_of, fitted, left_out, tally_of
from segmentation.training.predict import CONDITIONS, Trial, model_of_checkpoint, model_of_folder, trials
from segmentation.training.truth import truth_of

AS_IT_IS = "as it is"
# Doubts that the fitted limits decide about; all others of a trial are as they are.
MOVED = ("LOW_CONFIDENCE", "UNUSUAL_VOLUME", "UNUSUAL_POSITION", "UNUSUAL_SHAPE", "UNUSUAL_DENSITY")
_QUIET = Calibration((0.0,) * len(INPUTS), 0.0, {}, Limits(0.0, 0.0, 1e9, 1e9, 0.5))
MIN_REFERENCE_VOXELS = 10


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command."""
    options = _parser().parse_args(arguments)
    envelopes = load_envelopes(options.envelopes)
    if options.split == "validation":
        samples = _samples(options, envelopes, split_ids("validation"), (AS_IT_IS,))
        report(samples, load_calibration(options.calibration))
        return
    held = _samples(options, envelopes, split_ids("calibration"), tuple(CONDITIONS))
    trained = _samples(options, envelopes, split_ids("train")[: options.training_patients], (AS_IT_IS,))
    samples = held + trained
    calibration = fitted(samples)
    report(samples, calibration)
    for who, own in (("calibration", [s for s in held if s.condition == AS_IT_IS]), ("training", trained)):
        means = {n: np.mean([s.dice for s in own if s.name == n]) for n in sorted({s.name for s in own})}
        _say(f"mean Dice, {who} patients as they are: " + "  ".join(f"{n} {value:.2f}" for n, value in means.items()))
    count, error = left_out(samples)
    _say(f"patient left out: {count.told()}   mean error of the confidence {error:.3f}")
    options.output.write_text(json.dumps(rounded(dumped(calibration)), indent=1) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m segmentation.training.calibrate", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with dev/ and dev_extra/")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="checkpoint.pt of a training")
    parser.add_argument("--model", type=Path, help="folder of a shipped model, in place of checkpoints")
    parser.add_argument("--model-id", default="head_neck_oar")
    parser.add_argument("--envelopes", type=Path, required=True, help="folder with envelopes.json")
    parser.add_argument("--calibration", type=Path, help="folder with the calibration.json to judge")
    parser.add_argument("--split", choices=("calibration", "validation"), default="calibration")
    parser.add_argument("--patients", type=int, help="only so many patients of the split")
    parser.add_argument("--training-patients", type=int, default=60, help="so many training patients as they are")
    parser.add_argument("--cache", type=Path, required=True, help="where the network's answers are kept")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, help="the calibration.json to write")
    return parser


def _samples(
    options: argparse.Namespace, envelopes: Envelopes, case_ids: Sequence[str], conditions: Sequence[str]
) -> list[Sample]:
    samples: list[Sample] = []
    for trial in _trials(options, case_ids[: options.patients], conditions):
        samples += samples_of(trial, envelopes)
        _say(f"{trial.case_id} {trial.condition}: {len(samples)} structures so far")
    return samples


def _trials(options: argparse.Namespace, case_ids: Sequence[str], conditions: Sequence[str]) -> Iterable[Trial]:
    truths = [truth_of(options.data, case_id) for case_id in case_ids]
    if options.model is not None:
        model = model_of_folder(options.model, options.model_id, options.device)
        yield from trials(model, model.description.weights_sha256[:16], truths, conditions, options.cache)
    for i, path in enumerate(options.checkpoint):
        model = model_of_checkpoint(path, options.device)
        tag = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        # One condition is enough to see what a network less trained does.
        yield from trials(model, tag, truths, conditions if i == 0 else (AS_IT_IS,), options.cache)


def samples_of(trial: Trial, envelopes: Envelopes) -> list[Sample]:
    """What there is to learn from a trial: each structure with a reference in it."""
    evidence = trial.evidence
    shapes = shapes_of(evidence, body_of(evidence.hu, evidence.spacing_zyx_mm))
    odd = oddities(shapes, envelopes)
    inputs = confidence_inputs(evidence, shapes, odd)
    doubts = assess(evidence, envelopes, _QUIET).doubts
    found = []
    for i, name in enumerate(evidence.names):
        reference, drawn = trial.reference[i][trial.known[i]], evidence.masks[i][trial.known[i]]
        if int(reference.sum()) < MIN_REFERENCE_VOXELS:
            continue
        codes = {d.code for d in doubts if d.structure == name and d.severity != "info" and d.code not in MOVED}
        excess = max((abs(o.excess) for o in odd.get(name, ())), default=0.0)
        found.append(
            Sample(trial.case_id, trial.condition, name, dice(reference, drawn), inputs.get(name), excess, frozenset(codes))
        )
    return found


def report(samples: Sequence[Sample], calibration: Calibration) -> None:
    """Counts by condition and by structure, and which doubts do the work."""
    limits = calibration.limits
    _say(f"limits: flag below {limits.flag_confidence:.2f}, beyond {limits.flag_excess:.2f} widths of the usual range")
    _say(f"all              {tally_of(calibration, samples).told()}")
    for condition in conditions_of(samples):
        own = [s for s in samples if s.condition == condition]
        _say(f"{condition:16s} {tally_of(calibration, own).told()}")
    for name in sorted({s.name for s in samples}):
        own = [s for s in samples if s.name == name]
        _say(f"{name:16s} mean Dice {np.mean([s.dice for s in own]):.2f}   {tally_of(calibration, own).told()}")
    alarms = Counter(code for s in samples if s.dice > 0.8 for code in s.codes)
    _say(f"codes on structures with Dice > 0.8, besides the limits: {dict(alarms)}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
