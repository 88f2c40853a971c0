"""The files of constants that ship: read strictly, and the same when written again."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from doubt_bodies import CALIBRATION, NAMES, SHIPPED, envelopes

from segmentation.contract import ModelUnverified
from segmentation.doubt import calibration, load_calibration, load_envelopes
from segmentation.doubt import envelopes as ranges


def _write(folder: Path, name: str, data: object) -> Path:
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_the_ranges_that_ship_cover_every_structure_and_hold_no_patient():
    text = (SHIPPED / "envelopes.json").read_text(encoding="utf-8")
    assert set(envelopes().structures) == set(NAMES)
    assert "pt_" not in text and "dev" not in text


def test_envelopes_come_back_as_they_were_written(tmp_path: Path):
    back = load_envelopes(_write(tmp_path, "envelopes.json", ranges.dumped(envelopes())))
    assert ranges.dumped(back) == ranges.dumped(envelopes())


def test_a_calibration_comes_back_as_it_was_written(tmp_path: Path):
    back = load_calibration(_write(tmp_path, "calibration.json", calibration.dumped(CALIBRATION)))
    assert calibration.dumped(back) == calibration.dumped(CALIBRATION)


def test_a_missing_file_is_unverified(tmp_path: Path):
    for load in (load_envelopes, load_calibration):
        with pytest.raises(ModelUnverified):
            load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "rtplan-envelopes-0"}'])
def test_what_is_no_such_file_is_unverified(tmp_path: Path, text: str):
    # mutant: do not look at the format
    for name, load in (("envelopes.json", load_envelopes), ("calibration.json", load_calibration)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(ModelUnverified):
            load(tmp_path)


def _put(data: dict, path: tuple[str, ...], value: object) -> dict:
    changed = copy.deepcopy(data)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("scan", "area_cm2", "quantiles"), [5, 4, 3, 2, 1]),
        (("scan", "area_cm2", "quantiles"), [1, 2, 3]),
        (("scan", "area_cm2", "n"), 0),
        (("scan", "area_cm2", "n"), True),
        (("scan",), {}),
        (("structures", "Larynx"), [1]),
        (("offsets_zyx_mm", "Larynx", "Brainstem"), [1, 2]),
        (("offsets_zyx_mm", "Larynx", "Brainstem"), [1, 2, None]),
        (("more",), 1),
    ],
)
def test_malformed_envelopes_are_unverified(tmp_path: Path, path: tuple[str, ...], value: object):
    # mutant: drop only_keys, or the order of the quantiles
    data = _put(ranges.dumped(envelopes()), path, value)
    with pytest.raises(ModelUnverified):
        load_envelopes(_write(tmp_path, "envelopes.json", data))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("weights",), [1.0]),
        (("inputs",), ["expected_dice"]),
        (("intercept",), "0"),
        (("intercepts",), [0]),
        (("limits", "flag_confidence"), 0.1),
        (("limits", "hold_excess"), 0.1),
        (("limits", "scan_excess"), 0.0),
        (("limits", "more"), 1.0),
    ],
)
def test_a_malformed_calibration_is_unverified(tmp_path: Path, path: tuple[str, ...], value: object):
    # mutant: accept limits in any order
    data = _put(calibration.dumped(CALIBRATION), path, value)
    with pytest.raises(ModelUnverified):
        load_calibration(_write(tmp_path, "calibration.json", data))


def test_not_a_number_is_unverified(tmp_path: Path):
    text = json.dumps(_put(calibration.dumped(CALIBRATION), ("intercept",), float("nan")))
    (tmp_path / "calibration.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelUnverified):
        load_calibration(tmp_path)
