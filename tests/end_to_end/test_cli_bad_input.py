"""Bad input by the door that a user takes: a code, exit 4, one line, and nothing written but the verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from rtplan.cli.main import run

SAMPLE = Path(__file__).resolve().parents[2] / "sample_data" / "tg119_multi_target"
MIDDLE = "CT_034.dcm"


@dataclass(frozen=True)
class Case:
    """A copy of a good case that can be broken."""

    ct: Path
    structures: Path

    def edit(self, change: Callable[[Dataset], object], names: tuple[str, ...] = (MIDDLE,)) -> None:
        for path in [self.ct / name for name in names] if names else sorted(self.ct.iterdir()):
            rewrite(path, change)

    def edit_structures(self, change: Callable[[Dataset], object]) -> None:
        rewrite(self.structures, change)


def rewrite(path: Path, change: Callable[[Dataset], object]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    path.unlink()  # the copy is a hard link to the sample
    data.save_as(path)


def put(**values) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        for keyword, value in values.items():
            setattr(data, keyword, value)

    return change


def empty_every_target(data: Dataset) -> None:
    for item in data.ROIContourSequence:
        if "ContourSequence" in item:
            del item.ContourSequence


def move_contours(data: Dataset) -> None:
    for item in data.ROIContourSequence:
        for contour in item.ContourSequence:
            points = list(contour.ContourData)
            points[2::3] = [float(z) + 0.7 for z in points[2::3]]
            contour.ContourData = points


def only_junk(case: Case) -> None:
    for path in list(case.ct.iterdir()):
        path.unlink()
    (case.ct / "notes.txt").write_text("no image")


MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
EVERY: tuple[str, ...] = ()
BROKEN: dict[str, tuple[Callable[[Case], object], str]] = {
    "slice_missing": (lambda c: (c.ct / MIDDLE).unlink(), "CT_SLICE_GAP"),
    "two_series": (lambda c: c.edit(put(SeriesInstanceUID="1.2.3")), "SERIES_AMBIGUOUS"),
    "tilt": (lambda c: c.edit(put(GantryDetectorTilt="8"), EVERY), "CT_TILT"),
    "no_position": (lambda c: c.edit(put(PatientPosition=""), EVERY), "ORIENTATION_UNKNOWN"),
    "feet_first": (lambda c: c.edit(put(PatientPosition="FFS"), EVERY), "ORIENTATION_UNSUPPORTED"),
    "prone": (lambda c: c.edit(put(PatientPosition="HFP"), EVERY), "ORIENTATION_UNSUPPORTED"),
    "zero_orientation": (lambda c: c.edit(put(ImageOrientationPatient=[0, 0, 0, 0, 0, 0])), "GEOMETRY_INVALID"),
    "mixed_orientation": (
        lambda c: c.edit(put(ImageOrientationPatient=[1, 0, 0, 0, 0.995, 0.0998])),
        "CT_ORIENTATION_MIXED",
    ),
    "mixed_spacing": (lambda c: c.edit(put(PixelSpacing=[2.0, 2.0])), "GEOMETRY_INVALID"),
    "mixed_patient": (lambda c: c.edit(put(PatientID="SOMEONE-ELSE")), "PATIENT_MIXED"),
    "mixed_frame": (lambda c: c.edit(put(FrameOfReferenceUID="1.2.3")), "FOR_MIXED"),
    "no_slope": (lambda c: c.edit(lambda d: d.__delattr__("RescaleSlope")), "RESCALE_MISSING"),
    "magnetic": (lambda c: c.edit(put(Modality="MR", SOPClassUID=MR_IMAGE), EVERY), "MODALITY_UNSUPPORTED"),
    "cut_pixels": (lambda c: c.edit(lambda d: put(PixelData=d.PixelData[:1000])(d)), "PIXELDATA_TRUNCATED"),
    "junk_alone": (only_junk, "NO_CT_FOUND"),
    "no_targets": (lambda c: c.edit_structures(empty_every_target), "SS_TARGET_EMPTY"),
    "foreign_frame": (
        lambda c: c.edit_structures(lambda d: put(FrameOfReferenceUID="1.2.3")(d.ReferencedFrameOfReferenceSequence[0])),
        "FOR_MISMATCH",
    ),
    "off_slice": (lambda c: c.edit_structures(move_contours), "SS_OFF_SLICE"),
    "other_patient": (lambda c: c.edit_structures(put(PatientID="SOMEONE-ELSE")), "PATIENT_MISMATCH"),
    "structures_are_a_ct": (lambda c: (c.structures.unlink(), os.link(c.ct / MIDDLE, c.structures)), "SS_NOT_RTSTRUCT"),
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every broken case in a folder of its own, and a manifest that lists them in order, then two unknown names."""
    root = tmp_path_factory.mktemp("bad")
    rows = ["ct,structures,protocol,machine"]
    for name, (spoil, _) in BROKEN.items():
        case = Case(root / name / "CT", root / name / "RS.dcm")
        case.ct.mkdir(parents=True)
        for path in (SAMPLE / "CT").iterdir():
            os.link(path, case.ct / path.name) if path.stat().st_dev == root.stat().st_dev else copy(path, case.ct)
        copy(SAMPLE / "RS.dcm", root / name)
        spoil(case)
        rows.append(f"{name}/CT,{name}/RS.dcm,tg119_multi_target,generic_6mv")
    rows.append(f"{SAMPLE}/CT,{SAMPLE}/RS.dcm,no_such_protocol,generic_6mv")
    rows.append(f"{SAMPLE}/CT,{SAMPLE}/RS.dcm,tg119_multi_target,no_such_machine")
    # A level of this protocol has no target in the structure set.
    rows.append(f"{SAMPLE}/CT,{SAMPLE}/RS.dcm,prostate_60_20,generic_6mv")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def copy(path: Path, folder: Path) -> None:
    (folder / path.name).write_bytes(path.read_bytes())


def test_every_broken_case_is_rejected_with_its_code_and_nothing_but_a_verdict(cases: Path):
    # mutant: leave the staging folder behind; drop a check of the reader
    out = cases / "out"
    assert run(["batch", str(cases / "manifest.csv"), "-o", str(out), "--jobs", "2"]) == 4
    records = json.loads((out / "outcomes.json").read_text())
    expected = [(name, code) for name, (_, code) in BROKEN.items()]
    expected += [
        ("no_such_protocol", "PROTOCOL_UNKNOWN"),
        ("no_such_machine", "MACHINE_UNKNOWN"),
        ("absent", "SS_TARGET_MISSING"),
    ]
    wrong = [
        f"{name}: {record['outcome']} {record['message']}"
        for (name, code), record in zip(expected, records, strict=True)
        if record["outcome"] != "rejected" or code != record["code"]
    ]
    assert not wrong, "\n".join(wrong)
    for record in records:
        folder = out / record["case"]
        assert [p.name for p in folder.iterdir()] == ["verdict.json"]
        verdict = json.loads((folder / "verdict.json").read_text())
        assert verdict["outcome"] == "rejected"
        assert verdict["code"] == record["code"]
        assert verdict["found"]


def test_one_patient_by_hand_ends_in_one_line_and_exit_code_4(cases: Path, tmp_path: Path):
    case = cases / "slice_missing"
    arguments = ["--structures", case / "RS.dcm", "--protocol", "tg119_multi_target", "--machine", "generic_6mv"]
    command = [sys.executable, "-m", "rtplan", "plan", case / "CT", *arguments, "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 4
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("ingest")]
    assert line.startswith("rtplan: CT_SLICE_GAP: ")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["verdict.json"]
