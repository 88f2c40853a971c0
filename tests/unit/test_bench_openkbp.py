"""The OpenKBP benchmark: counting, patients without a plan, certificates, records that still hold."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from openkbp_records import GONE, MADE, NAMES, record, verdicts, without_plan

from benchmarks import bench_openkbp
from benchmarks.bench_openkbp import results
from benchmarks.openkbp import cases, judge
from benchmarks.openkbp.records import Distance, read_kept, read_record, still_holds, write_kept, write_record
from benchmarks.openkbp.table import summary, text

# ---- counting


def test_a_patient_without_a_plan_fails_every_criterion_and_stays_in_the_count():
    # mutant: failed patients left out of the counts
    records = [
        record("pt_1", verdicts(True, True, True), verdicts(True, False, True)),
        record("pt_2", verdicts(True, False), verdicts(False, False)),
        without_plan("pt_3", verdicts(True, True, False)),
    ]
    found = summary(records)
    assert found["all"] == {"of": 8, "rtplan": 4, "reference": 4}
    assert found["targets"] == {"of": 2, "rtplan": 1, "reference": 1}
    assert found["organs"] == {"of": 6, "rtplan": 3, "reference": 3}
    assert found["criteria"][NAMES[1]] == {"of": 3, "rtplan": 1, "reference": 1}
    assert (found["patients"], found["planned"]) == (3, 2)
    told = text(found, "all")
    assert "2 of 3 patients have a plan" in told and "pt_3: SS_EMPTY: nothing drawn" in told
    assert list(found["criteria"]) == list(NAMES)  # organs first


@pytest.mark.parametrize(
    ("ours", "reference", "expected"),
    [
        ((True, True, True), (True, True, False), {"better": 1}),
        ((True, False, True), (True, True, False), {"equal": 1}),
        ((True, False, False), (True, True, False), {"worse": 1}),
        ((False, False, False), (True, True, False), {"worse": 1, "worse_by_more_than_one": 1}),
        ((True, True, True), (True, True, True), {"equal": 1}),
    ],
)
def test_better_equal_and_worse_by_the_number_of_criteria_met(ours, reference, expected):
    # mutant: >= for >; one fewer counted as more than one
    side = summary([record("pt_1", verdicts(*ours), verdicts(*reference))])["beside_reference"]
    none = dict.fromkeys(("better", "equal", "worse", "worse_by_more_than_one"), 0)
    assert side == none | expected


def test_means_are_over_the_same_patients_for_both_doses():
    # mutant: the reference's mean over all patients, those without a plan too
    records = [
        record("pt_1", verdicts(True, dose_gy=30.0), verdicts(True, dose_gy=50.0)),
        record("pt_2", verdicts(True, dose_gy=40.0), verdicts(True, dose_gy=60.0), seconds=360.0),
        without_plan("pt_3", verdicts(True, dose_gy=900.0)),
    ]
    found = summary(records)
    assert found["figures"]["Dmax"] == {"n": 2, "rtplan": 35.0, "reference": 55.0}
    assert found["figures"]["PTV56+.D99"] is None
    plan = found["plan"]
    assert (plan["minutes_median"], plan["minutes_max"], plan["peak_memory_gb_max"]) == (4.0, 6.0, 1.5)
    assert plan["cpu_minutes_median"] == 4.0
    assert plan["minutes_90th"] == pytest.approx(5.6)
    assert summary([records[2]])["plan"] is None


# ---- certificates


def test_the_distance_to_a_bound_is_what_more_work_could_win():
    # mutant: the same sign for both senses; goals without a value kept
    goal = {"structure": "A", "metric": "Mean[Gy]", "unit": "Gy", "limit": 26.0}
    goals = [
        goal | {"sense": "<=", "value": 24.1, "bound": 22.9},
        goal | {"sense": ">=", "metric": "D99[Gy]", "value": 66.0, "bound": 67.5},
        goal | {"sense": "<=", "value": None, "bound": 1.0},
        goal | {"sense": "<=", "value": 3.0},
    ]
    found = judge.distances_to_bounds(goals)
    assert found is not None and [d.goal for d in found] == ["A Mean[Gy] <= 26", "A D99[Gy] >= 26"]
    assert [d.distance for d in found] == pytest.approx([1.2, 1.5])
    assert judge.distances_to_bounds(goals[2:]) is None


def test_reports_without_certificates_say_so_and_a_broken_one_is_shouted():
    # mutant: units mixed in one mean; a negative distance hidden in the mean
    plain = record("pt_1", verdicts(True), verdicts(True))
    assert "certificates: the reports carry none" in text(summary([plain]), "all")
    distances = (Distance("A", "Gy", 2.0), Distance("B", "%", 10.0), Distance("A", "Gy", -1.0))
    found = summary([plain, record("pt_2", verdicts(True), verdicts(True), distances=distances)])
    assert found["certificates"]["mean_distance"] == {"Gy": {"n": 2, "mean": 0.5}, "%": {"n": 1, "mean": 10.0}}
    assert found["certificates"]["broken"] == 1
    assert "1 VALUES LIE BEYOND THEIR BOUND" in text(found, "all")


# ---- resuming


def test_a_record_comes_back_as_it_was_written(tmp_path):
    # mutant: distances lost; a criterion's None read as 0
    distances = (Distance("A", "Gy", 2.0),)
    for made in (
        record("pt_1", verdicts(True), verdicts(False), distances=distances),
        without_plan("pt_2", verdicts(True)),
    ):
        write_record(made, tmp_path / "r.json")
        assert read_record(tmp_path / "r.json") == made


def test_records_kept_in_one_file_come_back_by_patient_with_six_digits(tmp_path):
    # mutants: patients by name; a broken line that takes the others along; verdicts made again from rounded values
    path, distances = tmp_path / "kept.jsonl", (Distance("A", "Gy", 2.0),)
    made = [
        record("pt_10", verdicts(True, dose_gy=26.0000001), verdicts(False), distances=distances),
        without_plan("pt_9", verdicts(False, dose_gy=1.23456789)),
    ]
    assert read_kept(path) == {}
    write_kept(made, path)
    assert [json.loads(line)["patient"] for line in path.read_text().splitlines()] == ["pt_9", "pt_10"]
    path.write_text("{\n" + path.read_text())
    found = read_kept(path)
    assert found["pt_10"] == replace(made[0], ours=verdicts(True, dose_gy=26.0))
    assert found["pt_9"].reference.criteria == verdicts(False, dose_gy=1.23457).criteria and found["pt_9"].plan is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"schema": "other"}', '{"schema": "rtplan.bench_openkbp/1"}'])
def test_what_is_not_a_whole_record_is_made_again(tmp_path, content):
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    assert read_record(path) is None
    assert not still_holds(None, MADE, "sha", across_commits=True)


@pytest.mark.parametrize("field", [f.name for f in fields(cases.Made)])
def test_whatever_it_was_made_by_decides_whether_a_record_holds(field):
    # mutant: a field left out of the comparison
    known = record("pt_1", verdicts(True), verdicts(True))
    other = replace(MADE, **{field: "other"})
    assert still_holds(known, MADE, "sha", across_commits=False)
    assert not still_holds(known, other, "sha", across_commits=False)
    assert still_holds(known, other, "sha", across_commits=True) == (field == "code")
    assert not still_holds(known, MADE, "another patient", across_commits=True)


def test_accidents_are_tried_again_and_rejections_are_not():
    # mutant: a killed process recorded for good
    gone = without_plan("pt_1", verdicts(True))
    assert still_holds(gone, MADE, "sha", across_commits=False)
    for code in ("PROCESS_DIED", "TIMED_OUT", "OUT_OF_MEMORY"):
        again = replace(gone, run=replace(GONE, code=code))
        assert not still_holds(again, MADE, "sha", across_commits=False)


def test_the_hash_of_the_sources_sees_every_edit_but_those_of_other_protocols(tmp_path):
    # mutant: protocols hashed too; only names hashed
    for name in ("rtplan/a.py", "rtplan/library/sites/x.yaml", "kernels/b.py", "docs/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    before = cases.sources_sha256(tmp_path)
    for name in ("rtplan/library/sites/x.yaml", "docs/c.md"):
        (tmp_path / name).write_text("two")
    assert cases.sources_sha256(tmp_path) == before
    for name in ("rtplan/a.py", "kernels/b.py"):
        (tmp_path / name).write_text("two")
        assert cases.sources_sha256(tmp_path) != before
        (tmp_path / name).write_text("one")


# ---- results


def test_figures_by_patient_are_left_out_where_they_would_not_fit(monkeypatch):
    # mutant: the limit not looked at
    records = [record("pt_1", verdicts(True, False), verdicts(True, True)), without_plan("pt_2", verdicts(True))]
    whole = results(records, MADE, 1)
    assert whole["per_patient"]["pt_1"]["criteria"][NAMES[1]] == [40.0, 40.0]
    assert whole["per_patient"]["pt_2"]["met"] == [0, 1] and whole["per_patient"]["pt_2"]["criteria"] == {
        NAMES[0]: [None, 40.0]
    }
    monkeypatch.setattr(bench_openkbp, "LARGEST_RESULT_BYTES", len(json.dumps(whole, indent=1)) - 1)
    short = results(records, MADE, 1)
    assert "criteria" not in short["per_patient"]["pt_1"] and short["all"] == whole["all"]
    json.dumps(whole, allow_nan=False)
