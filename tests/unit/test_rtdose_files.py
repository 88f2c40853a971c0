"""What rtplan writes as RT Dose, read back by itself, by SimpleITK and by dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from small_plan import DOSE_GRID, NOW, ct, dose

from rtplan.dicom.read_rtdose import read_rtdose
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtdose import quantised, write_rtdose
from rtplan.domain.dose import Dose
from rtplan.domain.grid import Grid
from rtplan.errors import CaseRejected, SafetyStop

IDS = new_output_ids(NOW)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dose") / "RTDOSE.dcm"
    write_rtdose(path, dose(), ct(), IDS)
    return path


def test_a_dose_comes_back_within_half_a_quantum(file: Path):
    # mutant: swap rows and columns of PixelSpacing; floor instead of round
    found, meant = read_rtdose(file), dose()
    assert found.grid == DOSE_GRID
    quantum = float(pydicom.dcmread(file).DoseGridScaling)
    assert quantum <= 0.0005 * meant.dose_gy.max()
    assert np.abs(found.dose_gy - meant.dose_gy).max() <= 0.5 * quantum + 1e-5


def test_simpleitk_sees_the_same_dose_in_the_same_place(file: Path):
    image = SimpleITK.ReadImage(str(file))
    np.testing.assert_allclose(image.GetOrigin(), DOSE_GRID.origin_xyz_mm, rtol=0, atol=1e-5)
    np.testing.assert_allclose(image.GetSpacing(), DOSE_GRID.spacing_zyx_mm[::-1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), rtol=0, atol=1e-9)
    scaled = SimpleITK.GetArrayFromImage(image) * float(image.GetMetaData("3004|000e"))
    np.testing.assert_allclose(scaled, dose().dose_gy, rtol=0, atol=1e-3)


def test_the_dose_belongs_to_its_plan_and_ct(file: Path):
    dataset = pydicom.dcmread(file)
    assert (dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType) == ("GY", "PHYSICAL", "PLAN")
    assert dataset.TissueHeterogeneityCorrection == "IMAGE"
    assert dataset.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == IDS.plan_uid
    assert dataset.FrameOfReferenceUID == ct().series.frame_of_reference_uid
    assert dataset.StudyInstanceUID == ct().series.study_instance_uid
    assert "NOT APPROVED" in dataset.DoseComment


def test_dciodvfy_finds_no_error(file: Path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    assert "RTDose" in done.stderr + done.stdout
    assert [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("maximum", [1e-6, 0.3, 74.9999, 1234.5, 65535.0, 1e5])
def test_the_maximum_never_overflows(maximum: float):
    # mutant: maximum / 65536 as the quantum
    values = np.linspace(0, maximum, 4000, dtype=np.float32).reshape(10, 20, 20)
    scaling, stored = quantised(values)
    assert len(scaling) <= 16
    assert stored.max() == 65535
    np.testing.assert_allclose(stored * float(scaling), values, rtol=0, atol=0.51 * maximum / 65535)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1])
def test_an_impossible_dose_is_never_written(tmp_path: Path, bad: float):
    values = dose().dose_gy.copy()
    values[3, 4, 5] = bad
    with pytest.raises(SafetyStop, match="DOSE_IMPLAUSIBLE"):
        write_rtdose(tmp_path / "d.dcm", Dose(DOSE_GRID, values), ct(), IDS)
    with pytest.raises(SafetyStop, match="DOSE_IMPLAUSIBLE"):
        write_rtdose(tmp_path / "d.dcm", Dose(DOSE_GRID, np.zeros(DOSE_GRID.shape_zyx)), ct(), IDS)
    assert not (tmp_path / "d.dcm").exists()


def edited(file: Path, tmp_path: Path, change: Callable[[Dataset], object]) -> Path:
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(tmp_path / "d.dcm")
    return tmp_path / "d.dcm"


def flip(dataset: Dataset) -> None:
    frames = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.NumberOfFrames, -1)
    dataset.PixelData = frames[::-1].tobytes()
    offsets = [float(v) for v in dataset.GridFrameOffsetVector]
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, float(z) + offsets[-1]]
    dataset.GridFrameOffsetVector = [-v for v in offsets]


def absolute(dataset: Dataset) -> None:
    z = float(dataset.ImagePositionPatient[2])
    dataset.GridFrameOffsetVector = [z + float(v) for v in dataset.GridFrameOffsetVector]


@pytest.mark.parametrize("change", [flip, absolute])
def test_frames_in_any_order_and_notation_give_the_same_dose(file: Path, tmp_path: Path, change):
    # mutant: take the first frame for the lowest
    found, meant = read_rtdose(edited(file, tmp_path, change)), read_rtdose(file)
    assert found.grid == meant.grid
    assert (found.dose_gy == meant.dose_gy).all()


REFUSED = {
    "relative": ("RTDOSE_UNITS", lambda d: setattr(d, "DoseUnits", "RELATIVE")),
    "effective": ("RTDOSE_UNITS", lambda d: setattr(d, "DoseType", "EFFECTIVE")),
    "one beam": ("RTDOSE_SUMMATION", lambda d: setattr(d, "DoseSummationType", "BEAM")),
    "no scaling": ("RTDOSE_SCALING", lambda d: delattr(d, "DoseGridScaling")),
    "negative scaling": ("RTDOSE_SCALING", lambda d: setattr(d, "DoseGridScaling", "-1")),
    "cut short": ("RTDOSE_PIXELS", lambda d: setattr(d, "PixelData", d.PixelData[:-100])),
    "signed": ("RTDOSE_PIXELS", lambda d: setattr(d, "PixelRepresentation", 1)),
    "sagittal": ("RTDOSE_GEOMETRY", lambda d: setattr(d, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1])),
    "uneven": ("RTDOSE_GEOMETRY", lambda d: setattr(d, "GridFrameOffsetVector", [*d.GridFrameOffsetVector[:-1], 99.0])),
    "frames missing": ("RTDOSE_GEOMETRY", lambda d: setattr(d, "GridFrameOffsetVector", d.GridFrameOffsetVector[:-1])),
    "a plan": ("RTDOSE_SOPCLASS", lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.5")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_dose_that_means_something_else_is_refused(file: Path, tmp_path: Path, case: str):
    code, change = REFUSED[case]
    with pytest.raises(CaseRejected) as caught:
        read_rtdose(edited(file, tmp_path, change))
    assert caught.value.code == code


def test_an_odd_number_of_voxels_is_padded(tmp_path: Path):
    grid = Grid((3, 3, 3), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    small = Dose(grid, np.arange(27, dtype=np.float32).reshape(3, 3, 3))
    write_rtdose(tmp_path / "d.dcm", small, replace(ct()), IDS)
    np.testing.assert_allclose(read_rtdose(tmp_path / "d.dcm").dose_gy, small.dose_gy, atol=1e-3)
