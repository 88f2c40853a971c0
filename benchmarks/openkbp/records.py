"""What came of one patient, as a file that a later run reads again instead of planning once more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.openkbp.cases import Made
from benchmarks.plan_process import ACCIDENTS, PlanRun
from rtplan.service.job import write_text_whole

SCHEMA = "rtplan.bench_openkbp/1"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One clinical criterion on one dose. `value_gy` is None where there is no plan; then it is not met."""

    value_gy: float | None
    met: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A dose by the data set's criteria ("PTV70 D99>=66.5"), and other figures by name: Gy, or indices without unit."""

    criteria: Mapping[str, Criterion]
    figures: Mapping[str, float]

    @property
    def met(self) -> int:
        """How many criteria are met."""
        return sum(c.met for c in self.criteria.values())


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a goal's value lies from what its certificate says cannot be passed: 0 or more, in the metric's unit."""

    goal: str  # "Parotid_L Mean[Gy] <= 26"
    unit: str
    distance: float


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """What the plan's report says of the plan. `distances` is None where the report carries no certificates."""

    mu: float
    segments: int
    beams: int
    goals_met: int
    goals_judged: int
    steps_s: Mapping[str, float]
    distances: tuple[Distance, ...] | None


@dataclass(frozen=True, slots=True)
class Record:
    """One patient: how the planning ended, both doses judged, and what the plan needed (None without a plan)."""

    patient: str
    npz_sha256: str
    made: Made
    run: PlanRun
    ours: Judged
    reference: Judged
    plan: PlanFigures | None


def failed_judgement(reference: Judged) -> Judged:
    """A patient without a plan meets none of the criteria that the patient has."""
    return Judged({name: Criterion(None, False) for name in reference.criteria}, {})


def write_record(record: Record, path: Path) -> None:
    """Write the whole record or nothing."""
    write_text_whole(path, json.dumps({"schema": SCHEMA} | asdict(record), indent=1, allow_nan=False) + "\n")


def read_record(path: Path) -> Record | None:
    """The record in a file; None where there is no file, or one of another form."""
    try:
        return _record(path.read_text(encoding="utf-8"))
    except OSError:
        return None


def write_kept(records: Iterable[Record], path: Path) -> None:
    """Write records as one file, a line each, in the order of patients: what is left of a run when its folder is gone.
    Figures have six digits."""
    by_number = sorted(records, key=lambda r: int(r.patient.removeprefix("pt_")))
    lines = [json.dumps(_rounded({"schema": SCHEMA} | asdict(r)), allow_nan=False) for r in by_number]
    write_text_whole(path, "".join(f"{line}\n" for line in lines))


def read_kept(path: Path) -> dict[str, Record]:
    """Records of `write_kept` by patient; none where there is no file, and none for a line of another form."""
    if not path.exists():
        return {}
    found = (_record(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {record.patient: record for record in found if record is not None}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def _record(text: str) -> Record | None:
    try:
        data = json.loads(text)
        if data.pop("schema") != SCHEMA:
            return None
        return Record(
            patient=data["patient"],
            npz_sha256=data["npz_sha256"],
            made=Made(**data["made"]),
            run=PlanRun(**data["run"]),
            ours=_judged(data["ours"]),
            reference=_judged(data["reference"]),
            plan=None if data["plan"] is None else _plan(data["plan"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _judged(data: Mapping[str, Mapping[str, dict[str, float]]]) -> Judged:
    return Judged({name: Criterion(**c) for name, c in data["criteria"].items()}, dict(data["figures"]))  # type: ignore[arg-type]


def _plan(data: dict[str, object]) -> PlanFigures:
    distances = data.pop("distances")
    known = None if distances is None else tuple(Distance(**d) for d in distances)  # type: ignore[attr-defined]
    return PlanFigures(**data, distances=known)  # type: ignore[arg-type]


def still_holds(record: Record | None, made: Made, npz_sha256: str, *, across_commits: bool) -> bool:
    """Whether a record need not be made again: same patient, code, protocol, machine, technique, device and criteria.

    `across_commits` takes a record of another commit whose code is the same. What ended by an accident of the computer
    (killed, out of memory or time) is always made again.
    """
    if record is None or record.npz_sha256 != npz_sha256 or record.run.code in ACCIDENTS:
        return False
    ours, other = asdict(made), asdict(record.made)
    if across_commits:
        ours.pop("code"), other.pop("code")
    return ours == other
