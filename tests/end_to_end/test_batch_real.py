"""A batch of real plans on a coarse grid: six come out, two are refused, and no row stops another."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASE = ROOT / "sample_data" / "tg119_multi_target"
# One cylinder, five beams, coarse grids: the whole line in a few seconds.
PROTOCOL = """\
id: one_cylinder
version: "1.0"
title: One cylinder, coarse
status: unverified
sources: {here: "this test"}
fractions: 25
levels:
  - {target: PTV_5000, dose_gy: 50, names: ['PTV_5000', 'Central Target']}
nested_targets: false
target_skin_crop_mm: 0
target_margin_mm: 6
organs: []
helpers: []
goals:
  - {structure: PTV_5000, goal: 'D95[Gy] >= 45', priority: 1, source: here, status: unverified}
  - {structure: PTV_5000, goal: 'D10[Gy] <= 60', priority: 1, source: here, status: unverified}
technique: imrt
beams:
  gantry_angles_deg: [0, 72, 144, 216, 288]
  collimator_angle_deg: 0
normalisation: {structure: PTV_5000, metric: 'D50[Gy]', value: 50}
beamlet_mm: 5
dose_grid_mm: 5
optimisation_grid_mm: 5
segments_per_beam: 4
"""


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("batch")
    (folder / "coarse.yaml").write_text(PROTOCOL)
    gap = folder / "gap"
    shutil.copytree(CASE / "CT", gap)
    sorted(gap.iterdir())[30].unlink()
    rows = [(CASE / "CT", CASE / "RS.dcm", str(folder / "coarse.yaml"), "generic_6mv")] * 6
    rows.insert(1, (gap, CASE / "RS.dcm", str(folder / "coarse.yaml"), "generic_6mv"))
    rows.insert(4, (CASE / "CT", CASE / "RS.dcm", "head_neck_70_63_56", "generic_6mv"))  # its targets are not there
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("ct", "structures", "protocol", "machine"), *rows])
    done = subprocess.run(
        [sys.executable, "-m", "rtplan", "batch", str(folder / "manifest.csv"), "-o", str(folder / "out"), "--jobs", "2"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return done, folder / "out"


@pytest.mark.long
def test_six_plans_and_two_verdicts(batch):
    # mutant: stop at the first rejected row; mutant: leave files beside a verdict
    done, out = batch
    with (out / "outcomes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [r["outcome"] for r in rows].count("rejected") == 2, done.stderr[-2000:]
    assert sum(r["outcome"] in ("goals_met", "goals_missed") for r in rows) == 6
    assert [rows[1]["code"], rows[4]["code"]] == ["CT_SLICE_GAP", "SS_TARGET_MISSING"]
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    contents = [sorted(p.name for p in folder.iterdir()) for folder in sorted(out.iterdir()) if folder.is_dir()]
    assert contents.count(["verdict.json"]) == 2
    assert contents.count(["RTDOSE.dcm", "RTPLAN.dcm", "RTSTRUCT.dcm", "report.html", "report.json"]) == 6


@pytest.mark.long
def test_the_same_case_gives_the_same_plan(batch):
    # mutant: sum threads' doses in the order they finish
    _, out = batch
    reports = [json.loads(p.read_text()) for p in sorted(out.glob("*/report.json"))]
    values = [[g["value"] for g in r["goals"]] + [b["mu"] for b in r["beams"]] for r in reports]
    assert len(values) == 6
    assert all(v == values[0] for v in values)
