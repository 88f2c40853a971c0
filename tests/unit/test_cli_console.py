"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rtplan.cli import console
from rtplan.cli.console import StepDisplay


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    class Clock:
        now = 100.0

    monkeypatch.setattr(console.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_quick_step_says_one_line_and_a_slow_one_speaks_now_and_then(clock, capsys):
    # mutant: say every event; stay silent until the end
    with StepDisplay(console=Console(file=io.StringIO())) as display:
        display("case", "ingest", 0.0)
        display("case", "ingest", 1.0, "30 slices")
        for tenth in range(10):
            clock.now += 4.0
            display("case", "optimise", tenth / 10, f"gap {10 - tenth} %")
        display("case", "optimise", 1.0, "gap 0 %")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "ingest 100% 30 slices",
        "optimise  30% gap 7 %",
        "optimise  60% gap 4 %",
        "optimise  90% gap 1 %",
        "optimise 100% gap 0 %",
    ]


def test_cases_of_a_batch_are_named(clock, capsys):
    with StepDisplay(name_cases=True, console=Console(file=io.StringIO())) as display:
        display("case_002", "ingest", 1.0)
    assert capsys.readouterr().err == "case_002 ingest 100%\n"


def test_bars_go_to_the_terminal_and_results_to_stdout(capsys):
    # mutant: let rich redirect stdout, and results vanish from a pipe
    terminal = io.StringIO()
    with StepDisplay(name_cases=True, console=Console(file=terminal, force_terminal=True, width=100)) as display:
        display("case_001", "optimise [red]", 0.5, "gap \x1b[2J 3 %")
        display.result("case_001", "case_001 goals_met: 3 of 3")
        display("case_001", "optimise", 0.9)
        display("case_002", "sequence", 0.2)
    said = capsys.readouterr()
    assert said.out == "case_001 goals_met: 3 of 3\n"
    assert said.err == ""
    assert "case_002 sequence" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue()
