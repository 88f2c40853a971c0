"""RT Plans from elsewhere: what is inherited, what is understood, and what is refused with which code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian
from small_plan import NOW, ct, machine, plan, prescription

from rtplan.dicom.read_rtplan import ReadPlan, read_rtplan
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtplan import write_rtplan
from rtplan.domain.machine import Machine
from rtplan.errors import CaseRejected

MACHINES = {"test_machine": machine()}


def changed(tmp_path: Path, change: Callable[[Dataset], object]) -> ReadPlan:
    path = tmp_path / "p.dcm"
    dataset = pydicom.dcmread(BytesIO(plan_bytes()))
    change(dataset)
    dataset.save_as(path)
    return read_rtplan(path, MACHINES)


@cache
def plan_bytes() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "p.dcm")
        write_rtplan(path, plan(), prescription(), machine(), ct(), new_output_ids(NOW))
        return path.read_bytes()


def beam(dataset: Dataset, index: int = 0) -> Dataset:
    return dataset.BeamSequence[index]


def point(dataset: Dataset, index: int = 0) -> Dataset:
    return beam(dataset).ControlPointSequence[index]


def put(keyword: str, value: object, at: Callable[[Dataset], Dataset] = beam) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(at(dataset), keyword, value)


def drop(keyword: str, at: Callable[[Dataset], Dataset]) -> Callable[[Dataset], None]:
    return lambda dataset: delattr(at(dataset), keyword)


def setup(dataset: Dataset) -> Dataset:
    return dataset.PatientSetupSequence[0]


def group(dataset: Dataset) -> Dataset:
    return dataset.FractionGroupSequence[0]


def group_beam(dataset: Dataset) -> Dataset:
    return group(dataset).ReferencedBeamSequence[0]


def jaws(dataset: Dataset) -> Dataset:
    return point(dataset).BeamLimitingDevicePositionSequence[0]


def leaves(dataset: Dataset) -> Dataset:
    return point(dataset).BeamLimitingDevicePositionSequence[2]


def device(dataset: Dataset) -> Dataset:
    return beam(dataset).BeamLimitingDeviceSequence[2]


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def crossing(dataset: Dataset) -> None:
    positions = list(leaves(dataset).LeafJawPositions)
    positions[0], positions[14] = 50.0, 40.0
    leaves(dataset).LeafJawPositions = positions


def unflattened(dataset: Dataset) -> None:
    beam(dataset).PrimaryFluenceModeSequence = Sequence([item(FluenceMode="NON_STANDARD", FluenceModeID="FFF")])


REFUSED = {
    "unknown machine": ("MACHINE_UNKNOWN", put("TreatmentMachineName", "Elsewhere")),
    "no machine name": ("RTPLAN_MACHINES", put("TreatmentMachineName", "Other")),
    "electrons": ("RTPLAN_RADIATION", put("RadiationType", "ELECTRON")),
    "no radiation type": ("RTPLAN_RADIATION", drop("RadiationType", beam)),
    "wedge": ("RTPLAN_MODIFIER", put("NumberOfWedges", 1)),
    "block": ("RTPLAN_MODIFIER", put("NumberOfBlocks", 2)),
    "bolus": ("RTPLAN_MODIFIER", put("NumberOfBoli", 1)),
    "compensator": ("RTPLAN_MODIFIER", put("NumberOfCompensators", 1)),
    "applicator": ("RTPLAN_MODIFIER", put("ApplicatorSequence", Sequence([item(ApplicatorID="A")]))),
    "minutes": ("RTPLAN_METERSET", put("PrimaryDosimeterUnit", "MINUTE")),
    "other leaves": ("RTPLAN_LEAVES", put("LeafPositionBoundaries", [str(5 * v) for v in range(-7, 8)], device)),
    "MLCY": ("RTPLAN_DEVICES", put("RTBeamLimitingDeviceType", "MLCY", device)),
    "other SAD": ("RTPLAN_MACHINE_GEOMETRY", put("SourceAxisDistance", "800")),
    "other energy": ("RTPLAN_ENERGY", put("NominalBeamEnergy", "10", point)),
    "no energy": ("RTPLAN_ENERGY", drop("NominalBeamEnergy", point)),
    "no flattening filter": ("RTPLAN_ENERGY", unflattened),
    "couch pitch": ("RTPLAN_COUCH", put("TableTopPitchAngle", 1.0, point)),
    "couch roll": ("RTPLAN_COUCH", put("TableTopRollAngle", 359.0, lambda d: point(d, 1))),
    "couch turns": ("RTPLAN_COUCH", put("PatientSupportAngle", "20", lambda d: point(d, 1))),
    "collimator turns": ("RTPLAN_COLLIMATOR", put("BeamLimitingDeviceAngle", "20", lambda d: point(d, 1))),
    "isocentre moves": ("RTPLAN_ISOCENTRE", put("IsocenterPosition", ["0", "0", "0"], lambda d: point(d, 1))),
    "no isocentre": ("RTPLAN_ISOCENTRE", drop("IsocenterPosition", point)),
    "no gantry angle": ("RTPLAN_GANTRY", drop("GantryAngle", point)),
    "no leaf positions": ("RTPLAN_DEVICES", lambda d: point(d).BeamLimitingDevicePositionSequence.pop()),
    "too few leaves": ("RTPLAN_LEAVES", put("LeafJawPositions", ["-10", "10"], leaves)),
    "leaves cross": ("RTPLAN_LEAVES", crossing),
    "jaws cross": ("RTPLAN_LEAVES", put("LeafJawPositions", ["10", "-10"], jaws)),
    "lost control points": ("RTPLAN_CONTROL_POINTS", lambda d: beam(d).ControlPointSequence.pop()),
    "swapped control points": ("RTPLAN_CONTROL_POINTS", put("ControlPointIndex", 2, lambda d: point(d, 1))),
    "weights fall": ("RTPLAN_METERSET", put("CumulativeMetersetWeight", "0.99", lambda d: point(d, 1))),
    "weights start late": ("RTPLAN_METERSET", put("CumulativeMetersetWeight", "0.01", point)),
    "weight missing": ("RTPLAN_METERSET", drop("CumulativeMetersetWeight", lambda d: point(d, 1))),
    "final weight x100": ("RTPLAN_METERSET", put("FinalCumulativeMetersetWeight", "100")),
    "no MU": ("RTPLAN_METERSET", drop("BeamMeterset", group_beam)),
    "zero MU": ("RTPLAN_METERSET", put("BeamMeterset", "0", group_beam)),
    "missing beam": ("RTPLAN_BEAMS", lambda d: d.BeamSequence.pop()),
    "twice the same number": ("RTPLAN_BEAMS", put("BeamNumber", 2)),
    "two fraction groups": ("RTPLAN_FRACTIONS", lambda d: d.FractionGroupSequence.append(group(d))),
    "no fractions": ("RTPLAN_FRACTIONS", put("NumberOfFractionsPlanned", 0, group)),
    "prone": ("RTPLAN_PATIENT_POSITION", put("PatientPosition", "HFP", setup)),
    "no position": ("RTPLAN_PATIENT_POSITION", drop("PatientPosition", setup)),
    "foreign setup": ("RTPLAN_PATIENT_POSITION", put("ReferencedPatientSetupNumber", 7)),
    "device geometry": ("RTPLAN_GEOMETRY", put("RTPlanGeometry", "TREATMENT_DEVICE", lambda d: d)),
    "another delivery": ("RTPLAN_DELIVERY_TYPE", put("TreatmentDeliveryType", "CONTINUATION")),
    "brachytherapy": ("RTPLAN_BRACHY", put("NumberOfBrachyApplicationSetups", 1, group)),
    "another object": ("RTPLAN_SOPCLASS", put("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2", lambda d: d)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_reproduced_is_refused(tmp_path: Path, case: str):
    code, change = REFUSED[case]
    with pytest.raises(CaseRejected) as caught:
        if case == "no machine name":
            changed(tmp_path, lambda d: (change(d), put("TreatmentMachineName", "", lambda e: beam(e, 1))(d)))
        else:
            every = case == "unknown machine"
            changed(
                tmp_path,
                (lambda d: [setattr(b, "TreatmentMachineName", "Elsewhere") for b in d.BeamSequence]) if every else change,
            )
    assert caught.value.code == code


def test_what_a_control_point_does_not_say_is_as_before(tmp_path: Path):
    # mutant: give up on a control point without positions; take the first aperture for all
    found = changed(tmp_path, lambda d: None)
    first, second, third, _ = found.plan.beams[0].control_points
    assert (
        "BeamLimitingDevicePositionSequence"
        not in pydicom.dcmread(tmp_path / "p.dcm").BeamSequence[0].ControlPointSequence[1]
    )
    assert (first.aperture.leaf_x1_mm == second.aperture.leaf_x1_mm).all()
    assert not (second.aperture.leaf_x1_mm == third.aperture.leaf_x1_mm).all()


def test_one_device_may_move_alone(tmp_path: Path):
    # Jaws that are stated once hold for all control points. mutant: reset positions at every control point
    def only_leaves(dataset: Dataset) -> None:
        for p in beam(dataset).ControlPointSequence[1:]:
            if "BeamLimitingDevicePositionSequence" in p:
                p.BeamLimitingDevicePositionSequence = p.BeamLimitingDevicePositionSequence[2:]

    points = changed(tmp_path, only_leaves).plan.beams[0].control_points
    meant = plan().beams[0].control_points
    assert points[2].aperture.jaw_x1_mm == pytest.approx(meant[0].aperture.jaw_x1_mm)
    assert points[2].aperture.leaf_x1_mm == pytest.approx(meant[2].aperture.leaf_x1_mm, abs=1e-4)


def test_symmetric_jaws_are_understood(tmp_path: Path):
    def rename(dataset: Dataset) -> None:
        for b in dataset.BeamSequence:
            for d in (
                *b.BeamLimitingDeviceSequence,
                *(d for p in b.ControlPointSequence for d in p.get("BeamLimitingDevicePositionSequence", [])),
            ):
                d.RTBeamLimitingDeviceType = {"ASYMX": "X", "ASYMY": "Y"}.get(
                    d.RTBeamLimitingDeviceType, d.RTBeamLimitingDeviceType
                )

    found = changed(tmp_path, rename)
    assert found.plan.beams[0].control_points[0].aperture.jaw_y2_mm == pytest.approx(39.75)


def test_meterset_weights_of_any_scale(tmp_path: Path):
    def to_mu(dataset: Dataset) -> None:
        for p in beam(dataset).ControlPointSequence:
            p.CumulativeMetersetWeight = str(round(float(p.CumulativeMetersetWeight) * 100, 6))
        beam(dataset).FinalCumulativeMetersetWeight = "100"

    found = changed(tmp_path, to_mu)
    assert [p.cumulative_mu for p in found.plan.beams[0].control_points] == pytest.approx(
        [p.cumulative_mu for p in plan().beams[0].control_points], abs=1e-3
    )


def test_setup_beams_are_left_out_and_reported(tmp_path: Path):
    def to_setup(dataset: Dataset) -> None:
        beam(dataset, 2).TreatmentDeliveryType = "SETUP"
        beam(dataset, 2).TreatmentMachineName = "Imager"
        del group(dataset).ReferencedBeamSequence[2].BeamMeterset

    found = changed(tmp_path, to_setup)
    assert [b.number for b in found.plan.beams] == [1, 2]
    assert [f.code for f in found.findings] == ["RTPLAN_SETUP_BEAM"]


def test_several_isocentres_are_reported(tmp_path: Path):
    found = changed(tmp_path, put("IsocenterPosition", ["10", "0", "0"], point))
    assert [f.code for f in found.findings] == ["RTPLAN_ISOCENTRES"]
    assert found.plan.beams[0].beam.isocentre_xyz_mm == (10, 0, 0)


def test_a_deflated_file_is_refused_unread(tmp_path: Path):
    # A deflated megabyte can take gigabytes to read.
    path = tmp_path / "p.dcm"
    write_rtplan(path, plan(), prescription(), machine(), ct(), new_output_ids(NOW))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    with pytest.raises(CaseRejected, match="RTPLAN_TRANSFER_SYNTAX"):
        read_rtplan(path, MACHINES)


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of each odd value, the reader refuses
def test_damaged_bytes_are_refused_or_read_but_never_crash(tmp_path: Path):
    # mutant: without refusing_malformed
    draw, path = np.random.default_rng(1), tmp_path / "p.dcm"
    clean = np.frombuffer(plan_bytes(), dtype=np.uint8)
    refused = 0
    for _ in range(150):
        bytes_ = clean.copy()
        for position in draw.integers(132, len(bytes_), 4):
            bytes_[position] = draw.integers(0, 256)
        path.write_bytes(bytes_.tobytes()[: len(bytes_) if draw.random() < 0.8 else int(draw.integers(132, len(bytes_)))])
        try:
            read_rtplan(path, MACHINES)
        except CaseRejected as error:
            refused += 1
            assert error.code.startswith(("RTPLAN_", "MACHINE_UNKNOWN"))
    assert refused > 50


@pytest.mark.parametrize("content", [b"", b"not DICOM at all" * 50, b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_what_is_no_dicom_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "p.dcm").write_bytes(content)
    with pytest.raises(CaseRejected, match=r"RTPLAN_(UNREADABLE|TRANSFER_SYNTAX|MALFORMED)"):
        read_rtplan(tmp_path / "p.dcm", MACHINES)


def test_a_beam_without_flattening_filter_needs_its_own_machine(tmp_path: Path):
    path = tmp_path / "p.dcm"
    fff = machine(energy_id="6FFF")
    write_rtplan(path, replace(plan(), energy_id="6FFF"), prescription(), fff, ct(), new_output_ids(NOW))
    assert read_rtplan(path, {"test_machine": fff}).plan.energy_id == "6FFF"
    with pytest.raises(CaseRejected, match="RTPLAN_ENERGY"):
        read_rtplan(path, MACHINES)


def several_beams() -> dict[str, Machine]:
    """One machine at four energies, and another."""
    energies = {"6X": 6.0, "6FFF": 6.0, "10X": 10.0, "10FFF": 10.0}
    beams = {}
    for energy, nominal in energies.items():
        one = machine("many", energy)
        beams[f"many:{energy}"] = replace(one, beam=replace(one.beam, nominal_energy_mv=nominal))
    return beams | MACHINES


@pytest.mark.parametrize("energy", ["6X", "6FFF", "10X", "10FFF"])
def test_a_plan_finds_its_own_beam_of_a_machine_with_several(tmp_path: Path, energy: str):
    # mutant: the first beam of the machine; the fluence mode not looked at
    path, machines = tmp_path / "p.dcm", several_beams()
    mine = machines[f"many:{energy}"]
    written_plan = replace(plan(), machine_id="many", energy_id=energy)
    write_rtplan(path, written_plan, prescription(), mine, ct(), new_output_ids(NOW))
    beam = pydicom.dcmread(path).BeamSequence[0]
    assert beam.ControlPointSequence[0].NominalBeamEnergy == int(energy.rstrip("XF"))
    mode = beam.PrimaryFluenceModeSequence[0]
    assert (mode.FluenceMode, mode.get("FluenceModeID")) == (
        ("NON_STANDARD", "FFF") if energy.endswith("FFF") else ("STANDARD", None)
    )
    found = read_rtplan(path, machines)
    assert (found.plan.machine_id, found.plan.energy_id) == ("many", energy)
    assert found.machine is mine


def test_an_energy_that_the_machine_lacks_and_a_fluence_of_another_kind_are_refused(tmp_path: Path):
    # mutant: any NON_STANDARD fluence taken for FFF
    path, machines = tmp_path / "p.dcm", several_beams()
    write_rtplan(path, replace(plan(), machine_id="many"), prescription(), machines["many:6X"], ct(), new_output_ids(NOW))
    dataset = pydicom.dcmread(path)
    for beam in dataset.BeamSequence:
        beam.ControlPointSequence[0].NominalBeamEnergy = "18"
    dataset.save_as(path)
    with pytest.raises(CaseRejected, match=r"RTPLAN_ENERGY.*one of 6X, 6FFF, 10X, 10FFF of many"):
        read_rtplan(path, machines)
    for beam in dataset.BeamSequence:
        beam.ControlPointSequence[0].NominalBeamEnergy = "6"
        beam.PrimaryFluenceModeSequence[0].FluenceMode = "NON_STANDARD"
        beam.PrimaryFluenceModeSequence[0].FluenceModeID = "TBI"
    dataset.save_as(path)
    with pytest.raises(CaseRejected, match=r"RTPLAN_ENERGY.*TBI"):
        read_rtplan(path, machines)
