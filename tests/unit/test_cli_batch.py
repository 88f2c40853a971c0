"""`rtplan batch`: one outcome a row, and one bad patient never stops the others."""

from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtplan.cli.main import run
from rtplan.domain.outcome import CaseOutcome
from rtplan.errors import CaseRejected, RequestInvalid
from rtplan.service.batch import harmless_cell
from rtplan.service.job import run_case
from rtplan.service.manifest import read_manifest

HEADER = "ct,structures,protocol,machine\n"


class InlineCluster:
    """Runs jobs in this process; the CT folder's name says how a case ends."""

    def run(self, jobs, *, on_progress, planner=None):
        for job in reversed(jobs):  # the order in which cases end is nobody's promise
            yield job, run_case(job, progress=lambda step, fraction, message="": None, planner=self.plan)

    @staticmethod
    def plan(order, out_dir, *, progress):
        (out_dir / "RTPLAN.dcm").write_text(order.protocol_id)
        match Path(order.ct_dir).name:
            case "gap":
                raise CaseRejected("CT_SLICE_GAP", "slice missing at z = 3.0 mm")
            case "formula":
                return CaseOutcome("goals_missed", "PLANNED", "=1+1", goals_met=1, goals_total=2, missed=("=cmd()",))
            case "crash":
                raise ZeroDivisionError
        return CaseOutcome("goals_met", "PLANNED", "all goals met", goals_met=2, goals_total=2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    @contextmanager
    def fake(scheduler, **settings):
        yield InlineCluster()

    monkeypatch.setattr("rtplan.service.cluster.cluster", fake)
    for name in ("good", "gap", "formula", "crash"):
        (tmp_path / name).mkdir()
    (tmp_path / "RS.dcm").write_text("structures")
    return tmp_path


def batch(folder: Path, rows: list[str]) -> tuple[int, list[dict]]:
    (folder / "manifest.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    code = run(["batch", str(folder / "manifest.csv"), "-o", str(folder / "out")])
    return code, json.loads((folder / "out" / "outcomes.json").read_text())


def test_every_row_gets_its_own_outcome_and_folder(folder: Path):
    # mutant: stop at the first row that is rejected
    code, records = batch(
        folder,
        ["good,RS.dcm,p,m", "gap,RS.dcm,p,m", "absent,RS.dcm,p,m", ",RS.dcm,p,m", "crash,RS.dcm,p,m", "good,RS.dcm,q,m"],
    )
    assert code == 1
    assert [(r["row"], r["outcome"], r["code"]) for r in records] == [
        (1, "goals_met", "PLANNED"),
        (2, "rejected", "CT_SLICE_GAP"),
        (3, "rejected", "INPUT_MISSING"),
        (4, "rejected", "ROW_INCOMPLETE"),
        (5, "failed", "INTERNAL_ERROR"),
        (6, "goals_met", "PLANNED"),
    ]
    files = {p.name: sorted(f.name for f in p.iterdir()) for p in (folder / "out").iterdir() if p.is_dir()}
    assert files == {
        "case_001": ["RTPLAN.dcm"],
        **{f"case_{n:03d}": ["verdict.json"] for n in (2, 3, 4, 5)},
        "case_006": ["RTPLAN.dcm"],
    }
    assert (folder / "out" / "case_006" / "RTPLAN.dcm").read_text() == "q"


def test_a_row_may_name_its_own_model(folder: Path, monkeypatch):
    # mutant: the column read and forgotten; mutant: "none" taken for a model
    seen = []

    def plan(order, out_dir, *, progress):
        seen.append(order.model_id)
        (out_dir / "RTPLAN.dcm").write_text("plan")
        return CaseOutcome("goals_met", "PLANNED", "held", goals_met=1, goals_total=1, held=("SHAPE: odd", "PRONE: down"))

    monkeypatch.setattr(InlineCluster, "plan", staticmethod(plan))
    rows = ["good,RS.dcm,p,m,", "good,RS.dcm,p,m,own_model", "good,RS.dcm,p,m,none"]
    (folder / "manifest.csv").write_text(HEADER.strip() + ",model\n" + "\n".join(rows) + "\n")
    assert run(["batch", str(folder / "manifest.csv"), "-o", str(folder / "out"), "--model", "of_all"]) == 0
    assert seen == [None, "own_model", "of_all"]  # the stand-in ends them in reverse
    records = json.loads((folder / "out" / "outcomes.json").read_text())
    assert records[0]["held"] == ["SHAPE: odd", "PRONE: down"]
    with (folder / "out" / "outcomes.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["held"] == "SHAPE: odd; PRONE: down"
    assert run(["batch", str(folder / "manifest.csv"), "-o", str(folder / "none"), "--no-auto-contours"]) == 0
    assert seen[3:] == [None, "own_model", None]


@pytest.mark.parametrize("options", [(), ("--technique", "imrt")], ids=" ".join)
def test_all_rows_are_planned_by_the_technique_asked_for(folder: Path, monkeypatch, options):
    # mutant: the option read and forgotten
    seen = []

    def plan(order, out_dir, *, progress):
        seen.append(order.technique)
        (out_dir / "RTPLAN.dcm").write_text("plan")
        return CaseOutcome("goals_met", "PLANNED", "fine", goals_met=1, goals_total=1)

    monkeypatch.setattr(InlineCluster, "plan", staticmethod(plan))
    (folder / "manifest.csv").write_text(HEADER.strip() + "\ngood,RS.dcm,p,m\ngood,RS.dcm,p,m\n")
    assert run(["batch", str(folder / "manifest.csv"), "-o", str(folder / "out"), *options]) == 0
    assert seen == [options[1] if options else None] * 2


def test_table_and_json_agree(folder: Path):
    _, records = batch(folder, ["good,RS.dcm,p,m", "gap,RS.dcm,p,m"])
    with (folder / "out" / "outcomes.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [(r["case"], r["outcome"], r["message"]) for r in table] == [
        (r["case"], r["outcome"], r["message"]) for r in records
    ]


@pytest.mark.parametrize(
    ("rows", "code"), [(["good"], 0), (["good", "formula"], 3), (["formula", "gap"], 4), (["gap", "crash", "formula"], 1)]
)
def test_exit_code_is_the_worst_outcome(folder: Path, rows: list[str], code: int):
    assert batch(folder, [f"{name},RS.dcm,p,m" for name in rows])[0] == code


def test_outcomes_hold_no_formula(folder: Path):
    # mutant: write the message as it is
    batch(folder, ["formula,RS.dcm,p,m"])
    with (folder / "out" / "outcomes.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["message"], row["missed"]) == ("'=1+1", "'=cmd()")


@given(st.text())
def test_no_text_becomes_a_formula(text: str):
    cell = harmless_cell(text)
    assert cell.lstrip(" ")[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n") or not cell
    assert cell in (text, "'" + text)


def test_library_files_are_relative_to_the_manifest(folder: Path):
    batch(folder, ["good,RS.dcm,site/own.yaml,m"])
    assert (folder / "out" / "case_001" / "RTPLAN.dcm").read_text() == str(folder / "site" / "own.yaml")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "MANIFEST_COLUMNS"),
        ("ct,structures,protocol\na,b,c\n", "MANIFEST_COLUMNS"),
        ("ct,structures,protocol,machine,machine\n", "MANIFEST_COLUMNS"),
        (HEADER, "MANIFEST_EMPTY"),
        (HEADER + "\n,,,\n", "MANIFEST_EMPTY"),
        (HEADER + "a,b,c,d,e\n", "MANIFEST_INVALID"),
        (HEADER + '"a,b,c,d\n', "MANIFEST_INVALID"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_whole(tmp_path: Path, text: str, code: str):
    path = tmp_path / "manifest.csv"
    path.write_text(text)
    with pytest.raises(RequestInvalid) as caught:
        read_manifest(path)
    assert caught.value.code == code
    assert run(["batch", str(path), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_manifest_from_a_spreadsheet_is_read(tmp_path: Path):
    # Byte order mark, carriage returns, columns in another order, a blank line, a cell with a comma.
    path = tmp_path / "manifest.csv"
    path.write_bytes(b'\xef\xbb\xbfmachine,ct,structures,protocol\r\nm,"a, b",RS.dcm,p\r\n\r\nm,c,RS.dcm,p\r\n')
    rows = read_manifest(path)
    assert [(r.number, r.ct, r.machine) for r in rows] == [(1, "a, b", "m"), (2, "c", "m")]


def test_bytes_that_are_not_text_are_refused(tmp_path: Path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(HEADER.encode() + b"\xff\xfe,b,c,d\n")
    with pytest.raises(RequestInvalid, match="MANIFEST_INVALID"):
        read_manifest(path)
