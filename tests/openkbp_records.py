"""Made-up records of the OpenKBP benchmark."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.openkbp import cases
from benchmarks.openkbp.records import Criterion, Judged, PlanFigures, Record, failed_judgement
from benchmarks.plan_process import PlanRun

MADE = cases.Made("1 (commit a)", "s", "imrt", "p", "m", "auto", "c")
RUN = PlanRun("goals_missed", "PLANNED", "5 of 9 goals met", True, 120.0, 125.0, 240.0, 1.5)
GONE = PlanRun("rejected", "SS_EMPTY", "SS_EMPTY: nothing drawn", False, 2.0, 4.0, 3.0, 0.3)
NAMES = ("Brainstem D0.1cc<=50", "LeftParotid Dmean<=26", "PTV70 D99>=66.5")


def verdicts(*met: bool, dose_gy: float = 40.0) -> Judged:
    """The first criteria of NAMES, met or not."""
    found = {name: Criterion(dose_gy, m) for name, m in zip(NAMES, met, strict=False)}
    return Judged(found, {"Dmax": dose_gy, "body.Dmean": dose_gy / 2})


def record(patient: str, ours: Judged, reference: Judged, *, distances=None, seconds: float = 120.0) -> Record:
    plan = PlanFigures(600.0, 90, 9, 5, 9, {"optimise": 30.0}, distances)
    return Record(patient, "sha", MADE, replace(RUN, seconds=seconds), ours, reference, plan)


def without_plan(patient: str, reference: Judged) -> Record:
    return Record(patient, "sha", MADE, GONE, failed_judgement(reference), reference, None)
