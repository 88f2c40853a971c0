"""What was written is read back: agreement passes, every kind of difference stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from small_plan import NOW, ct, density, dose, machine, prescription, sound_plan, structures

from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtdose import write_rtdose
from rtplan.dicom.write_rtplan import write_rtplan
from rtplan.dicom.write_rtstruct import write_rtstruct
from rtplan.domain.context import PartDose, PlanContext
from rtplan.domain.dose import cumulative_dvh
from rtplan.errors import SafetyStop
from rtplan.steps.reread import confirm_deliverable, confirm_written, doses_from_files, plan_difference
from rtplan.steps.verify import dvhs

CONTEXT = PlanContext(sound_plan(), machine(), density(), dose(), (PartDose((1,), dose()),), structures(), prescription())


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    ids, series = new_output_ids(NOW), ct()
    paths = (tmp_path / "RTSTRUCT.dcm", tmp_path / "RTPLAN.dcm", tmp_path / "RTDOSE.dcm")
    write_rtstruct(paths[0], CONTEXT.structures, series, ids)
    write_rtplan(paths[1], CONTEXT.plan, CONTEXT.prescription, CONTEXT.machine, series, ids)
    write_rtdose(paths[2], CONTEXT.dose, series, ids)
    return paths


def test_faithful_files_pass(files: tuple[Path, Path, Path]):
    confirm_written(*files, CONTEXT, ct())


def test_histograms_from_the_files_are_those_of_the_report(files: tuple[Path, Path, Path]):
    # I-43: within 0.5 % of volume and of dose.
    rtstruct, _, rtdose = files
    written = doses_from_files(rtdose, rtstruct, ct())
    for meant in dvhs(CONTEXT.structures, CONTEXT.dose):
        found = cumulative_dvh(meant.structure, written[meant.structure], ct().grid.voxel_cc)
        assert found.volume_cc == pytest.approx(meant.volume_cc, rel=0.005)
        assert found.mean_gy == pytest.approx(meant.mean_gy, rel=0.005)
        assert found.max_gy == pytest.approx(meant.max_gy, rel=0.005)
        n = min(len(found.volume_percent), len(meant.volume_percent))
        shift = np.interp(meant.dose_gy[:n], found.dose_gy, found.volume_percent) - meant.volume_percent[:n]
        assert np.abs(shift).max() <= 0.5


def test_another_leaf_position_is_noticed(files: tuple[Path, Path, Path]):
    dataset = pydicom.dcmread(files[1])
    leaves = dataset.BeamSequence[1].ControlPointSequence[2].BeamLimitingDevicePositionSequence[2]
    positions = [float(v) for v in leaves.LeafJawPositions]
    leaves.LeafJawPositions = [positions[0] - 0.01, *positions[1:]]
    dataset.save_as(files[1])
    with pytest.raises(SafetyStop, match=r"WRITTEN_PLAN.*beam 2, control point 2"):
        confirm_written(*files, CONTEXT, ct())


def test_an_arc_that_turns_the_other_way_is_noticed():
    # mutant: rotation left out of the comparison: 5 degrees back is 355 degrees on
    arc = CONTEXT.plan.beams[2]
    other = replace(CONTEXT.plan, beams=(*CONTEXT.plan.beams[:2], replace(arc, rotation="CC")))
    assert "turns CC" in plan_difference(other, CONTEXT.plan)


def tampered_arc(path: Path, change) -> None:
    dataset = pydicom.dcmread(path)
    change(dataset.BeamSequence[2].ControlPointSequence)
    dataset.save_as(path)


def with_leaf(points, index: int, position_mm: float) -> None:
    leaves = points[index].BeamLimitingDevicePositionSequence[2]
    leaves.LeafJawPositions = [*leaves.LeafJawPositions[:5], position_mm, *leaves.LeafJawPositions[6:]]


def with_angle(points, index: int, angle_deg: float) -> None:
    points[index].GantryAngle = angle_deg


@pytest.mark.parametrize(
    ("broken", "change"),
    [
        ("MLC_TRAVEL", lambda points: with_leaf(points, 2, -201.0)),
        ("ARC_DOSE_RATE", lambda points: with_leaf(points, 3, -190.0)),
        (
            "MLC_GAP",
            lambda points: with_leaf(points, 1, float(points[1].BeamLimitingDevicePositionSequence[2].LeafJawPositions[19])),
        ),
        ("GANTRY_PATH", lambda points: with_angle(points, 1, 356.0)),
        ("ARC_MU_PER_DEGREE", lambda points: setattr(points[1], "CumulativeMetersetWeight", "0.0001")),
    ],
)
def test_a_file_beyond_the_machines_limits_is_not_deliverable(files: tuple[Path, Path, Path], broken: str, change):
    # mutant: run the checks on the plan in memory instead of the file's
    assert plan_difference(confirm_deliverable(files[1], CONTEXT.machine, CONTEXT.density), CONTEXT.plan) == ""
    tampered_arc(files[1], change)
    with pytest.raises(SafetyStop, match=f"WRITTEN_LIMITS.*{broken}"):
        confirm_deliverable(files[1], CONTEXT.machine, CONTEXT.density)
    with pytest.raises(SafetyStop, match="WRITTEN_PLAN"):
        confirm_written(*files, CONTEXT, ct())


def test_a_plan_that_breaks_a_limit_is_stopped_though_its_file_is_faithful(files: tuple[Path, Path, Path]):
    # mutant: confirm_written without the checks
    slow = replace(CONTEXT.machine, max_gantry_speed_deg_s=0.01)
    with pytest.raises(SafetyStop, match=r"WRITTEN_LIMITS.*ARC_DOSE_RATE"):
        confirm_written(*files, replace(CONTEXT, machine=slow), ct())


def test_another_meterset_is_noticed(files: tuple[Path, Path, Path]):
    dataset = pydicom.dcmread(files[1])
    dataset.FractionGroupSequence[0].ReferencedBeamSequence[0].BeamMeterset = "34.2"
    dataset.save_as(files[1])
    with pytest.raises(SafetyStop, match="WRITTEN_PLAN"):
        confirm_written(*files, CONTEXT, ct())


def test_lost_control_points_are_noticed():
    short = replace(CONTEXT.plan.beams[0], control_points=CONTEXT.plan.beams[0].control_points[:2])
    assert "control points" in plan_difference(replace(CONTEXT.plan, beams=(short, *CONTEXT.plan.beams[1:])), CONTEXT.plan)
    assert plan_difference(CONTEXT.plan, CONTEXT.plan) == ""


def test_a_scaled_dose_is_noticed(files: tuple[Path, Path, Path]):
    dataset = pydicom.dcmread(files[2])
    dataset.DoseGridScaling = str(float(dataset.DoseGridScaling) * 1.001)[:16]
    dataset.save_as(files[2])
    with pytest.raises(SafetyStop, match="WRITTEN_DOSE"):
        confirm_written(*files, CONTEXT, ct())


def test_a_shifted_dose_grid_is_noticed(files: tuple[Path, Path, Path]):
    dataset = pydicom.dcmread(files[2])
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [float(x) + 1.75, y, z]
    dataset.save_as(files[2])
    with pytest.raises(SafetyStop, match="WRITTEN_DOSE"):
        confirm_written(*files, CONTEXT, ct())


def test_a_missing_or_moved_structure_is_noticed(files: tuple[Path, Path, Path]):
    ids, series = new_output_ids(NOW), ct()
    kept = replace(CONTEXT.structures, structures=tuple(s for s in CONTEXT.structures if s.name != "SpinalCord"))
    write_rtstruct(files[0], kept, series, ids)
    with pytest.raises(SafetyStop, match=r"WRITTEN_DVH.*lacks SpinalCord"):
        confirm_written(*files, CONTEXT, series)
    moved = tuple(replace(s, mask=np.roll(s.mask, 3, axis=2)) if s.name == "Parotid_L" else s for s in CONTEXT.structures)
    write_rtstruct(files[0], replace(CONTEXT.structures, structures=moved), series, ids)
    with pytest.raises(SafetyStop, match=r"WRITTEN_DVH.*Parotid_L"):
        confirm_written(*files, CONTEXT, series)
