"""The command line: exit codes, one line a mistake, results on stdout and the rest on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_plan import DOSE_GRID

from rtplan.cli.main import run
from rtplan.domain.dose import Dose
from rtplan.domain.outcome import CaseOutcome, worst_exit_code
from rtplan.domain.verdict import Finding
from rtplan.errors import BackendMissing, CaseRejected, LibraryInvalid, PlanningFailed
from rtplan.recalculation import Recalculation
from rtplan.service.job import PLAN_FILES, run_case

MET = CaseOutcome("goals_met", "PLANNED", "all goals met", goals_met=2, goals_total=2)
MISSED = CaseOutcome(
    "goals_missed", "PLANNED", "one goal missed", goals_met=1, goals_total=2, missed=("SpinalCord Max[Gy]",)
)


class InlineCluster:
    """Runs jobs in this process, with a stand-in for the pipeline."""

    def __init__(self, planner) -> None:
        self.planner = planner
        self.jobs = []

    def run(self, jobs, *, on_progress, planner=None) -> Iterator:
        for job in jobs:
            self.jobs.append(job)

            def progress(step, fraction, message="", name=job.name):
                on_progress(name, step, fraction, message)

            yield job, run_case(job, progress=progress, planner=self.planner)


def planner_of(end):
    """A pipeline that writes its files and ends in `end`: an outcome, or an exception."""

    def planner(order, out_dir, *, progress):
        result = end(order) if callable(end) and not isinstance(end, type) else end
        (out_dir / "RTSTRUCT.dcm").write_text("half of a plan")
        progress("ingest", 1.0, "30 slices")
        if isinstance(result, BaseException):
            raise result
        for name in PLAN_FILES:
            (out_dir / name).write_text("plan")
        return result

    return planner


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    """Puts a stand-in behind the commands; call it with what the pipeline is to end in."""

    def install(end) -> InlineCluster:
        inline = InlineCluster(planner_of(end))

        @contextmanager
        def fake(scheduler, **settings):
            inline.settings = {"scheduler": scheduler, **settings}
            yield inline

        monkeypatch.setattr("rtplan.service.cluster.cluster", fake)
        return inline

    return install


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    (tmp_path / "ct").mkdir()
    (tmp_path / "RS.dcm").write_text("structures")
    return [str(tmp_path / "ct"), "--structures", str(tmp_path / "RS.dcm"), "--protocol", "p", "--machine", "m"]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (MET, 0),
        (MISSED, 3),
        (CaseRejected("CT_SLICE_GAP", "slice missing at z = 3.0 mm", "even slices", "send all"), 4),
        (PlanningFailed("NOT_CONVERGED", "gap of 12 %"), 1),
        (BackendMissing("NO_GPU", "no GPU"), 1),
        (LibraryInvalid("FIELD_MISSING", "p.yaml, line 3: fractions"), 2),
        # The order names something that nobody has: the case goes back, as the list of bad input asks.
        (LibraryInvalid("PROTOCOL_UNKNOWN", "protocol 'p' is not known"), 4),
        (LibraryInvalid("MACHINE_UNKNOWN", "machine 'm' is not known"), 4),
        (RuntimeError("two\nlines"), 1),
        (MemoryError(), 1),
    ],
    ids=lambda value: getattr(value, "code", None) or type(value).__name__,
)
def test_exit_code_and_files_follow_the_outcome(engine, inputs, tmp_path: Path, capsys, end, code: int):
    # mutant: exit 1 for every error; leave RTSTRUCT.dcm of a rejected case behind
    engine(end)
    out = tmp_path / "out"
    assert run(["plan", *inputs, "-o", str(out)]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    if code in (0, 3):
        assert names(out) == set(PLAN_FILES)
        assert said.err.splitlines() == ["ingest 100% 30 slices"]
    else:
        assert names(out) == {"verdict.json"}
        assert said.out == ""
        assert next(line for line in said.err.splitlines() if not line.startswith("ingest")).startswith("rtplan: ")
        assert len(said.err.splitlines()) == 2
        assert set(json.loads((out / "verdict.json").read_text())) == {"outcome", "code", "found", "expected", "remedy"}


def test_verdict_states_code_found_expected_and_remedy(engine, inputs, tmp_path: Path):
    engine(CaseRejected("CT_SLICE_GAP", "slice missing at z = 3.0 mm", "even slices", "send all"))
    run(["plan", *inputs, "-o", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "verdict.json").read_text()) == {
        "outcome": "rejected",
        "code": "CT_SLICE_GAP",
        "found": "slice missing at z = 3.0 mm",
        "expected": "even slices",
        "remedy": "send all",
    }


@pytest.mark.parametrize(
    ("options", "model_id"),
    [((), "head_neck_oar"), (("--model", "whole_body"), "whole_body"), (("--no-auto-contours", "--model", "x"), None)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_order_names_the_model_that_contours(engine, inputs, tmp_path: Path, monkeypatch, options, model_id):
    # mutant: no model unless one is named; mutant: --no-auto-contours without effect
    monkeypatch.setenv("HOME", str(tmp_path))
    inline = engine(MET)
    assert run(["plan", *inputs, "-o", str(tmp_path / "out"), *options]) == 0
    assert inline.jobs[0].order.model_id == model_id


@pytest.mark.parametrize("options", [(), ("--technique", "vmat")], ids=" ".join)
def test_the_order_names_the_technique(engine, inputs, tmp_path: Path, options):
    # mutant: the option read and forgotten
    inline = engine(MET)
    assert run(["plan", *inputs, "-o", str(tmp_path / "out"), *options]) == 0
    assert inline.jobs[0].order.technique == (options[1] if options else None)


def test_a_plan_without_structures_is_an_order_that_the_engine_answers(engine, inputs, tmp_path: Path):
    # The door lets it in: the case is rejected with SS_MISSING and a verdict, as other bad input is.
    inline = engine(MET)
    assert run(["plan", inputs[0], *inputs[3:], "-o", str(tmp_path / "out")]) == 0
    assert inline.jobs[0].order.structures_path is None


def test_what_holds_a_case_is_said_before_the_goals(engine, inputs, tmp_path: Path, capsys):
    # mutant: say the goals alone
    engine(replace(MISSED, held=("SHAPE: SpinalCord is odd",)))
    run(["plan", *inputs, "-o", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["held: SHAPE: SpinalCord is odd", "missed: SpinalCord Max[Gy]"]
    run(["plan", *inputs, "-o", str(tmp_path / "out"), "--overwrite", "--json"])
    assert json.loads(capsys.readouterr().out)["held"] == ["SHAPE: SpinalCord is odd"]


def test_missed_goals_and_files_go_to_stdout(engine, inputs, tmp_path: Path, capsys):
    engine(MISSED)
    run(["plan", *inputs, "-o", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 of 2 goals met in ")
    assert lines[1] == "missed: SpinalCord Max[Gy]"
    assert str(tmp_path / "out" / "RTPLAN.dcm") in lines


def test_json_is_all_of_stdout(engine, inputs, tmp_path: Path, capsys):
    engine(CaseRejected("CT_SLICE_GAP", "gap"))
    assert run(["plan", *inputs, "-o", str(tmp_path / "out"), "--json"]) == 4
    record = json.loads(capsys.readouterr().out)
    assert (record["outcome"], record["code"], record["exit_code"]) == ("rejected", "CT_SLICE_GAP", 4)


def test_text_from_files_cannot_steer_the_terminal(engine, inputs, tmp_path: Path, capsys):
    # mutant: write messages as they are
    engine(CaseOutcome("goals_missed", "PLANNED", "", missed=("\x1b[2J\nPTV [red]Max[Gy]",)))
    run(["plan", *inputs, "-o", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "missed:  [2J PTV [red]Max[Gy]" in said.splitlines()


def test_paths_reach_the_workers_absolute(engine, inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    inline = engine(MET)
    monkeypatch.chdir(tmp_path)
    run(["plan", "ct", "--structures", "RS.dcm", "--protocol", "p", "--machine", "m", "-o", "out", "--device", "cpu"])
    (job,) = inline.jobs
    assert (job.order.ct_dir, job.order.structures_path) == (str(tmp_path / "ct"), str(tmp_path / "RS.dcm"))
    assert (job.out_dir, job.order.device) == (str(tmp_path / "out"), "cpu")


def test_a_folder_in_use_is_refused_and_stays_as_it_is(engine, inputs, tmp_path: Path, capsys):
    # mutant: plan into it all the same
    engine(MET)
    out = tmp_path / "out"
    out.mkdir()
    (out / "RTPLAN.dcm").write_text("of yesterday")
    assert run(["plan", *inputs, "-o", str(out)]) == 2
    assert (out / "RTPLAN.dcm").read_text() == "of yesterday"
    assert capsys.readouterr().err.startswith("rtplan: OUTPUT_NOT_EMPTY: ")


def test_overwrite_leaves_no_old_result_beside_a_verdict(engine, inputs, tmp_path: Path):
    engine(CaseRejected("CT_SLICE_GAP", "gap"))
    out = tmp_path / "out"
    out.mkdir()
    for name in (*PLAN_FILES, "notes.txt"):
        (out / name).write_text("of yesterday")
    assert run(["plan", *inputs, "-o", str(out), "--overwrite"]) == 4
    assert names(out) == {"verdict.json", "notes.txt"}


def test_overwrite_leaves_no_old_verdict_beside_a_plan(engine, inputs, tmp_path: Path):
    # mutant: do not clear the folder first
    engine(MET)
    out = tmp_path / "out"
    out.mkdir()
    (out / "verdict.json").write_text("of yesterday")
    (out / ".partial-0").mkdir()  # of a run that was killed
    assert run(["plan", *inputs, "-o", str(out), "--overwrite"]) == 0
    assert names(out) == set(PLAN_FILES)


def test_output_inside_the_ct_folder_is_refused(engine, inputs, tmp_path: Path):
    engine(MET)
    assert run(["plan", *inputs, "-o", str(tmp_path / "ct" / "out")]) == 2
    assert names(tmp_path / "ct") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan"],
        ["plan", "no such folder"],
        ["nonsense"],
        ["plan", "--device", "quantum"],
        ["plan", "--technique", "tomotherapy"],
        ["protocols", "show"],
        ["protocols", "show", "no_such_protocol"],
        ["machines", "show", "no_such_machine"],
        ["batch", "no such manifest", "-o", "x"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(arguments: list[str], capsys):
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("rtplan: ")


def test_an_accident_in_a_command_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys):
    def broken():
        raise RuntimeError("disk\non fire")

    monkeypatch.setattr("rtplan.library.protocols.list_protocols", broken)
    assert run(["protocols", "list"]) == 1
    assert capsys.readouterr().err == (
        "rtplan: INTERNAL_ERROR: RuntimeError: disk on fire; remedy: set RTPLAN_DEBUG=1 to see where, and report it\n"
    )


def test_interrupt_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("rtplan.library.protocols.list_protocols", interrupted)
    assert run(["protocols", "list"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("shelf", ["protocols", "machines"])
def test_every_shelf_entry_can_be_listed_shown_and_read_as_json(shelf: str, capsys):
    assert run([shelf, "list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries
    for entry in entries:
        assert run([shelf, "show", entry["id"]]) == 0
        assert entry["status"] in capsys.readouterr().out.splitlines()[0]
        assert run([shelf, "show", entry["id"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["title"] == entry["title"]


def test_version_is_the_package_version(capsys):
    from rtplan.provenance import package_version

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"rtplan {package_version()}\n"


def test_worst_outcome_decides_for_many():
    failed, rejected = CaseOutcome("failed", "X", ""), CaseOutcome("rejected", "X", "")
    assert worst_exit_code((MET, MET)) == 0
    assert worst_exit_code((MET, MISSED)) == 3
    assert worst_exit_code((MISSED, rejected, MET)) == 4
    assert worst_exit_code((rejected, failed, MISSED)) == 1


@pytest.mark.parametrize(("error", "code"), [(None, 0), (CaseRejected("FOR_MISMATCH", "another frame"), 4)])
def test_dose_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys, error, code: int):
    # mutant: calculate into the named file itself
    def recalculate(ct_dir, plan_path, out_path, *, device, progress):
        out_path.write_text("dose")
        if error is not None:
            raise error
        return Recalculation(Dose(DOSE_GRID, np.zeros(DOSE_GRID.shape_zyx)), (Finding("ODD", "flag", "to be seen"),))

    monkeypatch.setattr("rtplan.recalculation.recalculate", recalculate)
    (tmp_path / "ct").mkdir()
    (tmp_path / "RTPLAN.dcm").write_text("plan")
    out = tmp_path / "new" / "RTDOSE.dcm"
    arguments = ["dose", str(tmp_path / "ct"), "--plan", str(tmp_path / "RTPLAN.dcm"), "-o", str(out)]
    assert run(arguments) == code
    assert names(out.parent) == ({"RTDOSE.dcm"} if code == 0 else set())
    said = capsys.readouterr()
    assert said.out == (f"{out}\n" if code == 0 else "")
    if code == 0:
        assert said.err.splitlines()[-1] == "rtplan: flag: ODD: to be seen"
    assert len([line for line in said.err.splitlines() if line.startswith("rtplan: ")]) == 1
    if code == 0:
        assert run(arguments) == 2  # a file that exists stays
