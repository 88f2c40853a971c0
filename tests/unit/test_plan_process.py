"""A case planned in a process of its own: every end of that process is an outcome."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import plan_process
from benchmarks.plan_process import plan_in_process
from rtplan.domain.case import Order

ORDER = Order("/nowhere", "/nowhere/RS.dcm", "no_such_protocol", "generic_6mv", "auto")


def test_a_case_that_is_refused_comes_back_from_its_process_with_code_and_memory(tmp_path):
    # mutant: the code lost on the way
    run = plan_in_process(ORDER, tmp_path / "out", threads=1)
    assert (run.outcome, run.code, run.planned) == ("rejected", "PROTOCOL_UNKNOWN", False)
    assert run.process_s > run.seconds and run.cpu_s is not None and run.cpu_s > 0
    if Path("/proc/self/status").exists():
        assert run.peak_memory_gb is not None and 0.02 < run.peak_memory_gb < 4.0


def test_a_process_that_dies_or_hangs_is_an_outcome_and_a_break_is_the_user_s(tmp_path, monkeypatch):
    # mutant: a missing result raises; Ctrl-C recorded as the patient's failure
    python = sys.executable

    def script(text: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        monkeypatch.setattr(plan_process.sys, "executable", str(path))

    script("echo 'no room' >&2; exit 9")
    died = plan_in_process(ORDER, tmp_path / "out", threads=1)
    assert (died.code, died.message, died.planned) == ("PROCESS_DIED", "exit code 9: no room", False)
    script("exec sleep 5")
    assert plan_in_process(ORDER, tmp_path / "out", threads=1, limit_s=0.2).code == "TIMED_OUT"
    # A shell cannot undo that it was started with interrupts ignored; Python can.
    reset = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)"
    script(f"exec {python} -c '{reset}'")
    with pytest.raises(KeyboardInterrupt):
        plan_in_process(ORDER, tmp_path / "out", threads=1)
