"""From a bare CT, or one with targets alone, to contours that say who drew them; the model is a stand-in that paints."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ct_series import write_series
from drawn_organs import VERSION, PaintedModel
from small_rtstruct import Drawing, block, write_drawing
from tiny_protocol import organ_goal, tiny_protocol

from rtplan import contouring
from rtplan.cli.main import run
from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.read_rtstruct import read_rtstruct
from rtplan.domain.case import Order
from rtplan.domain.contours import rasterise
from rtplan.domain.progress import silent
from rtplan.errors import BackendMissing, CaseRejected
from rtplan.library.machines import load_machine
from rtplan.library.protocols import load_protocol
from rtplan.pipeline import contoured, plan_case, prepare, provenance, read_inputs
from segmentation.contract import DeviceMissing, Doubt, ModelRefused, ModelUnverified, OutputInvalid

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_data" / "head_neck"
SHIPPED = ROOT / "segmentation" / "shipped" / "head_neck_oar" / "model.json"
MACHINE = "generic_6mv"
SHAPE_ZYX, SPACING_ZYX_MM, ORIGIN_XYZ_MM = (25, 60, 60), (3.0, 3.0, 3.0), (-88.5, -88.5, -36.0)


def protocol_needing(required: bool) -> str:
    """The small protocol with three organs; whether the cord is required."""
    organs = [
        {"name": "SpinalCord", "names": ["SpinalCord", "Cord"], "required": required},
        {"name": "Larynx", "names": ["Larynx"]},
        {"name": "Lips", "names": ["Lips"]},
    ]
    goals = [organ_goal("SpinalCord", "D0.03cc[Gy] <= 60", 2), organ_goal("Lips", "Mean[Gy] <= 20", 5)]
    goals += [organ_goal("Larynx", "Mean[Gy] <= 45", 4)]
    return tiny_protocol(organs, goals)


def box(x: slice, y: slice, z: slice = slice(4, 21)) -> np.ndarray:
    mask = np.zeros(SHAPE_ZYX, bool)
    mask[z, y, x] = True
    return mask


CORD, LARYNX = box(slice(28, 32), slice(40, 44)), box(slice(27, 33), slice(18, 22))
MASKS = {"SpinalCord": CORD, "Larynx": LARYNX, "Brainstem": box(slice(20, 24), slice(30, 34))}
DOUBT = Doubt("SHAPE", "SpinalCord", "flag", "ends in mid-air", (20, 42, 30))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cylinder of water with a target and, in RS_cord.dcm, a cord that a person drew elsewhere than the model does."""
    folder = tmp_path_factory.mktemp("case")
    _, y, x = np.meshgrid(*(np.arange(n) * 3.0 - (n - 1) * 1.5 for n in SHAPE_ZYX), indexing="ij")
    hu = np.where((x / 75) ** 2 + (y / 60) ** 2 < 1, 0, -1000).astype(np.int16)
    hu += np.random.default_rng(1).integers(-4, 5, hu.shape, dtype=np.int16) * (hu > -500)
    write_series(folder / "CT", hu, spacing_zyx_mm=SPACING_ZYX_MM, origin_xyz_mm=ORIGIN_XYZ_MM)
    ct = read_ct(folder / "CT")
    target = block("PTV_5000", "PTV", (-15, -15, 15, 15), range(8, 17))
    given = [target, block("Cord", "ORGAN", (-30, 20, -20, 30), range(4, 21))]
    write_drawing(folder / "RS.dcm", ct, Drawing([target]))
    write_drawing(folder / "RS_cord.dcm", ct, Drawing(given))
    write_drawing(folder / "RS_complete.dcm", ct, Drawing([*given, *(
        block(name, "ORGAN", (20 + 12 * i, -12, 30 + 12 * i, 0), range(4, 21)) for i, name in enumerate(("Larynx", "Lips"))
    )]))  # fmt: skip
    for required in ("true", "false"):
        (folder / f"{required}.yaml").write_text(protocol_needing(required == "true"))
    return folder


def order(case: Path, structures: str | None = "RS.dcm", required: str = "false", model: str | None = "painted") -> Order:
    path = None if structures is None else str(case / structures)
    return Order(str(case / "CT"), path, str(case / f"{required}.yaml"), MACHINE, "cpu", model)


def prepared(case: Path, painted: PaintedModel, **changes: str | None):
    this = order(case, **changes)
    inputs = read_inputs(this)
    drawn = contoured(this, inputs, "cpu", painted.load)
    return prepare(inputs, drawn), dict(provenance(inputs, drawn))


def severities(findings) -> dict[str, str]:
    return {f.code: f.severity for f in findings}


def test_with_targets_alone_the_organs_that_the_protocol_uses_come_from_the_model(case: Path):
    # mutant: every structure of the model; mutant: provenance without the model
    patient, made_from = prepared(case, PaintedModel(MASKS, doubts=(DOUBT,)))
    origins = {s.name: s.origin for s in patient.structures if s.kind != "CONTROL"}
    assert origins == {"External": "engine", "PTV_5000": "physician", "SpinalCord": "model", "Larynx": "model"}
    assert np.array_equal(patient.structures["SpinalCord"].mask, CORD)
    assert made_from["model painted"] == VERSION
    assert severities(patient.findings).items() >= {"SHAPE": "hold", "AUTO_CONTOURS": "flag", "GOAL_SKIPPED": "flag"}.items()


def test_an_organ_in_the_structure_set_is_never_the_models(case: Path):
    patient, _ = prepared(case, PaintedModel(MASKS, doubts=(DOUBT,)), structures="RS_cord.dcm")
    origins = {s.name: s.origin for s in patient.structures if s.kind == "ORGAN"}
    assert origins == {"SpinalCord": "physician", "Larynx": "model"}
    assert not (patient.structures["SpinalCord"].mask & CORD).any()
    assert "SHAPE" not in severities(patient.findings)


def test_a_complete_set_needs_no_model(case: Path):
    model = PaintedModel(MASKS)
    patient, made_from = prepared(case, model, structures="RS_complete.dcm")
    assert model.loaded == 0
    assert "model" not in {s.origin for s in patient.structures}
    assert not [name for name in made_from if name.startswith("model")]
    _, made_from = prepared(case, PaintedModel(MASKS), model=None)
    assert not [name for name in made_from if name.startswith("model")]


def test_a_refusing_model_holds_the_case_or_ends_it(case: Path):
    refusing = PaintedModel(error=ModelRefused("this is a pelvis"))
    patient, _ = prepared(case, refusing)
    assert severities(patient.findings)["MODEL_REFUSED"] == "hold"
    with pytest.raises(CaseRejected, match="SS_ORGAN_MISSING"):
        prepared(case, refusing, required="true")


def test_an_absent_device_of_the_model_ends_the_case_and_nothing_takes_its_place(case: Path):
    # mutant: a hold, as when the model refuses the CT
    with pytest.raises(BackendMissing, match="BACKEND_MISSING"):
        prepared(case, PaintedModel(error=DeviceMissing("device 'cuda' was asked for")))


def test_without_a_structure_set_no_target_is_invented(case: Path, tmp_path: Path):
    # mutant: go on with what the model draws
    model = PaintedModel(MASKS)
    with pytest.raises(CaseRejected) as caught:
        plan_case(order(case, None), tmp_path, progress=silent, load_model=model.load)
    assert caught.value.code == "SS_MISSING"
    assert "rtplan segment" in caught.value.remedy
    assert model.loaded == 0


TORCH_FREE = """
import sys
from pathlib import Path
from rtplan.domain.case import Order
from rtplan.pipeline import contoured, prepare, read_inputs
case = Path(sys.argv[1])
ct, structures, protocol = (str(case / name) for name in ("CT", "RS_complete.dcm", "false.yaml"))
order = Order(ct, structures, protocol, "generic_6mv", "cpu", "head_neck_oar")
inputs = read_inputs(order)
prepare(inputs, contoured(order, inputs, "cpu"))
sys.stderr.write(" ".join(m for m in ("torch", "monai", "safetensors") if m in sys.modules))
"""


def test_a_plan_with_all_its_contours_does_not_load_torch(case: Path):
    # mutant: import torch at the top of segmentation/bundles.py
    done = subprocess.run(
        [sys.executable, "-c", TORCH_FREE, str(case)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def segment(monkeypatch: pytest.MonkeyPatch):
    """Runs `rtplan segment` with a stand-in behind it."""

    def command(model: PaintedModel, ct: Path, out: Path, *options: str) -> int:
        monkeypatch.setattr(contouring, "contour_case", functools.partial(CONTOUR_CASE, load_model=model.load))
        return run(["segment", str(ct), "-o", str(out), "--model", "painted", *options])

    return command


CONTOUR_CASE = contouring.contour_case


def test_segment_writes_what_a_plan_can_be_made_on(segment, case: Path, tmp_path: Path, capsys):
    # mutant: algorithm left empty; mutant: types left out; mutant: contours half a pixel off
    out = tmp_path / "RS.dcm"
    assert segment(PaintedModel(MASKS, labels=tuple(MASKS)), case / "CT", out) == 0
    dataset = pydicom.dcmread(out)
    assert (dataset.ApprovalStatus, dataset.StructureSetLabel) == ("UNAPPROVED", "RTPLAN PROPOSAL")
    assert "proposal, not approved" in dataset.StructureSetName
    assert "NOT APPROVED" in dataset.StructureSetDescription
    assert f"painted {VERSION}: SpinalCord, Larynx, Brainstem" in dataset.StructureSetDescription
    assert {r.ROIGenerationAlgorithm for r in dataset.StructureSetROISequence} == {"AUTOMATIC"}
    described = {r.ROIName: r.get("ROIDescription", "") for r in dataset.StructureSetROISequence}
    assert f"painted {VERSION}; confidence 0.83" in described["SpinalCord"]
    ct = read_ct(case / "CT")
    found = read_rtstruct(out, ct)
    assert {r.name: r.interpreted_type for r in found.rois} == {"External": "EXTERNAL", **dict.fromkeys(MASKS, "ORGAN")}
    for roi in found.rois[1:]:
        assert np.array_equal(rasterise(roi.contours, ct.grid), MASKS[roi.name])
    said = capsys.readouterr()
    assert "SpinalCord" in said.out and "confidence 0.83" in said.out
    assert "flag: AUTO_CONTOURS" in said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["RS.dcm", "RS.html"]
    tool = shutil.which("dciodvfy")
    if tool is not None:
        lines = subprocess.run([tool, str(out)], capture_output=True, text=True, check=False).stderr.splitlines()
        assert [line for line in lines if line.startswith("Error")] == []


def test_segment_in_doubt_says_so_and_exits_with_3(segment, case: Path, tmp_path: Path, capsys):
    # mutant: exit 0 whatever was found
    code = segment(PaintedModel(MASKS, doubts=(DOUBT,)), case / "CT", tmp_path / "RS.dcm", "--json")
    record = json.loads(capsys.readouterr().out)
    assert code == 3
    assert record["in_doubt"] is True
    assert record["model"] == {"id": "painted", "version": VERSION}
    by_name = {s["name"]: s for s in record["structures"]}
    assert by_name["Larynx"]["volume_cc"] == pytest.approx(LARYNX.sum() * 0.027)
    assert by_name["Larynx"]["confidence"] == 0.83
    assert {f["code"] for f in record["findings"]} == {"SHAPE", "AUTO_NOT_FOUND", "AUTO_CONTOURS"}
    held = PaintedModel(MASKS, labels=tuple(MASKS), doubts=(Doubt("PRONE", None, "hold", "face down"),))
    assert segment(held, case / "CT", tmp_path / "RS.dcm", "--json", "--overwrite") == 3
    assert json.loads(capsys.readouterr().out)["held"] == ["PRONE: face down"]
    assert "HELD: PRONE" in pydicom.dcmread(tmp_path / "RS.dcm").StructureSetDescription


EMPTY = {name: np.zeros(SHAPE_ZYX, bool) for name in MASKS}


@pytest.mark.parametrize(
    ("model", "exit_code", "code"),
    [
        (PaintedModel({}), 4, "AUTO_NOTHING_FOUND"),
        (PaintedModel(EMPTY), 4, "AUTO_NOTHING_FOUND"),
        (PaintedModel({"SpinalCord": box(slice(0, 3), slice(0, 3))}), 4, "AUTO_NOTHING_FOUND"),  # in the air
        (PaintedModel(error=ModelRefused("this is a pelvis")), 4, "MODEL_REFUSED"),
        (PaintedModel(MASKS, error=OutputInvalid("not finite")), 1, "MODEL_OUTPUT_INVALID"),
        (PaintedModel(MASKS, unverified=ModelUnverified("another hash")), 2, "MODEL_UNVERIFIED"),
    ],
    ids=["nothing", "empty masks", "outside the body", "refused", "NaN", "unverified"],
)
def test_segment_never_leaves_a_structure_set_without_organs(
    segment, case: Path, tmp_path: Path, capsys, model: PaintedModel, exit_code: int, code: str
):
    # mutant: write the External alone
    assert segment(model, case / "CT", tmp_path / "RS.dcm") == exit_code
    assert f"rtplan: {code}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_segment_touches_no_other_files(segment, case: Path, tmp_path: Path, capsys):
    model = PaintedModel(MASKS)
    assert segment(model, case / "CT", tmp_path / "RS.txt") == 2
    assert segment(model, case / "CT", case / "CT" / "RS.dcm") == 2
    for name in ("RS.dcm", "RS.html"):
        (tmp_path / name).write_text("mine")
        assert segment(model, case / "CT", tmp_path / "RS.dcm") == 2
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    assert model.loaded == 0
    assert "OUTPUT_EXISTS" in capsys.readouterr().err


@pytest.mark.physics
def test_a_plan_on_drawn_organs_says_so_in_report_label_and_outcome(case: Path, tmp_path: Path):
    # mutant: held left out of the outcome; mutant: RTSTRUCT without the model
    model = PaintedModel(MASKS, doubts=(DOUBT,))
    outcome = plan_case(order(case), tmp_path, progress=silent, load_model=model.load)
    assert outcome.planned
    assert "SHAPE: SpinalCord: ends in mid-air" in outcome.held
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(outcome.held) == set(report["held"])
    assert {c["name"]: c["origin"] for c in report["contours"]}["SpinalCord"] == "model"
    assert report["provenance"]["model painted"] == VERSION
    assert 'class="small"' in (tmp_path / "report.html").read_text()
    label = pydicom.dcmread(tmp_path / "RTPLAN.dcm").RTPlanDescription
    assert "HELD" in label and "SHAPE" in label
    assert VERSION in pydicom.dcmread(tmp_path / "RTSTRUCT.dcm").StructureSetDescription


@pytest.mark.skipif(not SHIPPED.exists(), reason="no model ships in segmentation/shipped/head_neck_oar yet")
@pytest.mark.long
def test_the_model_that_ships_contours_the_head_and_neck_of_the_demo(tmp_path: Path):
    this = Order(str(SAMPLE / "CT"), str(SAMPLE / "RS_targets.dcm"), "head_neck_70_63_56", MACHINE, "cpu", "head_neck_oar")
    inputs = read_inputs(this)
    patient = prepare(inputs, contoured(this, inputs, "cpu"))
    drawn = {s.name for s in patient.structures if s.origin == "model"}
    assert {"Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Bone_Mandible"} <= drawn
    assert load_protocol(this.protocol_id).levels and load_machine(MACHINE)
    given = {"Brainstem": "Brain Stem", "SpinalCord": "Spinal Cord", "Bone_Mandible": "Mandible", "Parotid_L": "Parotid L"}
    truth = {r.name: r for r in read_rtstruct(SAMPLE / "RS.dcm", inputs.ct).rois}
    for name, source in given.items():
        mask, mine = rasterise(truth[source].contours, inputs.ct.grid), patient.structures[name].mask
        assert 2 * (mask & mine).sum() / (mask.sum() + mine.sum()) > 0.6, name
