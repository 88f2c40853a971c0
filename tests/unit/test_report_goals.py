"""Goals in the report: stages, shifts, and in words where a missed goal was lost and whether it could be won."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from small_report import STAGES, report_data

from rtplan.domain.goals import Certificate, Conflict, Goal, GoalResult, parse_metric
from rtplan.domain.ledger import Ledger, LedgerRow, StageValue, WorstShift
from rtplan.domain.prescription import Normalisation
from rtplan.domain.verdict import Finding
from rtplan.steps.ledger import ledger
from rtplan.steps.report import write_report
from rtplan.steps.report.goals import goal_records, outlook


def goal(structure: str, metric: str, sense: str, limit: float, priority: int) -> Goal:
    return Goal(structure, parse_metric(metric), sense, limit, priority, "a paper", "sourced")  # type: ignore[arg-type]


PTV = goal("PTV_70", "D95[Gy]", ">=", 66.5, 1)
PAROTID = goal("Parotid_L", "Mean[Gy]", "<=", 26.0, 2)
LARYNX = goal("Larynx", "Mean[Gy]", "<=", 45.0, 3)


def row(the_goal: Goal, *values: float, worst: WorstShift | None = None) -> LedgerRow:
    stages = ("ideal_fluence", "sequenced", "final")[-len(values) :]
    return LedgerRow(the_goal, tuple(StageValue(s, v) for s, v in zip(stages, values, strict=True)), worst)  # type: ignore[arg-type]


def said(the_row: LedgerRow, bound: float | None = None, *others: LedgerRow, conflict: Conflict | None = None) -> str | None:
    certificate = None if bound is None else Certificate(the_row.goal, bound, conflict)
    return outlook(the_row, certificate, Ledger((*others, the_row), 3.0))


def test_nothing_is_said_of_a_goal_that_is_met_or_was_not_judged():
    assert said(row(PAROTID, 27.0, 27.0, 25.9), 18.0) is None
    assert said(LedgerRow(PAROTID, (), None)) is None


def test_the_stage_that_lost_a_goal_is_named():
    # mutants: the stages taken for each other; the final value in place of the ideal one
    assert said(row(PAROTID, 26.4, 27.0, 27.3)) == (
        "The ideal fluence misses it too (26.4 Gy): leaves and segments are not why. No bound is proved for it."
    )
    assert said(row(PAROTID, 25.2, 27.0, 27.3)) == (
        "The ideal fluence meets it (25.2 Gy): leaves and segments lose it. No bound is proved for it."
    )
    assert said(row(PAROTID, 25.2, 25.8, 26.3)) == (
        "It was met before the normalisation (25.8 Gy). No bound is proved for it."
    )
    assert said(row(PTV, 67.0, 66.0, 66.2)) == (
        "The ideal fluence meets it (67.0 Gy): leaves and segments lose it. No bound is proved for it."
    )


def test_an_ideal_fluence_that_broke_a_higher_goal_is_no_proof_against_the_leaves():
    # mutants: goals of any priority; goals that the plan misses as well
    cold = row(PTV, 65.1, 66.6, 66.7)
    assert said(row(PAROTID, 25.2, 27.0, 27.3), None, cold) == (
        "The ideal fluence meets it (25.2 Gy), but with PTV_70 D95[Gy] missed at 65.1 Gy. No bound is proved for it."
    )
    for harmless in (row(LARYNX, 46.0, 44.0, 44.0), row(PTV, 65.1, 65.0, 65.2)):
        assert "lose it" in str(said(row(PAROTID, 25.2, 27.0, 27.3), None, harmless))


def test_a_technique_without_earlier_stages_speaks_of_the_certificate_alone():
    assert said(row(PAROTID, 27.3)) == "No bound is proved for it."


def test_a_certificate_beyond_the_limit_proves_and_one_within_leaves_open():
    # mutants: the sign; the distance to the limit instead of to the bound
    assert str(said(row(PAROTID, 27.0, 27.2, 27.3), 26.8)).endswith(
        "Provably not below 26.8 Gy while targets keep their coverage and every goal of a higher priority what it has: "
        "only other beams or other priorities could meet it."
    )
    assert "Provably not above 66.3 Gy while" in str(said(row(PTV, 66.0, 66.0, 66.0), 66.3))
    assert str(said(row(PTV, 66.0, 66.0, 66.0), 69.0)).endswith(
        "Provably not above 69.0 Gy: the limit is not ruled out, and more work could win 3.0 Gy at most."
    )
    assert str(said(row(PAROTID, 27.0, 27.2, 27.3), 18.6)).endswith(
        "Provably not below 18.6 Gy: the limit is not ruled out, and more work could win 8.7 Gy at most."
    )


def test_a_goal_that_another_one_excludes_names_it_and_by_how_much():
    # mutants: the distance to the value; the other goal's limit
    assert str(said(row(PAROTID, 27.0, 27.2, 28.3), 26.8, conflict=Conflict(PTV, 26.5))).endswith(
        "PTV_70 D95[Gy] >= 66.5 excludes it: with that alone at its limit, this is provably not below 26.5 Gy, "
        "0.5 Gy beyond its own."
    )
    results = (GoalResult(PAROTID, 28.3, False),)
    certificate = Certificate(PAROTID, 26.8, Conflict(PTV, 26.5))
    (record,) = goal_records(results, (certificate,), Ledger((row(PAROTID, 28.3),), 3.0), report_data().structures)
    assert record["conflict"] == {"with": "PTV_70 D95[Gy] >= 66.5", "bound": 26.5}


@pytest.mark.parametrize(
    ("structure", "final", "shifted", "expected"),
    [
        ("Parotid_L", 25.0, 27.0, True),
        ("Parotid_L", 25.0, 25.9, False),
        ("Parotid_L", 26.5, 27.0, False),  # missed as it is: the verdict says so already
        ("PTV_70", 25.0, 27.0, False),  # a shift is what its margin is for
        ("Ring", 25.0, 27.0, False),  # helpers: PRVs are among them
    ],
)
def test_at_risk_is_what_a_shift_would_break_where_no_margin_is_meant_for_it(structure, final, shifted, expected):
    the_goal = replace(PAROTID, structure=structure)
    worst = WorstShift("left", shifted, the_goal.met_by(shifted))
    results = (GoalResult(the_goal, final, the_goal.met_by(final)),)
    book = Ledger((row(the_goal, final, worst=worst),), 3.0)
    record = goal_records(results, (), book, report_data().structures)[0]
    assert record["at_risk"] is expected
    assert record["shifted"] == {"value": shifted, "towards": "left", "met": the_goal.met_by(shifted)}


def test_a_ledger_of_other_goals_is_refused():
    with pytest.raises(ValueError, match="other goals"):
        goal_records((GoalResult(PTV, 67.0, True),), (), Ledger((row(PAROTID, 20.0),), 3.0), report_data().structures)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    data = report_data()
    certificate = Certificate(data.prescription.goals[2], 1.23)
    protocol = replace(data.prescription.protocol, normalisation=Normalisation("PTV_70", "D95[Gy]", 70.0))
    data = replace(data, certificates=(certificate,), prescription=replace(data.prescription, protocol=protocol))
    html, js = write_report(data, tmp_path_factory.mktemp("goals"))
    return html.read_text(), json.loads(js.read_text())


def cells(page: str) -> list[list[str]]:
    """The text of the cells of the goals table, a list for each row of its body."""
    body = page[page.index('<table class="goals">') :]
    body = body[body.index("<tbody>") : body.index("</tbody>")]
    return [
        [" ".join(re.sub("<[^>]+>", "", cell).split()) for cell in re.findall("<td.*?</td>", line, re.DOTALL)]
        for line in re.findall("<tr.*?</tr>", body, re.DOTALL)
    ]


def test_the_table_shows_every_stage_and_the_worst_shift_beside_what_was_achieved(written):
    page, plain = written
    assert (plain["ledger"]["shift_mm"], plain["ledger"]["stages"]) == (3.0, ["ideal_fluence", "sequenced", "final"])
    letters = {"left": "L", "right": "R", "anterior": "A", "posterior": "P", "superior": "S", "inferior": "I"}
    for shown, record in zip(cells(page)[:3], plain["goals"][:3], strict=True):
        assert shown[3] == f"{record['value']:.2f}"
        assert shown[6:8] == [f"{record['stages'][stage]['value']:.2f}" for stage in ("ideal_fluence", "sequenced")]
        assert shown[8] == f"{record['shifted']['value']:.2f} {letters[record['shifted']['towards']]}"
        assert record["stages"]["final"] == {"value": record["value"], "met": record["met"]}
    assert [shown[5] for shown in cells(page)] == ["", "", "≥ 1.2", ""]
    absent = plain["goals"][3]
    assert (absent["stages"], absent["shifted"], absent["outlook"], absent["at_risk"]) == ({}, None, None, False)
    assert cells(page)[3][6:9] == ["–", "–", "–"]


def test_the_verdict_says_what_is_missed_and_whether_it_could_be_won(written):
    page, plain = written
    verdict = page[page.index('<div class="verdict') : page.index('<dl class="facts">')]
    missed = [g for g in plain["goals"] if g["met"] is False]
    assert len(missed) == 1
    for record in missed:
        assert record["outlook"] in verdict
        assert f"achieved {record['value']:.2f}" in verdict
    assert "D95[Gy] of PTV_70 = 70: all MU and doses × 1.0234" in page
    assert plain["protocol"]["normalisation_factor"] == 1.0234


def test_the_verdict_names_what_a_shift_would_break_and_what_is_flagged(tmp_path: Path):
    # mutants: all goals that are met; findings for information
    data = report_data()
    rows = list(data.ledger.rows)
    rows[2] = replace(rows[2], worst=WorstShift("left", 91.2, False))
    data = replace(data, ledger=replace(data.ledger, rows=tuple(rows)))
    data = replace(data, findings=(*data.findings, *2 * (Finding("SMALL_FIELD", "flag", "look"),)))
    page = write_report(data, tmp_path)[0].read_text()
    verdict = page[page.index('<div class="verdict') : page.index('<dl class="facts">')]
    value = data.verification.goals[2].value
    assert f"no longer when the patient lies 3 mm off: Parotid_L Mean[Gy] {value:.1f} → 91.2</li>" in verdict
    assert "Flagged for the reviewer: SMALL_FIELD</li>" in verdict


def test_a_conformal_plan_has_no_columns_of_what_it_never_had(tmp_path: Path):
    data = report_data()
    book = ledger(data.prescription, data.structures, {}, data.dose)
    html, js = write_report(replace(data, ledger=book), tmp_path)
    assert json.loads(js.read_text())["ledger"]["stages"] == ["final"]
    assert "Sequenced" not in html.read_text()
    assert "On the way there" not in html.read_text()
    assert "Provably not better" not in html.read_text()
    assert len(cells(html.read_text())[0]) == 8
    assert set(STAGES) == {"ideal_fluence", "sequenced"}
