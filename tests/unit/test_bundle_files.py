"""Nothing of a bundle is executed before it is what an administrator pinned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_bundle import NAMES, inference, metadata, phantom, pinned, write_bundle

from segmentation.bundle import files
from segmentation.bundle.files import channel_names, pin, read_verified
from segmentation.bundle.spec import BundleSpec, NameTable
from segmentation.bundles import BundleSegmenter, bundle_at
from segmentation.contract import ModelRefused, ModelUnverified

CT = phantom((6, 8, 8))[0]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_bundle(tmp_path / "bundle")


def booby_trapped(folder: Path, marker: Path) -> None:
    """Python in every place where MONAI would execute it."""
    trap = f"$__import__('os').system('touch {marker}')"
    config = inference(imports=[f"$exec(\"open({str(marker)!r}, 'w')\")"], device=trap)
    config["preprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "image", "func": trap})
    (folder / "configs" / "inference.json").write_text(json.dumps(config))


def test_changed_configuration_is_not_executed(tmp_path, folder):
    # mutant: check the hash after building
    spec = pinned(folder)
    marker = tmp_path / "executed"
    booby_trapped(folder, marker)
    with pytest.raises(ModelUnverified, match="configuration has SHA-256"):
        BundleSegmenter(spec).segment(CT)
    with pytest.raises(ModelUnverified):
        BundleSegmenter(spec).verify()
    pin(folder)
    assert not marker.exists()


def test_the_trap_would_have_fired(tmp_path, folder):
    # Otherwise the test above could not fail.
    marker = tmp_path / "executed"
    booby_trapped(folder, marker)
    with pytest.raises(ModelRefused):
        BundleSegmenter(pinned(folder)).segment(CT)
    assert marker.exists()


def test_bundle_that_nobody_configured_is_not_read(tmp_path, folder, monkeypatch):
    # mutant: make a spec of any path
    other = shutil.copytree(folder, tmp_path / "other")
    spec = pinned(folder)
    monkeypatch.setattr(files, "_read", lambda *_: pytest.fail("something was read"))
    with pytest.raises(ModelRefused, match="no settings name"):
        bundle_at(other, [spec])
    assert bundle_at(folder / ".." / folder.name, [spec]).spec == spec


@pytest.mark.parametrize(
    "change",
    ["configs/metadata.json", "configs/inference.json", "models/model.pt", "configs/new.json", "configs/deep/er.yaml"],
)
def test_any_change_unverifies(folder, change):
    # mutant: hash inference.json only; mutant: hash without the names
    spec = pinned(folder)
    read_verified(spec)
    file = folder / change
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((file.read_bytes() if file.exists() else b"{}") + b" ")
    with pytest.raises(ModelUnverified, match="SHA-256"):
        read_verified(spec)


def test_names_of_the_files_count(folder):
    (folder / "configs" / "a.json").write_text("1")
    (folder / "configs" / "b.json").write_text("2")
    before = pin(folder).config_sha256
    (folder / "configs" / "b.json").rename(folder / "configs" / "c.json")  # the order of the contents stays
    assert pin(folder).config_sha256 != before


@pytest.mark.parametrize("missing", ["configs/metadata.json", "configs/inference.json", "configs", "models/model.pt", ""])
def test_missing_files_unverify(folder, missing):
    spec = pinned(folder)
    gone = folder / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(ModelUnverified):
        read_verified(spec)


def test_version_must_be_the_pinned_one(folder):
    with pytest.raises(ModelUnverified, match=r"version 0\.1\.0, the settings say 0\.2\.0"):
        read_verified(replace(pinned(folder), version="0.2.0"))


def test_links_that_leave_the_bundle_are_refused(tmp_path, folder):
    # mutant: do not resolve; mutant: follow a linked configs folder
    spec = pinned(folder)
    outside = tmp_path / "elsewhere.pt"
    shutil.copy(folder / "models" / "model.pt", outside)
    (folder / "models" / "model.pt").unlink()
    (folder / "models" / "model.pt").symlink_to(outside)
    with pytest.raises(ModelRefused, match="leaves the bundle"):
        read_verified(spec)
    configs = shutil.move(folder / "configs", tmp_path / "configs")
    (folder / "configs").symlink_to(configs)
    with pytest.raises(ModelRefused, match="is a link"):
        read_verified(spec)


def test_links_inside_the_bundle_are_followed(folder):
    (folder / "models" / "model.pt").rename(folder / "models" / "best.pt")
    (folder / "models" / "model.pt").symlink_to("best.pt")
    read_verified(pinned(folder))


@pytest.mark.parametrize("name", ["../outside.pt", "/etc/hostname", "models/../../outside.pt", "models/model.ts", "models"])
def test_weights_outside_or_of_another_format_are_refused(folder, name):
    with pytest.raises(ModelRefused):
        read_verified(replace(pinned(folder), weights_file=name))


def test_sizes_have_limits(folder, monkeypatch):
    spec = pinned(folder)
    monkeypatch.setattr(files, "CONFIG_FILE_MAX_BYTES", 100)
    with pytest.raises(ModelRefused, match="more than 100 bytes"):
        read_verified(spec)
    monkeypatch.undo()
    monkeypatch.setattr(files, "WEIGHTS_MAX_BYTES", 100)
    with pytest.raises(ModelRefused, match="more than 100 bytes"):
        read_verified(spec)
    monkeypatch.undo()
    monkeypatch.setattr(files, "CONFIG_FILES_MAX", 1)
    with pytest.raises(ModelRefused, match="files in configs"):
        read_verified(spec)


@pytest.mark.parametrize(
    "text", ["{", "[]", "\xff", "!!python/object/apply:os.getcwd []"], ids=["cut", "list", "bytes", "tag"]
)
def test_configuration_that_cannot_be_read(folder, text):
    (folder / "configs" / "inference.json").unlink()
    (folder / "configs" / "inference.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ModelUnverified):
        read_verified(pinned(folder))


def test_two_inference_files_are_one_too_many(folder):
    (folder / "configs" / "inference.yaml").write_text("{}")
    with pytest.raises(ModelUnverified, match="expected one"):
        read_verified(pinned(folder))


def test_channels_must_be_named_each_once():
    assert channel_names(metadata(("background", "liver"))) == ("background", "liver")
    for spoilt in ({"0": "background", "2": "liver"}, {"0": "liver", "1": "liver"}, {"x": "liver"}, None):
        meta = metadata(("background", "liver"))
        meta["network_data_format"]["outputs"]["pred"]["channel_def"] = spoilt
        with pytest.raises(ModelUnverified):
            channel_names(meta)
    with pytest.raises(ModelUnverified):
        channel_names({})


def test_names_of_channels_that_the_bundle_has_not(folder):
    spec = pinned(folder, names=NameTable({"Liver": ("liver",), "Lung_L": ("lung_low",)}))
    with pytest.raises(ModelUnverified, match="no channels liver"):
        BundleSegmenter(spec).verify()
    with pytest.raises(ModelUnverified, match="no channels liver"):
        BundleSegmenter(spec).segment(CT)


def test_spec_and_table_refuse_nonsense(folder):
    with pytest.raises(ValueError, match="vocabulary"):
        NameTable({"Left lung": ("lung_low",)})
    for empty in ({}, {"Lung_L": ()}):
        with pytest.raises(ValueError, match="no channel"):
            NameTable(empty)
    with pytest.raises(ValueError, match="absolute"):
        replace(pinned(folder), path=Path("bundle"))
    with pytest.raises(ValueError, match="hexadecimal"):
        BundleSpec("x", folder, "models/model.pt", "ABC", "0" * 64, "1", NAMES)
