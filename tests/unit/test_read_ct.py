"""A CT series read from files is the volume that was scanned, wherever and however it was stored."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from ct_series import ORIGIN_XYZ_MM, SPACING_ZYX_MM, on_all, on_slice, small_body, write_series
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from rtplan.dicom.read_ct import read_ct
from rtplan.domain.image import CtImage


def codes(ct: CtImage) -> set[str]:
    return {finding.code for finding in ct.findings}


def itk_volume(folder: Path) -> sitk.Image:
    """The same series as ITK sees it, turned to x left, y posterior, z superior."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.DICOMOrient(reader.Execute(), "LPS")


def flipped(rows: bool, columns: bool, reverse: bool):
    """Store the same anatomy with rows or columns running the other way, and slices numbered the other way."""

    def edit(k: int, ds: Dataset) -> None:
        pixels = np.frombuffer(ds.PixelData, "<u2").reshape(ds.Rows, ds.Columns)
        ds.PixelData = np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1]).tobytes()
        x, y, z = (float(v) for v in ds.ImagePositionPatient)
        dy, dx = (float(v) for v in ds.PixelSpacing)
        x, y = x + dx * (ds.Columns - 1) * columns, y + dy * (ds.Rows - 1) * rows
        ds.ImagePositionPatient = [f"{x:g}", f"{y:g}", f"{z:g}"]
        ds.ImageOrientationPatient = ["-1" if columns else "1", "0", "0", "0", "-1" if rows else "1", "0"]
        ds.InstanceNumber = str(k + 1 if reverse else 500 - k)

    return edit


@pytest.mark.parametrize(
    ("shape", "spacing", "edit"),
    [
        ((12, 32, 40), SPACING_ZYX_MM, None),
        ((12, 32, 40), SPACING_ZYX_MM, flipped(False, False, True)),
        ((12, 32, 40), SPACING_ZYX_MM, flipped(True, False, False)),
        ((12, 32, 40), SPACING_ZYX_MM, flipped(False, True, False)),
        ((12, 32, 40), SPACING_ZYX_MM, flipped(True, True, True)),
        ((9, 40, 24), (1.25, 0.9766, 1.9531), None),
        ((9, 40, 24), (1.25, 0.9766, 1.9531), flipped(True, False, True)),
    ],
    ids=["normal", "renumbered", "rows negated", "columns negated", "both negated", "anisotropic", "anisotropic negated"],
)
def test_simpleitk_sees_the_same_voxels_at_the_same_places(tmp_path, shape, spacing, edit) -> None:
    # mutants: no flip of rows; PixelSpacing taken as (x, y); origin of the stored corner kept after a flip
    write_series(tmp_path, small_body(shape), spacing_zyx_mm=spacing, edit=edit)
    ct, itk = read_ct(tmp_path), itk_volume(tmp_path)
    assert np.array_equal(ct.hu, sitk.GetArrayFromImage(itk))
    np.testing.assert_allclose(ct.grid.spacing_zyx_mm[::-1], itk.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(ct.grid.origin_xyz_mm, itk.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(itk.GetDirection(), np.eye(3).ravel(), atol=1e-6)


@pytest.mark.parametrize("edit", [flipped(True, False, False), flipped(False, True, True), flipped(True, True, False)])
def test_stored_direction_does_not_move_the_anatomy(tmp_path, edit) -> None:
    # mutant: sign of the y flip reversed
    write_series(tmp_path / "plain")
    write_series(tmp_path / "flipped", edit=edit)
    plain, other = read_ct(tmp_path / "plain"), read_ct(tmp_path / "flipped")
    assert np.array_equal(plain.hu, other.hu)
    assert plain.grid == other.grid
    assert plain.sha256 == other.sha256


def test_grid_and_identity_are_what_the_files_say(tmp_path) -> None:
    write_series(tmp_path)
    ct = read_ct(tmp_path)
    assert ct.grid.origin_xyz_mm == ORIGIN_XYZ_MM
    assert ct.grid.spacing_zyx_mm == SPACING_ZYX_MM
    assert np.array_equal(ct.hu, small_body())
    assert ct.patient_position == "HFS"
    assert ct.series.patient.name == "Müller^Jörg"
    assert ct.series.patient.patient_id == "PAT-7"
    assert (ct.series.study_date, ct.series.study_id, ct.series.accession_number) == ("20240102", "S1", "A7")
    assert ct.series.frame_of_reference_uid == "1.2.826.77.4"
    assert ct.findings == ()


def test_instance_uids_follow_the_slices_upwards(tmp_path) -> None:
    # mutant: UIDs in the order of the file names
    write_series(tmp_path, name=lambda k: f"{(k * 7) % 12:02d}.dcm")
    assert read_ct(tmp_path).series.sop_instance_uids == tuple(f"1.2.826.77.1.{k + 1}" for k in range(12))


def test_names_folders_and_order_of_files_do_not_change_the_hash(tmp_path) -> None:
    # mutant: sort by InstanceNumber or by name
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", name=lambda k: f"{(k * 5) % 12}/deep/IM{(k * 7) % 12}", edit=lambda k, ds: _renumber(k, ds))
    a, b = read_ct(tmp_path / "a"), read_ct(tmp_path / "b")
    assert a.sha256 == b.sha256
    assert np.array_equal(a.hu, b.hu)


def _renumber(k: int, ds: Dataset) -> None:
    ds.InstanceNumber = str((k * 5) % 12)


@pytest.mark.parametrize(
    "edit",
    [
        on_slice(5, PixelData=b"\1\4" * (32 * 40)),
        on_all(FrameOfReferenceUID="1.2.826.77.5"),
        on_all(PatientID="PAT-8"),
        on_all(PixelSpacing=["2", "2.5"]),
        lambda k, ds: setattr(ds, "ImagePositionPatient", ["-38", *ds.ImagePositionPatient[1:]]),
    ],
    ids=["voxels", "frame of reference", "patient", "spacing", "position"],
)
def test_the_hash_tells_different_series_apart(tmp_path, edit) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", edit=edit)
    assert read_ct(tmp_path / "a").sha256 != read_ct(tmp_path / "b").sha256


def test_rescale_is_applied_slice_by_slice_and_said(tmp_path) -> None:
    # mutant: slope of the first slice for all
    def edit(k: int, ds: Dataset) -> None:
        if k % 2:
            pixels = np.frombuffer(ds.PixelData, "<u2").astype(np.int32)
            ds.PixelData = (pixels * 2 + 50).astype("<u2").tobytes()
            ds.RescaleSlope, ds.RescaleIntercept = "0.5", "-1049"

    write_series(tmp_path, edit=edit)
    ct = read_ct(tmp_path)
    assert np.array_equal(ct.hu, small_body())
    assert codes(ct) == {"RESCALE_VARIES"}


def _transfer(syntax: str):
    def edit(k: int, ds: Dataset) -> None:
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.set_original_encoding(False, False)
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()

    return edit


def _signed(k: int, ds: Dataset) -> None:
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2").astype(np.int32) - 1024).astype("<i2").tobytes()
    ds.PixelRepresentation, ds.RescaleIntercept = 1, "0"


def _rle(k: int, ds: Dataset) -> None:
    from pydicom.uid import RLELossless

    ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


@pytest.mark.parametrize("edit", [_transfer(ImplicitVRLittleEndian), _transfer(ExplicitVRBigEndian), _signed, _rle])
def test_encoding_does_not_change_the_voxels(tmp_path, edit) -> None:
    # mutants: big-endian words read as little-endian; signed words read as unsigned
    write_series(tmp_path, edit=edit)
    ct = read_ct(tmp_path)
    assert np.array_equal(ct.hu, small_body())


@pytest.mark.parametrize(
    ("stored", "declared", "found"),
    [(60_000, 60_000, "PADDING_AS_AIR"), (0, 0, "PADDING_AS_AIR"), (0, None, "HU_BELOW_AIR")],
)
def test_padding_becomes_air_and_is_said(tmp_path, stored, declared, found) -> None:
    # mutant: padding kept as HU
    def edit(k: int, ds: Dataset) -> None:
        pixels = np.frombuffer(ds.PixelData, "<u2").copy()
        pixels += 976  # intercept -2000, so that 0 is far below air
        ds.RescaleIntercept = "-2000"
        pixels[:8] = stored
        ds.PixelData = pixels.tobytes()
        if declared is not None:
            ds.add_new("PixelPaddingValue", "US", declared)

    write_series(tmp_path, edit=edit)
    ct = read_ct(tmp_path)
    assert codes(ct) == {found}
    assert set(ct.hu[:, 0, :8].ravel().tolist()) <= {-1000, -1024}
    assert np.array_equal(ct.hu[:, 1:], small_body()[:, 1:])


def test_padding_declared_as_water_does_not_turn_water_to_air(tmp_path) -> None:
    # mutant: any declared padding value becomes air; every voxel of exactly 20 HU would be a hole in the patient
    write_series(tmp_path, edit=lambda k, ds: ds.add_new("PixelPaddingValue", "US", 1044))
    assert np.array_equal(read_ct(tmp_path).hu, small_body())


def test_an_exact_duplicate_counts_once(tmp_path) -> None:
    paths = write_series(tmp_path)
    shutil.copy(paths[3], tmp_path / "copy of slice_03.dcm")
    ct = read_ct(tmp_path)
    assert ct.grid.shape_zyx[0] == 12
    assert codes(ct) == {"DUPLICATE_IGNORED"}


def test_bystanders_are_passed_over(tmp_path) -> None:
    write_series(tmp_path)
    (tmp_path / "README.txt").write_text("not an image")
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    ct = read_ct(tmp_path)
    [finding] = ct.findings
    assert finding.code == "FILE_IGNORED"
    assert "README.txt" in finding.message


def test_rt_objects_beside_the_ct_are_passed_over_quietly(tmp_path) -> None:
    def as_structure_set(k: int, ds: Dataset) -> object:
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
        ds.Modality = "RTSTRUCT"
        del ds.PixelData
        return k == 0

    write_series(tmp_path / "ct")
    write_series(tmp_path / "rs", edit=as_structure_set)
    assert read_ct(tmp_path).findings == ()


def test_a_localizer_is_dropped_and_said(tmp_path) -> None:
    def scout(k: int, ds: Dataset) -> object:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.826.77.99"
        ds.ImageOrientationPatient = ["1", "0", "0", "0", "0", "-1"]
        return k == 0

    write_series(tmp_path)
    write_series(tmp_path, edit=scout, name=lambda k: "scout.dcm")
    ct = read_ct(tmp_path)
    assert codes(ct) == {"LOCALIZER_DROPPED"}
    assert ct.grid.shape_zyx[0] == 12


@pytest.mark.parametrize(
    ("edit", "code", "severity"),
    [
        (on_all(SliceThickness="5"), "SLICE_DISTANCE_CONTRADICTED", "flag"),
        (on_all(SpacingBetweenSlices="1.5"), "SLICE_DISTANCE_CONTRADICTED", "flag"),
        (on_all(ImageType=["DERIVED", "SECONDARY", "AXIAL"]), "CT_DERIVED", "flag"),
        (on_all(ImageType=["DERIVED", "SECONDARY", "AVERAGE"]), "CT_PROJECTED", "hold"),
        (on_slice(4, ConvolutionKernel="B70"), "SERIES_HETEROGENEOUS", "hold"),
        (on_slice(4, PixelData=b"\xff\x1f" * 1280), "METAL_ARTEFACT", "flag"),
    ],
)
def test_what_a_reviewer_must_know_is_a_finding(tmp_path, edit, code, severity) -> None:
    write_series(tmp_path, edit=edit)
    [finding] = read_ct(tmp_path).findings
    assert (finding.code, finding.severity) == (code, severity)


def test_rounded_positions_are_one_spacing(tmp_path) -> None:
    def rounded(k: int, ds: Dataset) -> None:
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], f"{-120 + 0.625 * k:.2f}"]
        ds.SliceThickness = "0.625"

    write_series(tmp_path, edit=rounded)
    assert read_ct(tmp_path).grid.spacing_zyx_mm[0] == pytest.approx(0.625, abs=1e-3)


def test_a_long_decimal_string_is_read(tmp_path) -> None:
    """Some scanners write more than the 16 characters of the standard; the value is clear all the same."""
    write_series(tmp_path, edit=on_all(PixelSpacing=["2.00000000000000000", "2.00000000000000000"]))
    assert read_ct(tmp_path).grid.spacing_zyx_mm == SPACING_ZYX_MM
