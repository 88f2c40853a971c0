"""A CT series with one defect is refused with its code, and the message names the slice or tag at fault."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ct_series import SPACING_ZYX_MM, on_all, on_slice, write_series
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless

from rtplan.dicom.read_ct import read_ct
from rtplan.errors import CaseRejected

Z5 = "z = -105 mm (file slice_05.dcm)"  # slice 5 of the synthetic series


def leave_out(*numbers: int):
    return lambda k, ds: k not in numbers


def at_z(z_mm: Callable[[int], float]):
    def edit(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], f"{z_mm(k):g}"]

    return edit


def without_position_tag(k: int, ds: Dataset) -> None:
    if k == 5:
        del ds.ImagePositionPatient


def sheared(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = [ds.ImagePositionPatient[0], f"{-31 + 0.3 * k:g}", ds.ImagePositionPatient[2]]


def other_matrix(k: int, ds: Dataset) -> None:
    if k == 5:
        ds.Rows, ds.PixelData = 30, ds.PixelData[: 30 * 40 * 2]


def compressed(syntax: str):
    def edit(k: int, ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd"
        ds["PixelData"].is_undefined_length = True

    return edit


def as_class(sop_class: str, modality: str, only: int | None = None):
    def edit(k: int, ds: Dataset) -> None:
        if only in (None, k):
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
            ds.Modality = modality

    return edit


def wrapped_sign(k: int, ds: Dataset) -> None:
    """Signed HU whose PixelRepresentation says unsigned: air becomes 64536."""
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2").astype(np.int32) - 1024).astype("<i2").tobytes()
    ds.RescaleIntercept = "0"


CASES = {
    # CT-01, 13: distances
    "slice missing": (leave_out(5), "CT_SLICE_GAP", "z = -105 mm"),
    "two slices missing": (leave_out(5, 6), "CT_SLICE_GAP", "2 missing"),
    "two distances": (
        at_z(lambda k: -120 + 3.0 * min(k, 6) + 1.5 * max(k - 6, 0)),
        "CT_SPACING_NONUNIFORM",
        "from 1.5 to 3 mm",
    ),
    "one slice shifted": (at_z(lambda k: -120 + 3.0 * k + (0.8 if k == 5 else 0)), "CT_SPACING_NONUNIFORM", "file slice_0"),
    "slow drift": (at_z(lambda k: -120 + 3.0 * k + 0.02 * k * k), "CT_SPACING_NONUNIFORM", "slice distances"),
    "two slices at one place": (at_z(lambda k: -120 + 3.0 * (k - (k == 5))), "CT_POSITION_DUPLICATE", "slice_05.dcm"),
    "two slices only": (leave_out(*range(2, 12)), "CT_TOO_FEW_SLICES", "2 slice"),
    # CT-05: one UID, two contents
    "one UID twice": (on_slice(5, SOPInstanceUID="1.2.826.77.1.4"), "UID_CONFLICT", "slice_05.dcm"),
    "no UID": (on_slice(5, SOPInstanceUID=""), "UID_INVALID", Z5),
    "path as UID": (on_slice(5, SOPInstanceUID="../../etc/passwd"), "UID_INVALID", "SOPInstanceUID (0008,0018)"),
    # CT-07, 52, 53, 55, 57: whose images these are
    "two series": (on_slice(5, SeriesInstanceUID="1.2.3"), "SERIES_AMBIGUOUS", Z5),
    "two studies": (on_slice(5, StudyInstanceUID="1.2.3"), "STUDY_MIXED", Z5),
    "two patients": (on_slice(5, PatientID="PAT-8"), "PATIENT_MIXED", Z5),
    "two names": (on_slice(5, PatientName="Other^One"), "PATIENT_IDENTITY_CONFLICT", Z5),
    "two birth dates": (on_slice(5, PatientBirthDate="19500204"), "PATIENT_IDENTITY_CONFLICT", "(0010,0030)"),
    "no patient ID": (on_all(PatientID=""), "PATIENT_ID_MISSING", "(0010,0020)"),
    "two frames of reference": (on_slice(5, FrameOfReferenceUID="1.2.3"), "FOR_MIXED", Z5),
    "no frame of reference": (on_slice(5, FrameOfReferenceUID=None), "FOR_MISSING", Z5),
    # CT-12, 77: tilt and shear
    "tilted orientation": (
        on_all(ImageOrientationPatient=["1", "0", "0", "0", "0.996195", "-0.087156"]),
        "CT_TILT",
        "ImageOrientationPatient (0020,0037)",
    ),
    "tilted gantry": (on_slice(5, GantryDetectorTilt="12.5"), "CT_TILT", "12.5 degrees"),
    "sheared stack": (sheared, "CT_STACK_SHEAR", "beside the other slices"),
    # CT-19 and other positions
    "position missing": (on_all(PatientPosition=None), "ORIENTATION_UNKNOWN", "PatientPosition (0018,5100)"),
    "position empty": (on_slice(5, PatientPosition=""), "ORIENTATION_UNKNOWN", Z5),
    "feet first": (on_all(PatientPosition="FFS"), "ORIENTATION_UNSUPPORTED", "FFS"),
    "prone": (on_all(PatientPosition="HFP"), "ORIENTATION_UNSUPPORTED", "HFP"),
    # CT-23 to 25, 27, 28: numbers of the geometry
    "no unit vector": (on_slice(5, ImageOrientationPatient=["0.9", "0", "0", "0", "1", "0"]), "GEOMETRY_INVALID", Z5),
    "not perpendicular": (on_slice(5, ImageOrientationPatient=["1", "0", "0", "1", "0", "0"]), "GEOMETRY_INVALID", Z5),
    "zero vector": (on_slice(5, ImageOrientationPatient=["0"] * 6), "GEOMETRY_INVALID", "(0020,0037)"),
    "five cosines": (on_slice(5, ImageOrientationPatient=["1", "0", "0", "0", "1"]), "GEOMETRY_INVALID", Z5),
    "NaN cosine": (on_slice(5, ImageOrientationPatient=["nan", "0", "0", "0", "1", "0"]), "GEOMETRY_INVALID", Z5),
    "NaN position": (on_slice(5, ImagePositionPatient=["nan", "0", "0"]), "GEOMETRY_INVALID", "slice_05.dcm"),
    "infinite position": (on_slice(5, ImagePositionPatient=["0", "0", "1e400"]), "GEOMETRY_INVALID", "(0020,0032)"),
    "ten kilometres away": (on_all(ImagePositionPatient=["10000000", "0", "0"]), "GEOMETRY_INVALID", "(0020,0032)"),
    "no position": (without_position_tag, "GEOMETRY_INVALID", "slice_05.dcm"),
    "orientation of one slice": (
        on_slice(5, ImageOrientationPatient=["1", "0", "0", "0", "-1", "0"]),
        "CT_ORIENTATION_MIXED",
        Z5,
    ),
    "spacing of one slice": (on_slice(5, PixelSpacing=["2", "2.1"]), "GEOMETRY_INVALID", "PixelSpacing (0028,0030)"),
    "zero spacing": (on_all(PixelSpacing=["0", "2"]), "GEOMETRY_INVALID", "(0028,0030)"),
    "negative spacing": (on_all(PixelSpacing=["2", "-2"]), "GEOMETRY_INVALID", "(0028,0030)"),
    "no spacing": (on_slice(5, PixelSpacing=None), "GEOMETRY_INVALID", Z5),
    "rows of one slice": (other_matrix, "CT_MATRIX_MIXED", Z5),
    "absurd matrix": (on_all(Rows=65535, Columns=65535), "GEOMETRY_INVALID", "65535 x 65535"),
    "sagittal": (on_all(ImageOrientationPatient=["0", "1", "0", "0", "0", "-1"]), "CT_NOT_AXIAL", "(0020,0037)"),
    "coronal": (on_all(ImageOrientationPatient=["1", "0", "0", "0", "0", "-1"]), "CT_NOT_AXIAL", "(0020,0037)"),
    "oblique": (on_all(ImageOrientationPatient=["0.8", "0.6", "0", "-0.6", "0.8", "0"]), "CT_NOT_AXIAL", "(0020,0037)"),
    # CT-31, 33 and other modalities
    "screenshot": (as_class("1.2.840.10008.5.1.4.1.1.7", "CT", only=5), "SOPCLASS_MISMATCH", "slice_05.dcm"),
    "MR class, CT modality": (as_class("1.2.840.10008.5.1.4.1.1.4", "CT"), "SOPCLASS_MISMATCH", "(0008,0016)"),
    "CT class, MR modality": (as_class("1.2.840.10008.5.1.4.1.1.2", "MR"), "SOPCLASS_MISMATCH", "(0008,0060)"),
    "enhanced CT": (as_class("1.2.840.10008.5.1.4.1.1.2.1", "CT"), "SOPCLASS_UNSUPPORTED", "enhanced"),
    "several frames": (on_slice(5, NumberOfFrames="2"), "SOPCLASS_UNSUPPORTED", Z5),
    "MR": (as_class("1.2.840.10008.5.1.4.1.1.4", "MR"), "MODALITY_UNSUPPORTED", "MR"),
    "PET": (as_class("1.2.840.10008.5.1.4.1.1.128", "PT"), "MODALITY_UNSUPPORTED", "PT"),
    "one MR image in the series": (
        as_class("1.2.840.10008.5.1.4.1.1.4", "MR", only=5),
        "MODALITY_UNSUPPORTED",
        "slice_05.dcm",
    ),
    # CT-35 to 49: pixels
    "lossy flag": (on_slice(5, LossyImageCompression="01"), "CT_LOSSY", Z5),
    "lossy JPEG": (compressed(JPEGBaseline8Bit), "CT_LOSSY", "slice_00.dcm"),
    "JPEG-LS": (compressed(JPEGLSLossless), "TRANSFER_SYNTAX_UNSUPPORTED", "(0002,0010)"),
    "no slope": (on_slice(5, RescaleSlope=None), "RESCALE_MISSING", "RescaleSlope (0028,1053)"),
    "no intercept": (on_all(RescaleIntercept=None), "RESCALE_MISSING", "RescaleIntercept (0028,1052)"),
    "slope zero": (on_slice(5, RescaleSlope="0"), "RESCALE_INVALID", Z5),
    "slope negative": (on_all(RescaleSlope="-1"), "RESCALE_INVALID", "(0028,1053)"),
    "slope NaN": (on_all(RescaleSlope="nan"), "RESCALE_INVALID", "(0028,1053)"),
    "not HU": (on_slice(5, RescaleType="US"), "HU_UNITS", "RescaleType (0028,1054)"),
    "inverted": (on_all(PhotometricInterpretation="MONOCHROME1"), "PHOTOMETRIC", "MONOCHROME1"),
    "high bit": (on_slice(5, HighBit=14), "BITDEPTH", Z5),
    "32 bits": (on_all(BitsAllocated=32), "BITDEPTH", "32/16/15"),
    "overlay bits": (on_slice(5, BitsStored=12, HighBit=11, PixelData=b"\x00\xf4" * 1280), "BITDEPTH", Z5),
    "wrapped sign": (wrapped_sign, "HU_IMPLAUSIBLE", "(0028,0103)"),
    "intercept forgotten": (on_all(RescaleIntercept="0"), "HU_IMPLAUSIBLE", "air"),
    "intercept twice": (on_all(RescaleIntercept="-2048"), "HU_IMPLAUSIBLE", "soft tissue"),
    "pixels short": (on_slice(5, PixelData=b"\0\4" * 1200), "PIXELDATA_TRUNCATED", Z5),
    "pixels missing": (on_slice(5, PixelData=None), "PIXELDATA_TRUNCATED", "PixelData (7FE0,0010)"),
    "pixels too long": (on_slice(5, PixelData=b"\0\4" * 1290), "PIXELDATA_EXCESS", "20 too many"),
    # CT-60, 61: malformed values
    "two slopes": (on_slice(5, RescaleSlope=["1", "2"]), "VR_INVALID", "slice_05.dcm"),
    "200-character number": (on_slice(5, RescaleSlope="1." + "0" * 200), "VR_INVALID", "slice_05.dcm"),
    "underscored number": (on_slice(5, RescaleIntercept="-1_024"), "VR_INVALID", "slice_05.dcm"),
    "two row counts": (on_slice(5, Rows=[32, 32]), "VR_INVALID", "Rows (0028,0010)"),
}


@pytest.mark.parametrize(("edit", "code", "named"), CASES.values(), ids=CASES.keys())
def test_a_series_with_one_defect_is_refused(tmp_path: Path, edit, code: str, named: str) -> None:
    write_series(tmp_path, edit=edit)
    rejected(tmp_path, code, named)


def rejected(folder: Path, code: str, named: str) -> None:
    with pytest.raises(CaseRejected) as caught:
        read_ct(folder)
    assert caught.value.code == code, caught.value.line()
    assert named in caught.value.found
    assert "PAT-" not in caught.value.line(), "an identifier stands in the message"


def test_the_series_without_a_defect_is_accepted(tmp_path: Path) -> None:
    """Else every case above could be refused for a reason they share."""
    write_series(tmp_path)
    assert read_ct(tmp_path).grid.spacing_zyx_mm == SPACING_ZYX_MM


def _patched(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    paths[5].write_bytes(paths[5].read_bytes()[:-100])
    rejected(tmp_path, "PIXELDATA_TRUNCATED", Z5)


def test_a_file_cut_in_its_header_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    paths[5].write_bytes(paths[5].read_bytes()[:700])
    with pytest.raises(CaseRejected) as caught:
        read_ct(tmp_path)
    assert "slice_05.dcm" in caught.value.found


def test_a_length_beyond_the_end_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    _patched(paths[5], b"\x10\x00\x20\x00LO\x06\x00", b"\x10\x00\x20\x00LO\xff\xff")
    rejected(tmp_path, "DATASET_MALFORMED", "slice_05.dcm")


def test_a_repeated_tag_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    tag = b"\x10\x00\x20\x00LO\x06\x00PAT-7 "
    _patched(paths[5], tag, tag + tag.replace(b"7", b"8"))
    rejected(tmp_path, "DATASET_MALFORMED", "(0010,0020)")


def test_rows_of_the_wrong_type_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    _patched(paths[5], b"\x28\x00\x10\x00US\x02\x00\x20\x00", b"\x28\x00\x10\x00UL\x04\x00\x20\x00\x04\x00")
    rejected(tmp_path, "VR_INVALID", "Rows (0028,0010) in slice_05.dcm")


def test_a_number_under_another_type_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    _patched(paths[5], b"\x28\x00\x53\x10DS", b"\x28\x00\x53\x10LO")
    rejected(tmp_path, "VR_INVALID", "RescaleSlope (0028,1053) in slice_05.dcm")


def test_text_in_place_of_a_number_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    _patched(paths[5], b"\x28\x00\x53\x10DS\x02\x001 ", b"\x28\x00\x53\x10DS\x02\x00l ")
    rejected(tmp_path, "VR_INVALID", "RescaleSlope (0028,1053) in slice_05.dcm")


def test_an_encoding_other_than_declared_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    _patched(paths[5], b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x14\x001.2.840.10008.1.2\0\0\0")
    rejected(tmp_path, "TS_MISMATCH", "slice_05.dcm")


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    paths = write_series(tmp_path, edit=lambda k, ds: k != 5 or _deflate(ds))
    assert len(paths) == 12
    rejected(tmp_path, "TRANSFER_SYNTAX_UNSUPPORTED", "slice_05.dcm")


def _deflate(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def test_rle_pixels_of_garbage_are_refused(tmp_path: Path) -> None:
    from pydicom.uid import RLELossless

    write_series(tmp_path, edit=compressed(RLELossless))
    rejected(tmp_path, "PIXELDATA_TRUNCATED", "slice_00.dcm")


def test_a_slice_without_preamble_is_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    paths[5].write_bytes(paths[5].read_bytes()[132:])
    rejected(tmp_path, "NOT_DICOM", "slice_05.dcm")


@pytest.mark.parametrize("name", ["broken.dcm", "IM0007", "1.2.840.77.5"])
def test_an_unreadable_file_that_may_be_a_slice_is_refused(tmp_path: Path, name: str) -> None:
    write_series(tmp_path)
    (tmp_path / name).write_bytes(b"")
    rejected(tmp_path, "NOT_DICOM", name)


@pytest.mark.parametrize("names", [[], ["README.txt"], ["notes.txt", "broken.dcm"]])
def test_a_folder_without_dicom_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("no image")
    rejected(tmp_path, "NO_CT_FOUND", "no DICOM image")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    rejected(tmp_path / "absent", "FOLDER_UNREADABLE", "absent")


def test_a_broken_link_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    (tmp_path / "slice_99.dcm").symlink_to(tmp_path / "nowhere.dcm")
    rejected(tmp_path, "FILE_UNREADABLE", "slice_99.dcm")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    write_series(tmp_path)
    os.mkfifo(tmp_path / "slice_99.dcm")
    rejected(tmp_path, "FILE_UNREADABLE", "slice_99.dcm")


def test_a_linked_folder_is_not_followed_and_said(tmp_path: Path) -> None:
    write_series(tmp_path / "ct")
    write_series(tmp_path / "other", edit=on_all(PatientID="PAT-8"))
    (tmp_path / "ct" / "link").symlink_to(tmp_path / "other")
    assert [f.code for f in read_ct(tmp_path / "ct").findings] == ["LINK_IGNORED"]


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    with paths[5].open("r+b") as stream:
        stream.truncate((1 << 30) + 1)  # sparse: takes no room
    rejected(tmp_path, "FILE_TOO_LARGE", "slice_05.dcm")


def test_a_million_elements_are_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    many = b"".join(struct.pack("<HH2sH", 0x0009, 0x1000 + i, b"LO", 0) for i in range(30_000))
    _patched(paths[5], b"\x10\x00\x10\x00PN", many + b"\x10\x00\x10\x00PN")
    rejected(tmp_path, "DATASET_MALFORMED", "elements")
