"""Many cases through a cluster: one outcome a row, and one bad patient never stops the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtplan.domain.case import Order
from rtplan.domain.outcome import CaseOutcome
from rtplan.domain.prescription import Technique
from rtplan.errors import CaseRejected
from rtplan.service.cluster import CaseProgress, Cluster
from rtplan.service.job import Job, Planner, outcome_of_error, settle, write_text_whole
from rtplan.service.manifest import ManifestRow, check_row

NO_MODEL = "none"  # in the manifest: nothing is contoured for this row
OUTCOME_FILES = ("outcomes.csv", "outcomes.json")
_FIELDS = (
    *("row", "case", "ct", "structures", "protocol", "machine", "outcome", "code"),
    *("goals_met", "goals_total", "missed", "held", "seconds", "message"),
)
# A spreadsheet takes a cell that begins so as a formula to run.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """A row of the manifest and what came of it."""

    row: ManifestRow
    outcome: CaseOutcome

    def record(self) -> dict[str, str | int | float | list[str]]:
        """The fields of outcomes.csv and outcomes.json, in order."""
        row, end = self.row, self.outcome
        values = (
            *(row.number, row.name, row.ct, row.structures, row.protocol, row.machine, end.outcome, end.code),
            *(end.goals_met, end.goals_total, list(end.missed), list(end.held), round(end.seconds, 1), end.message),
        )
        return dict(zip(_FIELDS, values, strict=True))


def library_name(name: str, folder: Path) -> str:
    """A protocol's or machine's id as it is, and the path of a file as an absolute one."""
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    return str((folder / name).resolve()) if is_path else name


def run_batch(
    rows: Sequence[ManifestRow],
    *,
    folder: Path,
    out_dir: Path,
    device: str,
    model_id: str | None,
    technique: Technique | None = None,
    workers: Cluster,
    on_progress: CaseProgress,
    on_outcome: Callable[[RowOutcome], None],
    planner: Planner | None = None,
) -> tuple[RowOutcome, ...]:
    """Plan every row into its own folder under `out_dir` and keep outcomes.csv and outcomes.json up to date.

    Paths in the rows are relative to `folder`. `model_id` is the model of rows that name none; with None they get none.
    `technique` takes the place of each protocol's own.
    `on_outcome` hears each row as it ends. Returns them in the rows' order.
    """
    ended: dict[int, RowOutcome] = {}

    def end(row: ManifestRow, job: Job, outcome: CaseOutcome) -> None:
        settle(job, outcome)
        ended[row.number] = RowOutcome(row, outcome)
        write_outcomes(out_dir, [ended[number] for number in sorted(ended)])
        on_outcome(ended[row.number])

    jobs: dict[str, tuple[ManifestRow, Job]] = {}
    for row in rows:
        job = _job(row, folder, out_dir, device, model_id, technique)
        try:
            check_row(row, folder)
            jobs[job.name] = row, job
        except CaseRejected as error:
            end(row, job, outcome_of_error(error, 0.0))
    for job, outcome in workers.run([job for _, job in jobs.values()], on_progress=on_progress, planner=planner):
        end(jobs[job.name][0], job, outcome)
    return tuple(ended[row.number] for row in rows)


def _job(
    row: ManifestRow, folder: Path, out_dir: Path, device: str, model_id: str | None, technique: Technique | None
) -> Job:
    order = Order(
        ct_dir=str((folder / row.ct).resolve()),
        structures_path=str((folder / row.structures).resolve()),
        protocol_id=library_name(row.protocol, folder),
        machine_id=library_name(row.machine, folder),
        device=device,
        model_id=None if row.model == NO_MODEL else row.model or model_id,
        technique=technique,
    )
    return Job(row.name, order, str(out_dir / row.name))


def write_outcomes(out_dir: Path, ended: Sequence[RowOutcome]) -> None:
    """Write outcomes.csv and outcomes.json, each whole or not at all."""
    out_dir.mkdir(parents=True, exist_ok=True)
    records = [row.record() for row in ended]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_FIELDS)
    for record in records:
        writer.writerow([harmless_cell(value) for value in record.values()])
    write_text_whole(out_dir / OUTCOME_FILES[0], table.getvalue())
    write_text_whole(out_dir / OUTCOME_FILES[1], json.dumps(records, indent=2, ensure_ascii=False) + "\n")


def harmless_cell(value: str | int | float | list[str]) -> str | int | float:
    """A CSV cell that no spreadsheet takes for a formula: such text gets an apostrophe in front. Numbers stay."""
    text = "; ".join(value) if isinstance(value, list) else value
    if isinstance(text, str) and text.lstrip(" ").startswith(_FORMULA_START):
        return "'" + text
    return text
