"""The command that fits the calibration, on the drawn patient in place of real ones, and the conditions it works under."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from doubt_bodies import NAMES, SHIPPED, envelopes, moved, patient, sure

from segmentation.doubt import load_calibration
from segmentation.training import calibrate
from segmentation.training.data import split_ids
from segmentation.training.predict import CONDITIONS, Shown, Trial


def _trial(case_id: str, shift_voxels: int) -> Trial:
    """A network that draws every organ too far to the left, the less sure the farther."""
    p = patient()
    masks = np.stack(
        [
            mask if name == "External" else moved(mask, (0, 0, shift_voxels))
            for name, mask in zip(NAMES, p.masks, strict=True)
        ]
    )
    evidence = sure(p.hu, masks)
    evidence.probability[masks] = 0.97 - 0.05 * shift_voxels
    return Trial(case_id, "as it is", evidence, p.masks, np.ones((len(NAMES), p.hu.shape[0]), bool))


def test_a_perfect_drawing_has_dice_1_and_no_code():
    # mutant: compare the masks with themselves before the known slices are taken
    samples = calibrate.samples_of(_trial("pt", 0), envelopes())
    assert {s.name for s in samples} == set(NAMES)
    assert all(s.dice == 1.0 and s.inputs is not None and not s.codes for s in samples)


def test_slices_where_the_reference_is_unknown_do_not_count():
    # mutant: ignore trial.known
    perfect = _trial("pt", 0)
    longer = perfect.evidence.masks.copy()
    i = NAMES.index("SpinalCord")
    known = perfect.known.copy()
    known[i, :30] = False
    reference = perfect.reference.copy()
    reference[i, :30] = False
    trial = Trial("pt", "as it is", sure(perfect.evidence.hu, longer), reference, known)
    assert next(s.dice for s in calibrate.samples_of(trial, envelopes()) if s.name == "SpinalCord") == 1.0


def test_the_command_writes_a_calibration_and_says_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    trials = [_trial(f"pt {patient_number}", shift) for patient_number in range(2) for shift in (0, 2, 6)]
    asked: list[tuple[str, ...]] = []

    def given(_: object, case_ids: tuple[str, ...], conditions: tuple[str, ...]) -> Iterator[Trial]:
        asked.append(tuple(part for part in ("train", "calibration", "validation") if set(case_ids) <= set(split_ids(part))))
        asked.append(conditions)
        return iter(trials)

    monkeypatch.setattr(calibrate, "_trials", given)
    folders = ["--data", str(tmp_path), "--envelopes", str(SHIPPED), "--cache", str(tmp_path)]
    calibrate.main([*folders, "-o", str(tmp_path / "calibration.json")])
    assert load_calibration(tmp_path).limits.flag_confidence > 0
    told = capsys.readouterr().out
    assert "patient left out: Dice < 0.6:" in told and "Dice > 0.8:" in told
    # mutant: fit on the validation patients; mutant: show training patients under conditions that fail
    assert asked == [("calibration",), tuple(CONDITIONS), ("train",), ("as it is",)]
    before = (tmp_path / "calibration.json").read_bytes()
    calibrate.main([*folders, "--split", "validation", "--calibration", str(tmp_path)])
    assert "patient left out" not in capsys.readouterr().out
    assert (tmp_path / "calibration.json").read_bytes() == before


@pytest.mark.parametrize("condition", ["as it is", "tilted", "cut short", "front to back"])
def test_the_reference_is_turned_and_cut_with_the_ct(condition: str):
    # mutant: leave the reference as it is in tilted or front_to_back
    changed = CONDITIONS[condition](_shown(), np.random.default_rng(7))
    assert changed.reference.shape[1:] == changed.hu.shape and changed.known.shape[1] == changed.hu.shape[0]
    bone = changed.reference[NAMES.index("Bone_Mandible")]
    assert bone.any()
    assert np.median(changed.hu[bone]) > 300


@pytest.mark.parametrize("condition", ["noisy", "blurred"])
def test_numbers_change_and_places_do_not(condition: str):
    # mutant: return the CT as it was
    changed = CONDITIONS[condition](_shown(), np.random.default_rng(7))
    assert np.abs(changed.hu - _shown().hu).mean() > 20
    assert np.array_equal(changed.reference, _shown().reference)


def _shown() -> Shown:
    p, box = patient(), np.s_[30:80, 5:65, 20:95]
    return Shown(p.hu[box], p.masks[(slice(None), *box)], np.ones((len(NAMES), 50), bool))
