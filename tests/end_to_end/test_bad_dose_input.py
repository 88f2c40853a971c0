"""Bad input to `rtplan dose` and `rtplan plan` by the door that a user takes: its error or its finding, no wrong dose."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_series import on_all, on_slice, write_series
from pydicom.dataset import Dataset
from small_plan import prescription
from small_rtstruct import Drawing, block, write_drawing
from tiny_protocol import tiny_protocol

from kernels.contract import BackendUnavailable
from rtplan.cli.main import run
from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtplan import write_rtplan
from rtplan.domain.beams import Beam
from rtplan.domain.case import Order
from rtplan.domain.plan import Aperture, DeliverablePlan, Segment, step_and_shoot_beam
from rtplan.domain.progress import silent
from rtplan.library.machines import load_machine
from rtplan.pipeline import plan_case

MACHINE = "generic_6mv"
SPACING_ZYX_MM = (3.0, 3.0, 3.0)
ORIGIN_XYZ_MM = (-88.5, -88.5, -36.0)
SHAPE_ZYX = (25, 60, 60)
ISOCENTRE = (0.0, 0.0, 0.0)
PROTOCOL = tiny_protocol([], [])


def body(metal_hu: int | None = None) -> np.ndarray:
    """A cylinder of water, 150 mm wide and 120 mm deep; with `metal_hu` a pin of 4 cc across the middle."""
    z, y, x = np.meshgrid(*(np.arange(n) * 3.0 - (n - 1) * 1.5 for n in SHAPE_ZYX), indexing="ij")
    hu = np.where((x / 75) ** 2 + (y / 60) ** 2 < 1, 0, -1000).astype(np.int16)
    hu += np.random.default_rng(1).integers(-4, 5, hu.shape, dtype=np.int16) * (hu > -500)
    if metal_hu is not None:
        hu[(np.abs(x) < 28) & (np.abs(y + 20) < 6) & (np.abs(z) < 6)] = metal_hu
    return hu


def field(half_mm: float) -> Aperture:
    """A square field; leaf pairs beside it stand closed under a jaw."""
    boundaries = load_machine(MACHINE).mlc.leaf_boundaries_mm
    is_open = (boundaries[:-1] >= -half_mm - 1e-6) & (boundaries[1:] <= half_mm + 1e-6)
    x1, x2 = np.where(is_open, -half_mm, 120.0), np.where(is_open, half_mm, 120.5)
    return Aperture(x1, x2, -half_mm, half_mm, -half_mm, half_mm)


def one_beam(half_mm: float = 30.0, mu: float = 100.0) -> DeliverablePlan:
    beam = Beam("AP", 0.0, 0.0, 0.0, ISOCENTRE, 1000.0)
    machine = load_machine(MACHINE)
    return DeliverablePlan(
        MACHINE, machine.beam.energy_id, 10, (step_and_shoot_beam(1, beam, (Segment(0, field(half_mm), mu),)),)
    )


@pytest.fixture(scope="module")
def ct_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, body(), spacing_zyx_mm=SPACING_ZYX_MM, origin_xyz_mm=ORIGIN_XYZ_MM)
    return folder


def write_plan(path: Path, ct_dir: Path, plan: DeliverablePlan, change: Callable[[Dataset], object] | None = None) -> Path:
    ids = new_output_ids(datetime(2025, 3, 4, 5, 6, 7))
    write_rtplan(path, plan, prescription(), load_machine(MACHINE), read_ct(ct_dir), ids)
    if change is not None:
        with pydicom.config.disable_value_validation():
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path)
    return path


def recalculated(ct_dir: Path, plan: Path, out: Path, *options: str) -> int:
    return run(["dose", str(ct_dir), "--plan", str(plan), "-o", str(out), *options])


def beam_item(dataset: Dataset) -> Dataset:
    return dataset.BeamSequence[0]


def point(dataset: Dataset, index: int = 0) -> Dataset:
    return beam_item(dataset).ControlPointSequence[index]


def device(dataset: Dataset, index: int) -> Dataset:
    return point(dataset).BeamLimitingDevicePositionSequence[index]


def leaf_far_out(dataset: Dataset) -> None:
    positions = [float(v) for v in device(dataset, 2).LeafJawPositions]
    positions[0], positions[60] = 155.0, 170.0  # 155 mm across the axis; a leaf gets 150 mm
    device(dataset, 2).LeafJawPositions = positions


def set_in(of: Callable[[Dataset], Dataset], **values: object) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(of(dataset), keyword, value)

    return change


REFUSED: dict[str, tuple[str, Callable[[Dataset], object]]] = {
    "a jaw beyond its range": ("JAW", set_in(lambda d: device(d, 0), LeafJawPositions=["-30", "230"])),
    "a leaf beyond its travel": ("MLC_TRAVEL", leaf_far_out),
    "a control point without MU": ("RTPLAN_METERSET", lambda d: point(d, 1).__delattr__("CumulativeMetersetWeight")),
    "a beam without MU": (
        "RTPLAN_METERSET",
        lambda d: d.FractionGroupSequence[0].ReferencedBeamSequence[0].__delattr__("BeamMeterset"),
    ),
    "MU that are no number": (
        "RTPLAN_METERSET",
        lambda d: set_in(lambda e: e.FractionGroupSequence[0].ReferencedBeamSequence[0], BeamMeterset="NaN")(d),
    ),
    "an isocentre outside the CT": ("ISOCENTRE_OUTSIDE_CT", set_in(point, IsocenterPosition=["0", "0", "45"])),
    "an isocentre in metres": ("ISOCENTRE_OUTSIDE_CT", set_in(point, IsocenterPosition=["900", "0", "0"])),
    "an isocentre that is no number": ("RTPLAN_ISOCENTRE", set_in(point, IsocenterPosition=["NaN", "0", "0"])),
    "a leaf that is nowhere": ("RTPLAN_LEAVES", set_in(lambda d: device(d, 0), LeafJawPositions=["NaN", "30"])),
    "another machine": ("MACHINE_UNKNOWN", set_in(beam_item, TreatmentMachineName="Elsewhere")),
    "another machine's leaves": (
        "RTPLAN_LEAVES",
        set_in(
            lambda d: beam_item(d).BeamLimitingDeviceSequence[2],
            LeafPositionBoundaries=[str(v) for v in np.linspace(-150, 150, 61)],
        ),
    ),
    "another machine's energy": ("RTPLAN_ENERGY", set_in(point, NominalBeamEnergy="18")),
    "another machine's axis": ("RTPLAN_MACHINE_GEOMETRY", set_in(beam_item, SourceAxisDistance="800")),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of each odd value, the reader refuses
def test_a_plan_that_cannot_be_calculated_is_refused(ct_dir: Path, tmp_path: Path, capsys, case: str):
    # mutants: recalculation without delivery_findings, without isocentre_findings
    code, change = REFUSED[case]
    plan = write_plan(tmp_path / "RP.dcm", ct_dir, one_beam(), change)
    assert recalculated(ct_dir, plan, tmp_path / "out" / "RD.dcm") == 4
    assert f"rtplan: {code}: " in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


BROKEN_CT = {
    "spacing": ("GEOMETRY_INVALID", on_all(PixelSpacing=["NaN", "NaN"])),
    "position": ("GEOMETRY_INVALID", on_slice(5, ImagePositionPatient=["NaN", "0", "0"])),
    "densities": ("RESCALE_INVALID", on_all(RescaleSlope="NaN")),
}


@pytest.mark.parametrize("case", BROKEN_CT)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_ct_with_nan_is_refused(ct_dir: Path, tmp_path: Path, capsys, case: str):
    # mutant: NaN compared with < and > alone
    code, edit = BROKEN_CT[case]
    folder = tmp_path / "CT"
    write_series(folder, body(), spacing_zyx_mm=SPACING_ZYX_MM, origin_xyz_mm=ORIGIN_XYZ_MM, edit=edit)
    plan = write_plan(tmp_path / "RP.dcm", ct_dir, one_beam())
    assert recalculated(folder, plan, tmp_path / "RD.dcm") == 4
    assert f"rtplan: {code}: " in capsys.readouterr().err
    assert not (tmp_path / "RD.dcm").exists()


@pytest.mark.parametrize("device_name", ["gpu", "cuda"])
def test_a_gpu_that_is_absent_is_never_replaced(ct_dir: Path, tmp_path: Path, capsys, monkeypatch, device_name: str):
    # mutant: backend_of falls back to the CPU
    def absent(name: str) -> None:
        raise BackendUnavailable(f"{name}: no device")

    monkeypatch.setattr("rtplan.pipeline.get_backend", absent)
    plan = write_plan(tmp_path / "RP.dcm", ct_dir, one_beam())
    assert recalculated(ct_dir, plan, tmp_path / "RD.dcm", "--device", device_name) == 1
    assert "rtplan: BACKEND_MISSING: " in capsys.readouterr().err
    assert not (tmp_path / "RD.dcm").exists()


def test_a_plan_for_an_absent_gpu_fails_with_a_verdict(ct_dir: Path, tmp_path: Path, capsys, monkeypatch):
    # mutant: as above
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the worker, which is a process of its own
    structures = write_drawing(tmp_path / "RS.dcm", read_ct(ct_dir), Drawing([target(6.0)]))
    (tmp_path / "tiny.yaml").write_text(PROTOCOL)
    arguments = ["plan", str(ct_dir), "--structures", str(structures), "--protocol", str(tmp_path / "tiny.yaml")]
    assert run([*arguments, "--machine", MACHINE, "-o", str(tmp_path / "out"), "--device", "gpu"]) == 1
    assert "rtplan: BACKEND_MISSING: " in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["code"] == "BACKEND_MISSING"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["verdict.json"]


def findings_of_dose(ct_dir: Path, plan: Path, out: Path, capsys) -> dict[str, str]:
    """Codes and messages of the findings of a recalculation, the same as JSON and, but for information, in the file."""
    capsys.readouterr()
    assert recalculated(ct_dir, plan, out, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    flagged = {f["code"]: f["message"] for f in record["findings"] if f["severity"] != "info"}
    dataset = pydicom.dcmread(out)
    assert dataset.DoseComment == "AUTO-GENERATED - NOT APPROVED; dose to medium; see ImageComments"
    assert all(f"{code}: {message}" in dataset.ImageComments for code, message in flagged.items())
    return {f["code"]: f["message"] for f in record["findings"]}


def test_an_ordinary_field_has_no_finding_of_its_own(ct_dir: Path, tmp_path: Path, capsys):
    # mutant: SMALL_FIELD from 61 mm; HIGH_DENSITY from 0.9 g/cm³
    plan = write_plan(tmp_path / "RP.dcm", ct_dir, one_beam())
    assert set(findings_of_dose(ct_dir, plan, tmp_path / "RD.dcm", capsys)) == {"HU_CALIBRATION_GENERIC"}


def test_beyond_the_validated_range_there_is_a_dose_with_its_findings(ct_dir: Path, tmp_path: Path, capsys):
    # mutant: recalculation that drops the checks' findings; RT Dose without them
    folder = tmp_path / "CT"
    write_series(folder, body(metal_hu=2500), spacing_zyx_mm=SPACING_ZYX_MM, origin_xyz_mm=ORIGIN_XYZ_MM)
    change = set_in(point, IsocenterPosition=["0", "-75", "0"])
    plan = write_plan(tmp_path / "RP.dcm", ct_dir, one_beam(half_mm=10.0, mu=1200.0), change)
    found = findings_of_dose(folder, plan, tmp_path / "RD.dcm", capsys)
    assert {"SMALL_FIELD", "SMALL_SEGMENTS", "HIGH_DENSITY", "MU_RANGE", "ISOCENTRE_OUTSIDE_BODY"} <= set(found)
    assert "20.0 mm wide" in found["SMALL_FIELD"]
    assert "up to 2.4" in found["HIGH_DENSITY"]
    assert recalculated(folder, plan, tmp_path / "RD.dcm", "--overwrite") == 0
    said = capsys.readouterr().err
    assert (
        "rtplan: flag: SMALL_FIELD: whole opening narrower than 30 mm: beam 1" in said
        and "rtplan: info: SMALL_SEGMENTS: 1 of 1 segments, 100 %" in said
    )


def target(half_mm: float):
    z = np.arange(SHAPE_ZYX[0]) * 3.0 - 36.0
    return block("PTV_5000", "PTV", (-half_mm, -half_mm, half_mm, half_mm), np.flatnonzero(np.abs(z) <= half_mm))


@pytest.mark.physics
def test_a_plan_beyond_the_validated_range_says_so_in_report_and_label(tmp_path: Path):
    # mutant: the checks' findings left out of ReportData; the label without data.findings
    folder, out = tmp_path / "CT", tmp_path / "out"
    write_series(folder, body(metal_hu=2500), spacing_zyx_mm=SPACING_ZYX_MM, origin_xyz_mm=ORIGIN_XYZ_MM)
    structures = write_drawing(tmp_path / "RS.dcm", read_ct(folder), Drawing([target(6.0)]))
    (tmp_path / "tiny.yaml").write_text(PROTOCOL)
    out.mkdir()
    order = Order(str(folder), str(structures), str(tmp_path / "tiny.yaml"), MACHINE, "cpu")
    outcome = plan_case(order, out, progress=silent)
    assert outcome.planned
    report = json.loads((out / "report.json").read_text())
    flagged = {f["code"] for f in report["findings"] if f["severity"] == "flag"}
    assert {"SMALL_FIELD", "HIGH_DENSITY"} <= flagged
    assert "SMALL_SEGMENTS" in {f["code"] for f in report["findings"] if f["severity"] == "info"}
    page = (out / "report.html").read_text()
    assert all(code in page for code in (*flagged, "SMALL_SEGMENTS"))
    label = pydicom.dcmread(out / "RTPLAN.dcm").RTPlanDescription
    assert "SMALL_FIELD" in label and "HIGH_DENSITY" in label and "SMALL_SEGMENTS" not in label
    assert "HIGH_DENSITY: " in pydicom.dcmread(out / "RTDOSE.dcm").ImageComments
    assert all(check["passed"] for check in report["checks"])
