"""One case from order to outcome: every mistake becomes a value, and half-written results never show."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rtplan.domain.case import Order
from rtplan.domain.outcome import CaseOutcome
from rtplan.domain.progress import Progress
from rtplan.errors import CaseRejected, LibraryInvalid, RtplanError

Planner = Callable[..., CaseOutcome]  # plan_case(order, out_dir, *, progress)

PLAN_FILES = ("RTSTRUCT.dcm", "RTPLAN.dcm", "RTDOSE.dcm", "report.html", "report.json")
VERDICT_FILE = "verdict.json"

# An order that names a protocol, machine or model nobody has is the sender's mistake; a broken library file is the site's.
UNKNOWN_IN_LIBRARY = frozenset({"PROTOCOL_UNKNOWN", "MACHINE_UNKNOWN", "MODEL_UNKNOWN"})

_PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True)
class Job:
    """One order and the absolute folder that its result goes to. `name` tells jobs of one run apart."""

    name: str
    order: Order
    out_dir: str


def outcome_of_error(error: RtplanError, seconds: float) -> CaseOutcome:
    """The outcome that an error stands for, routed by class and code."""
    rejected = isinstance(error, CaseRejected) or error.code in UNKNOWN_IN_LIBRARY
    return CaseOutcome(
        outcome="rejected" if rejected else "failed",
        code=error.code,
        message=error.line(),
        seconds=seconds,
        found=error.found,
        expected=error.expected,
        remedy=error.remedy,
        error_exit_code=error.exit_code if isinstance(error, LibraryInvalid) and not rejected else None,
    )


def outcome_of_accident(error: BaseException, seconds: float) -> CaseOutcome:
    """The outcome of an exception that nobody raised on purpose. RTPLAN_DEBUG=1 prints its traceback to stderr."""
    if os.environ.get("RTPLAN_DEBUG"):
        sys.stderr.write("".join(traceback.format_exception(error)))
    if isinstance(error, MemoryError):
        known = RtplanError("OUT_OF_MEMORY", "the case needs more memory than there is", "", "run fewer cases at a time")
    else:
        found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        known = RtplanError("INTERNAL_ERROR", found, "", "set RTPLAN_DEBUG=1 to see where, and report it")
    return outcome_of_error(known, seconds)


def run_case(job: Job, *, progress: Progress, planner: Planner | None = None) -> CaseOutcome:
    """Plan one case; results appear in the output folder only once all of them are written.

    `planner` is rtplan.pipeline.plan_case unless given. Never raises for a mistake in the case or the engine.
    """
    started = time.monotonic()
    out_dir = Path(job.out_dir)
    staging = out_dir / f"{_PARTIAL}{uuid.uuid4().hex}"
    try:
        plan = planner or _plan_case()
        staging.mkdir(parents=True)
        outcome = plan(job.order, staging, progress=progress)
        return replace(outcome, files=_publish(staging, out_dir), seconds=time.monotonic() - started)
    except RtplanError as error:
        return outcome_of_error(error, time.monotonic() - started)
    except Exception as error:
        return outcome_of_accident(error, time.monotonic() - started)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _plan_case() -> Planner:
    # Late, because it loads the whole engine, and the client that only submits jobs has no use for it.
    from rtplan.pipeline import plan_case

    planner: Planner = plan_case
    return planner


def _publish(staging: Path, out_dir: Path) -> tuple[str, ...]:
    names = sorted((p.name for p in staging.iterdir()), key=lambda n: (n.startswith("report"), n))
    for name in names:
        # The report comes last: where it lies, everything it speaks of lies too.
        os.replace(staging / name, out_dir / name)
    return tuple(names)


def settle(job: Job, outcome: CaseOutcome) -> None:
    """Leave the output folder as the outcome says: the plan's files, or nothing but the verdict."""
    out_dir = Path(job.out_dir)
    if outcome.planned:
        return
    clear_results(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    verdict = {
        "outcome": outcome.outcome,
        "code": outcome.code,
        "found": outcome.found,
        "expected": outcome.expected,
        "remedy": outcome.remedy,
    }
    write_text_whole(out_dir / VERDICT_FILE, json.dumps(verdict, indent=2, ensure_ascii=False) + "\n")


def discard_partials(folder: Path) -> None:
    """Remove what killed or interrupted workers left in an output folder, or in the case folders of a batch."""
    for left in (*folder.glob(f"{_PARTIAL}*"), *folder.glob(f"*/{_PARTIAL}*")):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def tidied(folder: Path) -> Iterator[None]:
    """Leaves no half-written results behind, however the block ends. Enter it before the cluster that writes them."""
    try:
        yield
    finally:
        discard_partials(folder)


def clear_results(out_dir: Path) -> None:
    """Remove what an earlier run of the engine wrote into a folder, and nothing else."""
    for name in (*PLAN_FILES, VERDICT_FILE):
        (out_dir / name).unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new content and never a half."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
