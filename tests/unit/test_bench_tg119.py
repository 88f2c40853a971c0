"""The TG-119 benchmark: rows beside published figures, the table, what a case without a plan becomes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_tg119 import CASES, Published, compared, judged, result, text
from benchmarks.plan_process import PlanRun
from rtplan.domain.dose import Dose
from rtplan.library.protocols import load_protocol
from rtplan.steps.segment import needed_organs

DESIGN = Path(__file__).parents[2].parent / "shared" / "design" / "planning.md"
AT_LEAST = Published("PTV", "D95[Gy]", ">=", 50.0, 50.10, 0.17)
AT_MOST = Published("Core", "D10[Gy]", "<=", 25.0, 22.00, 3.14)
GONE = PlanRun("failed", "PROCESS_DIED", "killed", False, 3.0, 3.0, None, None)


@pytest.mark.parametrize(
    ("published", "ours_gy", "goal_met", "mean_met"),
    [
        (AT_LEAST, 50.2, True, True),
        (AT_LEAST, 50.05, True, False),
        (AT_LEAST, 49.999, False, False),
        (AT_LEAST, 50.0951, True, True),  # 5010 cGy
        (AT_LEAST, 50.0949, True, False),
        (AT_MOST, 21.9, True, True),
        (AT_MOST, 22.004, True, True),  # 2200 cGy
        (AT_MOST, 23.0, True, False),
        (AT_MOST, 25.001, False, False),
        (AT_MOST, None, False, False),
    ],
)
def test_goal_and_mean_are_judged_each_by_itself(published, ours_gy, goal_met, mean_met):
    # mutant: the sense of an upper limit taken for a lower one; means compared beyond what is published
    row = compared(published, ours_gy)
    assert (row.goal_met, row.mean_met) == (goal_met, mean_met)


@pytest.mark.parametrize("name", CASES)
def test_a_perfect_dose_meets_every_figure_and_none_meets_no_figure(name):
    # mutant: a structure that the phantom does not have; the metric of the whole phantom
    case = CASES[name]
    phantom = case.draw()
    dose = np.zeros(phantom.grid.shape_zyx, np.float32)
    for p in case.published:
        if p.sense == ">=":
            inside = phantom.masks[p.structure]
            dose[inside] = np.maximum(dose[inside], 1.01 * max(p.mean_gy, p.goal_gy))
    rows = judged(case, phantom, Dose(phantom.grid, dose))
    wrong = [r for r in rows if not (r.goal_met and r.mean_met)]
    # The rectum's part in the target is too large for its hottest tenth without a gradient in it.
    assert [(r.published.structure, r.published.metric) for r in wrong] == (
        [("Rectum", "D10[Gy]")] if name == "prostate" else []
    )
    assert not any(r.goal_met or r.mean_met for r in judged(case, phantom, None))
    cold = judged(case, phantom, Dose(phantom.grid, np.zeros_like(dose)))
    assert [r.goal_met for r in cold] == [p.sense == "<=" for p in case.published]


@pytest.mark.parametrize("name", CASES)
def test_the_protocol_has_the_goals_of_the_report(name):
    # mutant: a limit of the protocol changed
    case = CASES[name]
    phantom, protocol = case.draw(), load_protocol(case.protocol_id)
    names = {o: rule.name for rule in protocol.organs for o in phantom.masks if _fits(rule.names, o)}
    names |= {t: level.target for level in protocol.levels for t in phantom.masks if _fits(level.names, t)}
    goals = {(g.structure, g.metric.text, g.sense, g.limit) for g in protocol.goals}
    assert {(names[p.structure], p.metric, p.sense, p.goal_gy) for p in case.published} == goals
    assert {g.status for g in protocol.goals} == {"unverified"}
    assert set(needed_organs(protocol)) <= set(names.values())


def _fits(patterns, name: str) -> bool:
    return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in patterns)


def test_the_table_says_what_is_missed_and_why_there_is_no_plan():
    # mutant: the verdict on the goal in the column of the mean
    rows = (compared(AT_LEAST, 50.2), compared(AT_MOST, 23.0))
    report = {
        "plan": {"mu_per_fraction": 512.3, "segments": 70, "beams": 9},
        "goals_met": 2,
        "goals_judged": 2,
        "timings_s": [],
        "goals": [],
    }
    run = PlanRun("goals_met", "PLANNED", "", True, 61.0, 65.0, 110.0, 1.25)
    found = result(CASES["c_shape"], rows, run, report)
    assert (found["goals_met"], found["means_met"], found["of"], found["mu"]) == (2, 1, 2, 512.3)
    lines = text(json.loads(json.dumps(found))).splitlines()
    assert "512 MU, 70 segments, 61 s, 1.25 GB, 110 s of processor time" in lines[1]
    assert re.search(r"PTV D95\[Gy\] +>= 50 +50.10 ± 0.17 +50.20 +met +met$", lines[3])
    assert re.search(r"Core D10\[Gy\] +<= 25 +22.00 ± 3.14 +23.00 +met +MISSED$", lines[4])
    gone = result(CASES["c_shape"], [compared(AT_MOST, None)], GONE, None)
    assert "NO PLAN: killed" in text(gone) and re.search(r"- +MISSED +MISSED$", text(gone).splitlines()[3])


def test_the_published_figures_are_those_of_the_design():
    """A spot check of every mean and SD, in cGy, against the planning document that the figures were taken from."""
    if not DESIGN.exists():
        pytest.skip(f"no {DESIGN}")
    words = DESIGN.read_text(encoding="utf-8")
    for case in CASES.values():
        for p in case.published:
            assert f"({round(100 * p.mean_gy)} ± {round(100 * p.sd_gy)})" in words, (case.title, p)
