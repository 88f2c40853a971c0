"""Every structure set that could be planned on wrongly is refused by its code, and the message names the place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian
from small_protocol import PROTOCOL
from small_rtstruct import BODY, CORD, GRID, TARGET, Drawing, Roi, block, rectangle, small_ct, write_drawing

from rtplan.dicom.read_rtstruct import read_rtstruct
from rtplan.domain.prescription import OrganRule
from rtplan.domain.structures import StructureSet
from rtplan.errors import CaseRejected
from rtplan.steps.segment import structures_from_contours

CT = small_ct()
PLACE = np.zeros(GRID.shape_zyx, bool)
PLACE[:, 5:55, 7:57] = True  # the body found on the CT, as BODY draws it


def plan_on(path: Path, protocol=PROTOCOL) -> StructureSet:
    return structures_from_contours(read_rtstruct(path, CT), CT, PLACE, protocol)


def refusal(tmp_path: Path, drawing: Drawing, protocol=PROTOCOL) -> CaseRejected:
    path = write_drawing(tmp_path / "RS.dcm", CT, drawing)
    with pytest.raises(CaseRejected) as caught:
        plan_on(path, protocol)
    text = caught.value.line()
    assert CT.series.patient.patient_id not in text
    assert caught.value.found and caught.value.expected
    return caught.value


def target(**slices) -> Roi:
    return replace(TARGET, **slices)


def target_with(k: int, *polygons) -> Roi:
    return replace(TARGET, polygons={**TARGET.polygons, k: list(polygons)})


def edited(edit: Callable[[Dataset], object]) -> Drawing:
    return Drawing(edit=edit)


def first_contour(ds: Dataset, roi: int = 1, contour: int = 1) -> Dataset:
    return ds.ROIContourSequence[roi].ContourSequence[contour]


def set_data(ds: Dataset, change: Callable[[list[str]], list[str]], points: int | None = None) -> None:
    c = first_contour(ds)
    text = "\\".join(change([f"{v:g}" for v in c.ContourData])).encode()
    text += b" " * (len(text) % 2)
    tag = Tag("ContourData")
    c[tag] = RawDataElement(tag, "DS", len(text), text, 0, False, True)  # pydicom itself writes no nonsense
    if points is not None:
        c.NumberOfContourPoints = points


def foreign_image(ds: Dataset) -> None:
    first_contour(ds).ContourImageSequence[0].ReferencedSOPInstanceUID = CT.series.sop_instance_uids[9]


def foreign_series(ds: Dataset) -> None:
    series = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.SeriesInstanceUID = "1.2.826.99.3"


def unknown_image(ds: Dataset) -> None:
    series = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.ContourImageSequence[3].ReferencedSOPInstanceUID = "1.2.826.88.1.99"


def tilted(data: list[str]) -> list[str]:
    return [str(float(v) + 2.0) if i == 2 else v for i, v in enumerate(data)]


EIGHT = [(-11.0, -11.0), (11.0, 11.0), (11.0, -11.0), (-11.0, 11.0)]
SMALL = rectangle(-11, -11, 11, 11)
WITHOUT_6 = replace(TARGET, polygons={k: p for k, p in TARGET.polygons.items() if k != 6})

CASES = {
    "SS-01 between two slices": ("SS_OFF_SLICE", Drawing([BODY, target(z_offset_mm=0.9)]), "z = -7.1 mm"),
    "SS-01 an organ too": ("SS_OFF_SLICE", Drawing([BODY, TARGET, replace(CORD, z_offset_mm=0.12)]), "SpinalCord"),
    "beyond the last slice": (
        "SS_OFF_SLICE",
        Drawing([BODY, TARGET, replace(CORD, z_offset_mm=60.0)]),
        "z = 40 mm; the nearest slice is at 19 mm",
    ),
    "SS-03 open target": ("SS_CONTOUR_TYPE", Drawing([BODY, target(geometric_type="OPEN_PLANAR")]), "OPEN_PLANAR"),
    "SS-03 point target": ("SS_CONTOUR_TYPE", Drawing([BODY, target(geometric_type="POINT")]), "POINT"),
    "SS-04 target slice of two points": ("SS_DEGENERATE", Drawing([BODY, target_with(6, SMALL[:2])]), "z = -2 mm"),
    "SS-04 target slice on a line": ("SS_DEGENERATE", Drawing([BODY, target_with(9, [(0, 0), (3, 3), (9, 9)])]), "z = 7 mm"),
    "SS-04 target contour without points": ("SS_DEGENERATE", Drawing([BODY, target_with(6, [])]), "PTV70"),
    "SS-05 figure of eight": ("SS_SELF_CROSSING", Drawing([BODY, target_with(6, EIGHT)]), "z = -2 mm"),
    "two contours cross": ("SS_SELF_CROSSING", Drawing([BODY, target_with(6, SMALL, rectangle(0, 0, 19, 19))]), "z = -2 mm"),
    "the same contour twice": ("SS_DOUBLED", Drawing([BODY, target_with(6, SMALL, SMALL[::-1])]), "z = -2 mm"),
    "SS-09 target slice missing": ("SS_GAP", Drawing([BODY, WITHOUT_6]), "z = -2 mm"),
    "body slice missing": (
        "SS_GAP",
        Drawing([block("BODY", "EXTERNAL", (-50, -50, 50, 50), [*range(5), *range(6, 14)]), TARGET]),
        "BODY",
    ),
    "SS-11 case and space": ("SS_NAME_AMBIGUOUS", Drawing([BODY, TARGET, target(name="ptv 70")]), "number 3"),
    "SS-11 two bodies": ("SS_NAME_AMBIGUOUS", Drawing([BODY, TARGET, replace(BODY, name="Outline")]), "Outline"),
    "SS-11 organ drawn twice": (
        "SS_NAME_AMBIGUOUS",
        Drawing([BODY, TARGET, CORD, replace(CORD, name="my cord")]),
        "my cord",
    ),
    "two regions for one level": ("SS_NAME_AMBIGUOUS", Drawing([BODY, TARGET, target(name="PTV_7000")]), "PTV_7000"),
    "SS-11 number given twice": (
        "SS_NAME_AMBIGUOUS",
        edited(lambda ds: setattr(ds.StructureSetROISequence[2], "ROINumber", 2)),
        "(3006,0022)",
    ),
    "SS-16 foreign frame": (
        "FOR_MISMATCH",
        edited(lambda ds: setattr(ds, "FrameOfReferenceUID", "1.2.826.99")),
        "(0020,0052)",
    ),
    "SS-16 foreign frame of one region": (
        "FOR_MISMATCH",
        edited(lambda ds: setattr(ds.StructureSetROISequence[1], "ReferencedFrameOfReferenceUID", "1.2.826.99")),
        "(0020,0052)",
    ),
    "SS-17 image of another slice": ("REF_IMAGE_MISMATCH", edited(foreign_image), "z = -5 mm"),
    "SS-17 another series": ("REF_IMAGE_MISMATCH", edited(foreign_series), "(0020,000E)"),
    "SS-17 image that is not there": ("REF_IMAGE_MISMATCH", edited(unknown_image), "1 image"),
    "SS-19 another patient": ("PATIENT_MISMATCH", edited(lambda ds: setattr(ds, "PatientID", "PAT-9")), "(0010,0020)"),
    "SS-28 NaN": ("SS_GEOMETRY_INVALID", edited(lambda ds: set_data(ds, lambda d: ["NaN", *d[1:]])), "decimal"),
    "SS-28 huge": ("SS_GEOMETRY_INVALID", edited(lambda ds: set_data(ds, lambda d: ["1e308", *d[1:]])), "finite"),
    "SS-28 overflow": ("SS_GEOMETRY_INVALID", edited(lambda ds: set_data(ds, lambda d: ["1e999", *d[1:]])), "finite"),
    "SS-28 text": ("SS_GEOMETRY_INVALID", edited(lambda ds: set_data(ds, lambda d: ["1,8", *d[1:]])), "decimal"),
    "SS-28 empty number": ("SS_GEOMETRY_INVALID", edited(lambda ds: set_data(ds, lambda d: ["", *d[1:]])), "decimal"),
    "SS-28 no multiple of 3": ("SS_GEOMETRY_INVALID", edited(lambda ds: set_data(ds, lambda d: d[:-1])), "multiple of 3"),
    "SS-28 count lies": ("SS_GEOMETRY_INVALID", edited(lambda ds: set_data(ds, lambda d: d, 5)), "says 5"),
    "SS-29 not axial": ("SS_NOT_AXIAL", edited(lambda ds: set_data(ds, tilted)), "z = -5 mm to -3 mm"),
    "target beyond the image": ("SS_OUTSIDE_CT", Drawing([BODY, target_with(6, rectangle(-90, -11, 11, 11))]), "z = -2 mm"),
    "another kind of object": (
        "SS_NOT_RTSTRUCT",
        edited(lambda ds: setattr(ds, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.5")),
        "RS.dcm",
    ),
    "observations missing": ("SS_UNREADABLE", edited(lambda ds: delattr(ds, "RTROIObservationsSequence")), "Observations"),
    "region number no number": (
        "SS_UNREADABLE",
        edited(lambda ds: delattr(ds.StructureSetROISequence[1], "ROINumber")),
        "parsed",
    ),
    "SS-27 too many regions": ("SS_TOO_LARGE", Drawing([BODY, TARGET, *[replace(CORD, polygons={})] * 499]), "501 regions"),
    "target absent": ("SS_TARGET_MISSING", Drawing([BODY, CORD]), "PTV_7000 (70 Gy); found: BODY, SpinalCord"),
    "target empty": ("SS_TARGET_EMPTY", Drawing([BODY, target(polygons={})]), "PTV70"),
    "SS-13 target in air": (
        "SS_TARGET_OUTSIDE_BODY",
        Drawing([BODY, block("PTV70", "PTV", (-61, -57, -52, 0), range(4, 8))]),
        "100.0 %",
    ),
    "SS-13 target half in air": (
        "SS_TARGET_OUTSIDE_BODY",
        Drawing([BODY, block("PTV70", "PTV", (-59, -9, -41, 9), range(4, 8))]),
        "PTV70",
    ),
    "SS-15 body drawn on the target": (
        "SS_EXTERNAL_MISMATCH",
        Drawing([block("BODY", "EXTERNAL", (-20, -20, 20, 20), range(14)), TARGET]),
        "16 %",
    ),
    "target that only the protocol knows crosses": (
        "SS_SELF_CROSSING",
        Drawing([BODY, replace(target_with(6, EIGHT), name="Boost", kind="ORGAN")]),
        "z = -2 mm",
    ),
    "target that only the protocol knows has a gap": (
        "SS_GAP",
        Drawing([BODY, replace(WITHOUT_6, name="Boost", kind="")]),
        "z = -2 mm",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused(case: str, tmp_path: Path):
    code, drawing, place = CASES[case]
    error = refusal(tmp_path, drawing)
    assert error.code == code, error.line()
    assert place in error.line()
    assert error.exit_code == 4


def test_the_sound_one_is_not(tmp_path: Path):
    # Without this every case above could be refused for one and the same wrong reason.
    structures = plan_on(write_drawing(tmp_path / "RS.dcm", CT))
    assert structures.names == ("External", "PTV_7000", "SpinalCord")


def test_a_required_organ_that_is_missing_is_refused(tmp_path: Path):
    needs_cord = replace(PROTOCOL, organs=(OrganRule("SpinalCord", ("my cord",), required=True),))
    error = refusal(tmp_path, Drawing([BODY, TARGET]), needs_cord)
    assert error.code == "SS_ORGAN_MISSING"
    assert "SpinalCord" in error.line()


def test_a_target_longer_than_any_field_is_refused(tmp_path: Path):
    ct = small_ct(replace(GRID, spacing_zyx_mm=(30.0, 2.0, 2.0)))
    long_body = block("BODY", "EXTERNAL", (-50, -50, 50, 50), range(14))
    path = write_drawing(tmp_path / "RS.dcm", ct, Drawing([long_body, block("PTV70", "PTV", (-11, -11, 11, 11), range(14))]))
    with pytest.raises(CaseRejected, match=r"TARGET_TOO_LARGE.*420 mm"):
        structures_from_contours(read_rtstruct(path, ct), ct, PLACE, PROTOCOL)


def test_limits_hold_before_memory_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_drawing(tmp_path / "RS.dcm", CT)
    for limit in (
        "rtplan.dicom.rtstruct_items.MAX_CONTOURS",
        "rtplan.dicom.read_rtstruct.MAX_POINTS",
        "rtplan.dicom.rtstruct_contours.MAX_POINTS_OF_CONTOUR",
        "rtplan.dicom.rtstruct_contours.MAX_CONTOURS_ON_SLICE",
        "rtplan.dicom.read_rtstruct.MAX_FILE_BYTES",
        "rtplan.domain.contour_faults.MAX_PAIRS",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(limit, 0 if limit.endswith("ON_SLICE") else 3)
            with pytest.raises(CaseRejected, match="SS_TOO_LARGE"):
                read_rtstruct(path, CT)


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path):
    whole = write_drawing(tmp_path / "RS.dcm", CT).read_bytes()
    ends = np.linspace(1, len(whole) - 1, 60).astype(int).tolist()
    for end in [*ends, len(whole) - 1, len(whole) - 2, 131, 132, 140]:
        (tmp_path / "cut.dcm").write_bytes(whole[:end])
        with pytest.raises(CaseRejected):
            read_rtstruct(tmp_path / "cut.dcm", CT)


def test_damaged_bytes_are_refused_or_change_nothing(tmp_path: Path):
    whole = bytearray(write_drawing(tmp_path / "RS.dcm", CT).read_bytes())
    rng = np.random.default_rng(11)
    refused = 0
    for _ in range(120):
        damaged = bytearray(whole)
        for at in rng.integers(132, len(whole), 6):
            damaged[at] = rng.integers(0, 256)
        (tmp_path / "damaged.dcm").write_bytes(damaged)
        try:
            plan_on(tmp_path / "damaged.dcm")
        except CaseRejected:
            refused += 1
    assert refused > 60


def test_what_is_no_structure_set_is_refused(tmp_path: Path):
    (tmp_path / "note.txt").write_text("not a DICOM file, but long enough to have a preamble" * 10)
    (tmp_path / "empty.dcm").write_bytes(b"")
    for name in ("note.txt", "empty.dcm"):
        with pytest.raises(CaseRejected, match="SS_UNREADABLE"):
            read_rtstruct(tmp_path / name, CT)
    for path in (tmp_path / "nothing.dcm", tmp_path):
        with pytest.raises(CaseRejected, match="FILE_UNREADABLE"):
            read_rtstruct(path, CT)


def test_a_deflated_file_is_never_inflated(tmp_path: Path):
    ds = pydicom.dcmread(write_drawing(tmp_path / "RS.dcm", CT))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(tmp_path / "deflated.dcm")
    with pytest.raises(CaseRejected, match="TRANSFER_SYNTAX_UNSUPPORTED"):
        read_rtstruct(tmp_path / "deflated.dcm", CT)


@pytest.mark.skipif(shutil.which("dcmconv") is None, reason="dcmconv (dcmtk) is not installed")
@pytest.mark.parametrize("option", ["+ti", "+te"])
@pytest.mark.parametrize("lengths", ["+e", "-e"])
def test_the_same_structure_set_in_another_encoding_is_the_same(tmp_path: Path, option: str, lengths: str):
    path = write_drawing(tmp_path / "RS.dcm", CT)
    subprocess.run(["dcmconv", option, lengths, str(path), str(tmp_path / "other.dcm")], check=True)
    one, other = plan_on(path), plan_on(tmp_path / "other.dcm")
    assert one.names == other.names
    assert all(np.array_equal(one[name].mask, other[name].mask) for name in one.names)
