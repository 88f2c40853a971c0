"""Which models an installation may use: settings, names and the commands for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_bundle import CHANNELS, write_bundle

from rtplan.cli.main import run
from rtplan.errors import CaseRejected, LibraryInvalid, SafetyStop
from rtplan.library.models import as_rtplan_error, list_segmenters, load_segmenter, why_unusable
from rtplan.settings import load_settings, settings_path
from segmentation.contract import ModelRefused, ModelUnverified, OutputInvalid

NAMES = "{Lung_L: [lung_low], Lung_R: [lung_high]}"


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_bundle(tmp_path / "Small Bundle 2")


@pytest.fixture
def configured(tmp_path, bundle, capsys, monkeypatch) -> Path:
    """Settings made of what `rtplan models pin` prints, named by RTPLAN_SETTINGS."""
    assert run(["models", "pin", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith("names:"))
    assert lines[start + 1].strip() == "# " + ", ".join(CHANNELS)
    path = tmp_path / "settings.yaml"
    path.write_text("\n".join([*lines[:start], f"      names: {NAMES}", ""]))
    monkeypatch.setenv("RTPLAN_SETTINGS", str(path))
    return path


def settings_of(path: Path):
    return load_settings({"RTPLAN_SETTINGS": str(path)}).models


def test_pinned_bundle_is_listed_and_loaded(configured, bundle, capsys):
    # mutant: pin writes the hash of metadata.json only
    models = settings_of(configured)
    assert load_segmenter("small_bundle", models).labels == ("Lung_L", "Lung_R")
    assert load_segmenter(str(bundle), models).kind == "small_bundle"
    assert why_unusable(load_segmenter("small_bundle", models)) is None
    assert run(["models", "list", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["small_bundle"]["verified"] and rows["small_bundle"]["origin"] == "bundle"
    assert rows["body_threshold"]["origin"] == "shipped"


def test_changed_bundle_is_listed_with_its_fault(configured, bundle, capsys):
    (bundle / "models" / "model.pt").write_bytes(b"another")
    assert run(["models", "list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("small_bundle")]
    assert "MODEL_UNVERIFIED" in line and "models/model.pt" in line


def test_whole_body_table_is_offered_to_the_bundle_it_is_for(tmp_path, capsys):
    from small_bundle import metadata

    table = Path(__file__).parents[2] / "segmentation" / "bundle_tables" / "wholeBody_ct_segmentation.json"
    channels = tuple(json.loads(table.read_text())["channels"])
    assert run(["models", "pin", str(write_bundle(tmp_path / "whole", meta=metadata(channels)))]) == 0
    assert "      table: wholeBody_ct_segmentation" in capsys.readouterr().out.splitlines()


def test_unknown_model_and_unconfigured_path(configured, tmp_path):
    models = settings_of(configured)
    with pytest.raises(LibraryInvalid) as unknown:
        load_segmenter("whole_body", models)
    assert unknown.value.code == "MODEL_UNKNOWN" and "small_bundle" in unknown.value.expected
    other = write_bundle(tmp_path / "other")
    with pytest.raises(CaseRejected) as refused:
        load_segmenter(str(other), models)
    assert refused.value.code == "MODEL_REFUSED"


def test_pin_of_what_is_no_bundle(tmp_path, capsys):
    assert run(["models", "pin", str(tmp_path)]) == 2
    assert "MODEL_UNVERIFIED" in capsys.readouterr().err


def test_errors_route_by_code():
    found = {e: as_rtplan_error(e, "m") for e in (ModelUnverified("a"), ModelRefused("b"), OutputInvalid("c"))}
    assert [(type(error), error.code) for error in found.values()] == [
        (LibraryInvalid, "MODEL_UNVERIFIED"),
        (CaseRejected, "MODEL_REFUSED"),
        (SafetyStop, "MODEL_OUTPUT_INVALID"),
    ]


def test_without_a_file_the_defaults_hold(tmp_path):
    home = {"HOME": str(tmp_path)}
    assert settings_path(home) is None
    assert load_settings(home).models.default == "head_neck_oar"
    usual = tmp_path / ".config" / "rtplan" / "settings.yaml"
    usual.parent.mkdir(parents=True)
    usual.write_text("models:\n  default: body_threshold\n")
    assert load_settings(home).models.default == "body_threshold"


def test_named_settings_must_be_there(tmp_path):
    # mutant: fall back to the defaults
    with pytest.raises(LibraryInvalid) as missing:
        load_settings({"RTPLAN_SETTINGS": str(tmp_path / "absent.yaml")})
    assert missing.value.code == "SETTINGS_INVALID"


BUNDLE = """models:
  bundles:
    - id: small
      path: /srv/small
      weights_file: models/model.pt
      weights_sha256: {sha}
      config_sha256: {sha}
      version: "1"
      names: {{Lung_L: [lung]}}
""".format(sha="0" * 64)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("models:\n", "modles:\n", "line 1, modles"),
        ("      version", "      verison", "line 3, models.bundles[0].version"),
        ("path: /srv", "path: srv", "line 4, models.bundles[0].path"),
        ("models/model.pt", "../model.pt", "line 5, models.bundles[0].weights_file"),
        ('"1"', "1.0", "line 8, models.bundles[0].version"),
        ("Lung_L", "Left_lung", "line 3, models.bundles[0]"),
        ("names: {Lung_L: [lung]}", "table: no_such_table", "line 9, models.bundles[0].table"),
        ("      names: {Lung_L: [lung]}\n", "", "line 3, models.bundles[0]"),
        ("id: small", "id: Small!", "line 3, models.bundles[0].id"),
        ("0000\n      config", "000G\n      config", "line 6, models.bundles[0].weights_sha256"),
    ],
)
def test_mistakes_name_line_and_field(tmp_path, old, new, where):
    path = tmp_path / "settings.yaml"
    path.write_text(BUNDLE)
    settings_of(path)
    assert BUNDLE.count(old) == 1
    path.write_text(BUNDLE.replace(old, new))
    with pytest.raises(LibraryInvalid) as wrong:
        settings_of(path)
    assert wrong.value.code == "SETTINGS_INVALID"
    assert where in wrong.value.found


def test_two_models_of_one_name(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(BUNDLE + BUNDLE.split("bundles:\n")[1])
    with pytest.raises(LibraryInvalid, match="two bundles are called small"):
        settings_of(path)
    path.write_text(BUNDLE.replace("id: small", "id: body_threshold"))
    with pytest.raises(LibraryInvalid, match="SETTINGS_INVALID"):
        list_segmenters(settings_of(path))
