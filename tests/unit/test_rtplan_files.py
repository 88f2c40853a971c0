"""What rtplan writes as RT Plan, read back by itself, by dcmtk and by dciodvfy."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from small_plan import NOW, arc_beam, ct, machine, plan, prescription

from rtplan.dicom.header import decimal
from rtplan.dicom.read_rtplan import read_rtplan
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtplan import write_rtplan
from rtplan.domain.plan import PlanBeam
from rtplan.domain.verdict import Finding
from rtplan.errors import SafetyStop

IDS = new_output_ids(NOW)


def written(path: Path, the_plan=None, the_machine=None, the_prescription=None, the_ct=None) -> Path:
    the_plan = the_plan or plan((*plan().beams, arc_beam(4)))
    write_rtplan(path, the_plan, the_prescription or prescription(), the_machine or machine(), the_ct or ct(), IDS)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("plan") / "RTPLAN.dcm")


def test_a_plan_comes_back_as_it_went(file: Path):
    # mutant: write leaf_x2 before leaf_x1; drop the last control point; write jaw_y for jaw_x
    found, meant = read_rtplan(file, {"test_machine": machine()}), plan((*plan().beams, arc_beam(4)))
    assert (found.plan.machine_id, found.plan.energy_id, found.plan.fractions) == ("test_machine", "6X", 35)
    assert found.sop_instance_uid == IDS.plan_uid
    assert found.structure_set_uid == IDS.structure_set_uid
    assert found.frame_of_reference_uid == ct().series.frame_of_reference_uid
    assert found.findings == ()
    assert len(found.plan.beams) == len(meant.beams)
    for a, b in zip(found.plan.beams, meant.beams, strict=True):
        assert (a.number, a.beam) == (b.number, b.beam)
        assert a.mu == pytest.approx(b.mu, abs=1e-3)
        assert len(a.control_points) == len(b.control_points)
        for p, q in zip(a.control_points, b.control_points, strict=True):
            assert p.cumulative_mu == pytest.approx(q.cumulative_mu, abs=1e-3)
            assert p.gantry_angle_deg == q.gantry_angle_deg
            np.testing.assert_allclose(p.aperture.leaf_x1_mm, q.aperture.leaf_x1_mm, rtol=0, atol=1e-4)
            np.testing.assert_allclose(p.aperture.leaf_x2_mm, q.aperture.leaf_x2_mm, rtol=0, atol=1e-4)
            for jaw in ("jaw_x1_mm", "jaw_x2_mm", "jaw_y1_mm", "jaw_y2_mm"):
                assert getattr(p.aperture, jaw) == pytest.approx(getattr(q.aperture, jaw), abs=1e-4)


def test_the_plan_says_that_nobody_approved_it(file: Path):
    dataset = pydicom.dcmread(file)
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert dataset.RTPlanLabel == "NOT APPROVED"
    assert "AUTO-GENERATED - NOT APPROVED - recalculate & QA before use" in dataset.RTPlanDescription
    assert "generic, not commissioned" in dataset.RTPlanDescription


def test_the_plan_belongs_to_the_ct(file: Path):
    dataset, series = pydicom.dcmread(file), ct().series
    assert str(dataset.PatientName) == series.patient.name
    assert dataset.PatientID == series.patient.patient_id
    assert dataset.StudyInstanceUID == series.study_instance_uid
    assert dataset.FrameOfReferenceUID == series.frame_of_reference_uid
    assert dataset.SeriesInstanceUID == IDS.plan_series_uid != series.series_instance_uid
    assert dataset.PatientSetupSequence[0].PatientPosition == "HFS"


def test_meterset_weights_and_counts_agree(file: Path):
    # I-26 to I-28. mutant: NumberOfControlPoints = segments
    dataset = pydicom.dcmread(file)
    meterset = {b.ReferencedBeamNumber: b.BeamMeterset for b in dataset.FractionGroupSequence[0].ReferencedBeamSequence}
    assert dataset.FractionGroupSequence[0].NumberOfBeams == len(dataset.BeamSequence) == len(meterset)
    assert dataset.FractionGroupSequence[0].NumberOfFractionsPlanned == 35
    for beam, meant in zip(dataset.BeamSequence, (*plan().beams, arc_beam(4)), strict=True):
        weights = [p.CumulativeMetersetWeight for p in beam.ControlPointSequence]
        assert weights[0] == 0
        assert weights[-1] == beam.FinalCumulativeMetersetWeight > 0
        assert np.all(np.diff([float(w) for w in weights]) >= 0)
        assert beam.NumberOfControlPoints == len(beam.ControlPointSequence)
        assert float(meterset[beam.BeamNumber]) == pytest.approx(meant.mu, abs=0.01)


def test_the_first_control_point_is_complete_and_later_ones_repeat_what_moved(file: Path):
    # I-35. mutant: write positions only at control point 0
    dataset = pydicom.dcmread(file)
    for beam in dataset.BeamSequence:
        first = beam.ControlPointSequence[0]
        for keyword in (
            "NominalBeamEnergy",
            "GantryAngle",
            "BeamLimitingDeviceAngle",
            "PatientSupportAngle",
            "IsocenterPosition",
        ):
            assert keyword in first
        assert [d.RTBeamLimitingDeviceType for d in first.BeamLimitingDevicePositionSequence] == ["ASYMX", "ASYMY", "MLCX"]
    arc = dataset.BeamSequence[3]
    assert all("BeamLimitingDevicePositionSequence" in p for p in arc.ControlPointSequence)
    assert [float(p.GantryAngle) for p in arc.ControlPointSequence] == [350, 355, 0, 5, 10]
    assert [p.get("GantryRotationDirection") for p in arc.ControlPointSequence] == ["CW", "CW", "CW", "CW", "NONE"]


def test_step_and_shoot_is_static_and_an_arc_is_dynamic(file: Path):
    # PS3.3: STATIC when nothing changes while the meterset does.
    assert [b.BeamType for b in pydicom.dcmread(file).BeamSequence] == ["STATIC", "STATIC", "STATIC", "DYNAMIC"]


def test_targets_and_doses_are_in_the_plan(file: Path):
    references = pydicom.dcmread(file).DoseReferenceSequence
    assert [(r.DoseReferenceDescription, r.TargetPrescriptionDose, r.DoseReferenceType) for r in references] == [
        ("PTV_70", 70, "TARGET"),
        ("PTV_56", 56, "TARGET"),
    ]


def test_findings_reach_the_description(tmp_path: Path):
    flagged = replace(prescription(), findings=(Finding("TARGET_SMALL", "flag", "x"), Finding("NICE", "info", "y")))
    text = pydicom.dcmread(written(tmp_path / "p.dcm", the_prescription=flagged)).RTPlanDescription
    assert "TARGET_SMALL" in text
    assert "NICE" not in text


def test_a_machine_with_a_long_name_is_found_again(tmp_path: Path):
    # TreatmentMachineName holds 16 characters. mutant: compare with the full id only
    long = machine("point_source_mohan6")
    file = written(tmp_path / "p.dcm", replace(plan(), machine_id="point_source_mohan6"), long)
    assert pydicom.dcmread(file).BeamSequence[0].TreatmentMachineName == "point_source_moh"
    assert (
        read_rtplan(file, {"point_source_mohan6": long, "other": machine("other")}).plan.machine_id == "point_source_mohan6"
    )


@pytest.mark.parametrize("value", [0.1 + 0.2, -1.23456789012345e-5, 123456.7890123456, -199.99999999, 1 / 3, 1e-30, -0.0])
def test_decimal_strings_fit_and_keep_the_value(value: float):
    text = decimal(value, 6)
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, abs=5.1e-7)
    assert text != "-0"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_that_is_not_finite_is_written(value: float):
    with pytest.raises(SafetyStop, match="DICOM_VALUE_NOT_FINITE"):
        decimal(value)


def falling(beam: PlanBeam) -> PlanBeam:
    points = list(beam.control_points)
    points[1], points[2] = replace(points[1], cumulative_mu=40.0), replace(points[2], cumulative_mu=1.0)
    return replace(beam, control_points=tuple(points))


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("MACHINE_MODEL", lambda p: replace(p, machine_id="another")),
        ("MACHINE_MODEL", lambda p: replace(p, energy_id="10X")),
        ("PLAN_EMPTY", lambda p: replace(p, beams=())),
        ("PLAN_FRACTIONS", lambda p: replace(p, fractions=0)),
        ("PLAN_BEAM_NUMBERS", lambda p: replace(p, beams=(p.beams[0], p.beams[0]))),
        ("MU_RANGE", lambda p: replace(p, beams=(falling(p.beams[0]),))),
        (
            "PLAN_CONTROL_POINTS",
            lambda p: replace(p, beams=(replace(p.beams[0], control_points=p.beams[0].control_points[:1]),)),
        ),
    ],
)
def test_a_plan_that_contradicts_itself_is_never_written(tmp_path: Path, code: str, change):
    with pytest.raises(SafetyStop) as caught:
        written(tmp_path / "p.dcm", change(plan()))
    assert caught.value.code == code
    assert not (tmp_path / "p.dcm").exists()


def test_only_head_first_supine_is_written(tmp_path: Path):
    with pytest.raises(SafetyStop, match="ORIENTATION_UNKNOWN"):
        written(tmp_path / "p.dcm", the_ct=replace(ct(), patient_position="FFS"))


def test_dciodvfy_finds_no_error(file: Path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    done = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, check=False)
    assert "RTPlan" in done.stderr + done.stdout
    assert [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error")] == []


def test_dcmtk_reads_the_same_angles_and_metersets(file: Path):
    if shutil.which("dcmdump") is None:
        pytest.skip("dcmdump (Debian package dcmtk) is not installed")

    def values(tag: str) -> list[float]:
        done = subprocess.run(["dcmdump", "+L", "+P", tag, str(file)], capture_output=True, text=True, check=True)
        return [float(v) for v in re.findall(r"\[([^\]]*)\]", done.stdout)]

    assert values("300a,0086") == pytest.approx([b.mu for b in (*plan().beams, arc_beam(4))], abs=1e-3)
    assert values("300a,011e") == [0, 120, 240, 350, 355, 0, 5, 10]
