"""A model's files are used only when they are the ones that were pinned; everything else is refused before it is loaded."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest

from segmentation.contract import ModelUnverified
from segmentation.inference import load_model
from segmentation.weights import MAX_MODEL_BYTES, MAX_WEIGHT_BYTES, read_description, read_weights
from tests.small_model import small_model

ID = "head_neck_oar"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_model(tmp_path / "model")


def pin(folder: Path, data: bytes) -> None:
    """Writes weights and pins their hash, as somebody would who only knows the description."""
    (folder / "weights.safetensors").write_bytes(data)
    said = json.loads((folder / "model.json").read_text())
    said["weights"]["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "model.json").write_text(json.dumps(said))


def change(folder: Path, **changed: object) -> None:
    said = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(said | changed))


def test_sound_files_load_and_their_version_names_the_weights(folder):
    found = read_description(folder, ID, "0.0.1")
    assert len(read_weights(found)) > 10
    assert found.full_version == f"0.0.1+{found.weights_sha256[:12]}"
    assert load_model(found, "cpu").network.training is False


def test_one_changed_bit_is_refused(folder):
    # mutant: compare the digest with itself
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ModelUnverified, match="SHA-256"):
        read_weights(read_description(folder, ID))


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelUnverified, match=name):
        read_weights(read_description(folder, ID))


def test_other_version_or_model_is_refused(folder):
    with pytest.raises(ModelUnverified, match=r"version 0\.0\.1"):
        read_description(folder, ID, "0.0.2")
    with pytest.raises(ModelUnverified, match="expected 'pelvis'"):
        read_description(folder, "pelvis")


def test_newer_description_beside_older_weights_is_refused(folder):
    # mutant: leave out the comparison with __metadata__
    change(folder, version="0.0.2")
    with pytest.raises(ModelUnverified, match="was written for"):
        read_weights(read_description(folder, ID))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", (1 << 20) + 1) + b" " * (1 << 21),
        struct.pack("<Q", 4) + b"nope",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 2) + b"{}",
    ],
    ids=["empty", "short", "length beyond the file", "header too long", "no JSON", "no table", "deep", "no version"],
)
def test_header_that_is_none_is_refused(folder, data):
    pin(folder, data)
    with pytest.raises(ModelUnverified):
        read_weights(read_description(folder, ID))


@pytest.mark.parametrize(("name", "most"), [("model.json", MAX_MODEL_BYTES), ("weights.safetensors", MAX_WEIGHT_BYTES)])
def test_file_beyond_its_limit_is_not_read(folder, name, most):
    with (folder / name).open("r+b") as file:
        file.truncate(most + 1)  # sparse: costs no disk
    with pytest.raises(ModelUnverified, match="larger"):
        read_weights(read_description(folder, ID))


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": []},
        {"labels": ["Brainstem", "Brainstem"]},
        {"labels": ["Left parotid"]},
        {"labels": ["Parotid_L", "External"]},
        {"roi_zyx": [32, 40, 48]},
        {"working_spacing_zyx_mm": [3.0, 3.9]},
        {"working_spacing_zyx_mm": [3.0, 3.9, float("nan")]},
        {"windows_hu": [[-1000, 1500]]},
        {"windows_hu": [[-1000, 1500], [240, -160]]},
        {"windows_hu": [[-1000, 1500], [-160, float("nan")]]},
        {"version": "newest"},
        {"weights": {"file": "../weights.safetensors", "sha256": "0" * 64}},
        {"weights": {"file": "weights.safetensors", "sha256": "0"}},
        {"network": 3},
    ],
    ids=lambda changed: next(f"{k}={v}"[:40] for k, v in changed.items()),
)
def test_description_that_cannot_be_is_refused(folder, changed):
    change(folder, **changed)
    with pytest.raises(ModelUnverified, match=r"model\.json"):
        read_description(folder, ID)


def test_description_that_is_no_json_or_too_deep_is_refused(folder):
    for text in ("", "{", "[" * 100_000, "[1]"):
        (folder / "model.json").write_text(text)
        with pytest.raises(ModelUnverified):
            read_description(folder, ID)


def test_weights_of_another_network_are_refused(folder):
    said = json.loads((folder / "model.json").read_text())["network"]
    for network in (said | {"filters": [8, 8, 8]}, said | {"filters": [4, 8]}, {"in_channels": 2, "out_channels": 8}):
        change(folder, network=network)
        with pytest.raises(ModelUnverified, match="do not fit"):
            load_model(read_description(folder, ID), "cpu")
