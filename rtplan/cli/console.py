"""What commands say: results on stdout, progress and mistakes on stderr, one line a thing."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from rtplan.domain.outcome import CaseOutcome

LINE_EVERY_S = 10.0


def printable(text: str) -> str:
    """Text from files and errors as one line that cannot steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def say(text: str = "") -> None:
    """One line of result on stdout."""
    sys.stdout.write(printable(text) + "\n")


def say_json(value: Any) -> None:
    """A result on stdout for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def complain(line: str) -> None:
    """One line on stderr for a mistake."""
    sys.stderr.write(f"rtplan: {printable(line)}\n")


def outcome_record(outcome: CaseOutcome) -> dict[str, Any]:
    """An outcome as it stands in JSON."""
    record = asdict(outcome)
    del record["error_exit_code"]
    return record | {"exit_code": outcome.exit_code, "seconds": round(outcome.seconds, 1)}


def say_outcome(outcome: CaseOutcome, out_dir: str, *, as_json: bool) -> None:
    """A case's end: the goals and files on stdout, or the mistake on stderr."""
    if as_json:
        say_json(outcome_record(outcome) | {"out": out_dir})
    elif outcome.planned:
        say(f"{outcome.goals_met} of {outcome.goals_total} goals met in {outcome.seconds:.0f} s")
        for text in outcome.held:
            say(f"held: {text}")
        for goal in outcome.missed:
            say(f"missed: {goal}")
        for name in outcome.files:
            say(os.path.join(out_dir, name))
    if not outcome.planned:
        complain(outcome.message)


class StepDisplay:
    """Shows how far the steps of the running cases are: bars on a terminal, otherwise plain lines. Goes to stderr."""

    def __init__(self, *, name_cases: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._name_cases = name_cases
        self._bars: Progress | None = None
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._said: dict[str, tuple[str, float]] = {}
        self._ended: set[str] = set()

    def __enter__(self) -> StepDisplay:
        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self._console,
                # A piped stdout carries results; the bars must not draw it to themselves.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, case: str, step: str, fraction: float, message: str = "") -> None:
        """Show that `step` of `case` is done to `fraction`, with the figures of the moment."""
        title = printable(f"{case} {step}" if self._name_cases else step)
        fraction = min(max(fraction, 0.0), 1.0)
        if self._bars is not None:
            self._bar(case, step, title, fraction, printable(message))
        else:
            self._line(case, step, title, fraction, printable(message))

    def result(self, case: str, text: str) -> None:
        """One line of result on stdout for a case that ended, past the bars of the running ones."""
        self._ended.add(case)
        if self._bars is not None:
            for key in [key for key in self._tasks if key[0] == case]:
                self._bars.remove_task(self._tasks.pop(key))
            if sys.stdout.isatty():
                self._bars.console.print(printable(text), markup=False, highlight=False)
                return
        say(text)
        sys.stdout.flush()

    def _bar(self, case: str, step: str, title: str, fraction: float, message: str) -> None:
        assert self._bars is not None
        if case in self._ended:  # progress that came after the result
            return
        key = case, "" if self._name_cases else step
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(escape(title), total=1.0, figures="")
        self._bars.update(self._tasks[key], description=escape(title), completed=fraction, figures=escape(message))

    def _line(self, case: str, step: str, title: str, fraction: float, message: str) -> None:
        last_step, last_time = self._said.get(case, ("", 0.0))
        now = time.monotonic()
        if step != last_step:
            last_time = now
            self._said[case] = step, now
        # A quick step says one line, at its end; a slow one speaks up now and then.
        if fraction < 1.0 and now - last_time < LINE_EVERY_S:
            return
        self._said[case] = step, now
        sys.stderr.write(f"{title} {fraction:4.0%} {message}".rstrip() + "\n")
        sys.stderr.flush()
