"""The OpenKBP benchmark's run: patients in order, resumed, refused, and a small one from npz to record and picture."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from openkbp_records import GONE, MADE, NAMES, RUN

from benchmarks import bench_openkbp
from benchmarks.bench_openkbp import Bench, all_records
from benchmarks.openkbp import cases, judge
from benchmarks.openkbp.records import Criterion, Judged, read_kept, read_record
from benchmarks.plan_process import PlanRun
from rtplan.dicom.read_ct import read_ct
from rtplan.dicom.uids import new_output_ids
from rtplan.dicom.write_rtdose import write_rtdose
from rtplan.domain.case import Order
from rtplan.domain.dose import Dose
from rtplan.domain.grid import Grid
from rtplan.provenance import sha256_of_file

TOOLS = Path(__file__).parents[2].parent / "shared" / "tools"
needs_tools = pytest.mark.skipif(not TOOLS.is_dir(), reason=f"no OpenKBP tools in {TOOLS}")
PROTOCOL = Path("/somewhere/protocol.yaml")


def small_patient(path: Path) -> Path:
    """A cylinder of water with all ten structures side by side; the reference dose is 70 Gy in PTV70, falling away."""
    shape = (16, 40, 40)
    z, y, x = np.indices(shape)
    body = np.hypot(y - 19.5, x - 19.5) < 17
    names = [*cases_structures(), "possible_dose_mask", "External"]
    mask = np.zeros(shape, np.uint16)
    for bit, name in enumerate(names[:-2]):
        place = (y // 8 == 1 + bit // 4) & (x // 6 == 1 + bit % 4) & (z > 3) & (z < 12)
        mask |= (place & body).astype(np.uint16) << bit
        assert (place & body).any(), name
    mask |= body.astype(np.uint16) << 10 | body.astype(np.uint16) << 11
    dose = np.where(mask >> 9 & 1, 35000, np.where(body, 10000, 0)).astype(np.uint16)
    np.savez(
        path,
        ct=np.where(body, 0, -1000).astype(np.int16),
        dose=dose,
        dose_scale=0.002,
        mask=mask,
        bit_names=np.array(names),
        spacing=np.array([3.0, 4.0, 4.0]),
        origin=np.array([-78.0, -70.0, 12.0]),
        crop=np.array([0, 16, 40, 80, 30, 70], np.int16),
        body_z=np.array([0, 15], np.int16),
        flags=np.array([""]),
        patient_id=path.stem,
    )
    return path


def cases_structures() -> tuple[str, ...]:
    organs = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")
    return (*organs, *judge.TARGETS)


def test_patients_come_by_their_number_and_none_is_left_out_quietly(tmp_path):
    # mutant: sorted by name; foreign files skipped
    for name in ("pt_10", "pt_9", "pt_100"):
        small_patient(tmp_path / f"{name}.npz")
    assert [p.stem for p in cases.patient_files(tmp_path, None)] == ["pt_9", "pt_10", "pt_100"]
    assert [p.stem for p in cases.patient_files(tmp_path, 2)] == ["pt_9", "pt_10"]
    np.savez(tmp_path / "pt_1.npz", ct=np.zeros(1))
    with pytest.raises(SystemExit, match=r"pt_1\.npz: lacks dose, mask"):
        cases.patient_files(tmp_path, None)
    (tmp_path / "pt_1.npz").rename(tmp_path / "patient.npz")
    with pytest.raises(SystemExit, match=r"patient\.npz"):
        cases.patient_files(tmp_path, None)


def test_absent_tools_are_named_with_the_way_out(tmp_path):
    with pytest.raises(SystemExit, match=r"openkbp_criteria\.py or openkbp_to_dicom\.py; .*--tools"):
        cases.load_tools(tmp_path / "a" / "b" / "c", None)


def test_a_technique_is_asked_for_in_the_protocol_or_refused(tmp_path, monkeypatch):
    # mutant: the library's own technique planned whatever was asked for
    monkeypatch.setattr(cases, "SITES", tmp_path)
    library, out = tmp_path / f"{cases.PROTOCOL}.yaml", tmp_path / "out"
    out.mkdir()
    library.write_text("id: x\ntechnique: imrt\nbeams: 1\n")
    assert cases.protocol_file("vmat", out).read_text() == "id: x\ntechnique: vmat\nbeams: 1\n"
    library.write_text("id: x\nbeams: 1\n")
    assert cases.protocol_file("imrt", out).read_text() == library.read_text()
    with pytest.raises(SystemExit, match="names no technique"):
        cases.protocol_file("vmat", out)
    with pytest.raises(SystemExit, match="FIELD_MISSING"):
        cases.made_by("imrt", "auto", cases.protocol_file("imrt", out), fake_tools())


def fake_tools() -> cases.Tools:
    """Criteria by the dose in PTV70 alone."""

    def load(path):
        with np.load(path) as npz:
            names, mask = [str(n) for n in npz["bit_names"]], npz["mask"]
            masks = {name: (mask >> bit & 1).astype(bool) for bit, name in enumerate(names)}
            return {"spacing": npz["spacing"], "origin": npz["origin"], "ct": npz["ct"]}, masks, npz["dose"] * 0.002

    criteria = SimpleNamespace(
        load=load,
        metrics=lambda masks, dose, spacing: {"PTV70+.D99": dose[masks["PTV70"]].min()},
        criteria=lambda metrics: {NAMES[2]: (metrics["PTV70+.D99"], bool(metrics["PTV70+.D99"] >= 66.5))},
    )
    return cases.Tools(criteria, SimpleNamespace(convert=lambda *a, **k: None), "c")  # type: ignore[arg-type]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "sources_sha256", lambda root: MADE.sources)
    asked: list[str] = []

    def planner(order, folder):
        asked.append(folder.name)
        return GONE

    return Bench(tmp_path, fake_tools(), MADE, PROTOCOL, planner, False), asked


def test_a_second_run_plans_nobody_again_and_other_code_plans_everybody(bench, tmp_path):
    # mutant: the record not read; the order of completion kept
    made, asked = bench
    files = [small_patient(tmp_path / f"pt_{n}.npz") for n in (3, 7)]
    said: list[str] = []
    first = all_records(made, files, 2, said.append)
    assert [r.patient for r in first] == ["pt_3", "pt_7"] and sorted(asked) == ["pt_3", "pt_7"]
    assert first[0].ours == Judged({NAMES[2]: Criterion(None, False)}, {}) and first[0].reference.met == 1
    assert len(said) == 2 and all("0 of 1 criteria, reference 1; NO PLAN: SS_EMPTY" in line for line in said)
    assert all_records(made, files, 1, said.append) == first and len(asked) == 2
    newer = replace(made, made=replace(MADE, protocol="edited"))
    assert all_records(newer, files, 1, said.append) != first and len(asked) == 4


def test_a_run_whose_folder_is_gone_goes_on_from_the_file_of_records(bench, tmp_path):
    # mutants: the file not read; not checked against what it was made by; others' records dropped from it
    made, asked = bench
    keep = tmp_path / "kept.jsonl"
    files = [small_patient(tmp_path / f"pt_{n}.npz") for n in (3, 7)]
    first = all_records(made, files, 2, lambda line: None, keep)
    for npz in files:
        (tmp_path / f"{npz.stem}.json").unlink()
    again = replace(made, kept=read_kept(keep))
    assert all_records(again, files[1:], 1, lambda line: None, keep) == first[1:] and len(asked) == 2
    assert list(read_kept(keep)) == ["pt_3", "pt_7"]
    newer = replace(again, made=replace(MADE, protocol="edited"))
    all_records(newer, files[1:], 1, lambda line: None, keep)
    assert len(asked) == 3


def test_the_first_twenty_are_told_once_along_the_way(bench, tmp_path, monkeypatch):
    # mutant: told at the end of a run of fewer too; told after any twenty
    monkeypatch.setattr(bench_openkbp, "FIRST", 2)
    files = [small_patient(tmp_path / f"pt_{n}.npz") for n in (1, 2, 3)]
    said: list[str] = []
    all_records(bench[0], files, 1, said.append)
    assert [line.split(":")[0] for line in said if line.startswith("the first")] == ["the first 2"]
    assert said.index(next(line for line in said if line.startswith("the first"))) in (2, 3)
    said.clear()
    all_records(bench[0], files[:2], 1, said.append)
    assert not any(line.startswith("the first") for line in said)


def test_code_that_changed_meanwhile_leaves_no_record(bench, tmp_path, monkeypatch):
    # mutant: recorded all the same
    npz = small_patient(tmp_path / "pt_1.npz")
    monkeypatch.setattr(cases, "sources_sha256", lambda root: "edited")
    with pytest.raises(SystemExit, match="the code changed while pt_1 was planned"):
        all_records(bench[0], [npz], 1, lambda line: None)
    assert not (tmp_path / "pt_1.json").exists()


@needs_tools
def test_a_small_patient_from_npz_to_record_and_picture(tmp_path, monkeypatch):
    """The planner gives 1.02 of the reference dose on a grid of its own, so both judgements are known."""
    # mutant: the plan's dose read as (x, y, z); targets not nested; the reference judged in place of ours
    monkeypatch.setattr(cases, "sources_sha256", lambda root: MADE.sources)
    npz = small_patient(tmp_path / "pt_5.npz")
    tools = cases.load_tools(tmp_path, TOOLS)

    def planner(order: Order, folder: Path) -> PlanRun:
        ct = read_ct(Path(order.ct_dir))
        assert (
            order.protocol_id == str(PROTOCOL) and order.structures_path is not None and Path(order.structures_path).exists()
        )
        folder.mkdir()
        dose = scaled_reference(npz, 1.02)
        write_rtdose(folder / "RTDOSE.dcm", dose, ct, new_output_ids(datetime(2026, 1, 1, tzinfo=UTC)))
        (folder / "report.json").write_text(json.dumps(REPORT))
        return RUN

    made = Bench(tmp_path, tools, MADE, PROTOCOL, planner, False).record(npz)
    assert made.npz_sha256 == sha256_of_file(npz) and made.plan is not None and made.plan.mu == 600.0
    assert len(made.ours.criteria) == 10 and made.reference.criteria[NAMES[2]] == Criterion(pytest.approx(70.0), True)
    assert made.ours.criteria[NAMES[2]].value_gy == pytest.approx(71.4, abs=0.01)
    assert made.ours.criteria["PTV56 D99>=53.2"].value_gy == pytest.approx(20.4, abs=0.01)
    assert made.ours.criteria[NAMES[1]] == Criterion(pytest.approx(20.4, abs=0.01), True)
    assert made.ours.figures["body.Dmean"] == pytest.approx(1.02 * made.reference.figures["body.Dmean"], rel=1e-3)
    assert (tmp_path / "pt_5.png").read_bytes().startswith(b"\x89PNG")
    assert read_record(tmp_path / "pt_5.json") == made


REPORT = {
    "plan": {"mu_per_fraction": 600.0, "segments": 90, "beams": 9},
    "goals_met": 5,
    "goals_judged": 9,
    "timings_s": [{"step": "optimise", "seconds": 30.0}],
    "goals": [],
    "beams": [{"isocentre_xyz_mm": [0.0, 0.0, 36.0]}],
}


def scaled_reference(npz: Path, factor: float) -> Dose:
    """The reference dose times a factor, on the patient's grid cut by a slice at both ends."""
    with np.load(npz) as data:
        gy, origin = data["dose"][1:-1] * 0.002 * factor, data["origin"]
    grid = Grid(gy.shape, (3.0, 4.0, 4.0), (float(origin[0]), float(origin[1]), float(origin[2]) + 3.0))
    return Dose(grid, gy.astype(np.float32))


def test_outside_the_plan_s_dose_grid_the_body_is_not_averaged():
    # mutant: zeros beyond the grid in the mean
    patient_grid = Grid((4, 3, 3), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    dose = Dose(Grid((2, 3, 3), (3.0, 2.0, 2.0), (0.0, 0.0, 3.0)), np.full((2, 3, 3), 8.0, np.float32))
    dose_gy, covered = judge.on_patient_grid(dose, patient_grid)
    np.testing.assert_array_equal(covered.all(axis=(1, 2)), [False, True, True, False])
    np.testing.assert_array_equal(dose_gy[:, 0, 0], [0.0, 8.0, 8.0, 0.0])
    body = {"External": np.ones((4, 3, 3), bool)}
    patient = judge.PatientVolumes(patient_grid, np.zeros((4, 3, 3), np.int16), body, dose_gy)
    silent = SimpleNamespace(metrics=lambda masks, dose, spacing: {}, criteria=lambda metrics: {})
    assert judge.judged(silent, patient, dose_gy, covered).figures == {"body.Dmean": 8.0}
