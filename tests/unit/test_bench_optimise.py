"""The optimiser's benchmark: one problem for every engine, figures of a dose, proven gaps, parts that are chosen."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import bench_optimise, results_file
from benchmarks.bench_optimise import NORMAL, TARGET, Counted, make_problem, proven
from benchmarks.peers.environments import PeerFailed
from benchmarks.peers.fluence_goals import GOALS, HOTTEST_ALLOWED_GY, PRESCRIBED_GY, quality, structures
from benchmarks.peers.phantom import Beamlets
from benchmarks.peers.run_rtplan import fluence_problem
from benchmarks.synthetic_c_shape import make_case
from rtplan.steps.optimise import sum_of_terms

N, SPACING_MM = 31, 5.0


@pytest.fixture(scope="module")
def phantom() -> Beamlets:
    """A box of water with a ring as target; its beamlets are never traced."""
    place = (np.arange(N) - (N - 1) / 2) * SPACING_MM
    z, y, x = np.meshgrid(place, place, place, indexing="ij")
    body = (np.abs(x) < 60) & (np.abs(y) < 60) & (np.abs(z) < 70)
    target = (np.hypot(x, y) > 15) & (np.hypot(x, y) < 37) & (np.abs(z) < 40)
    none, origin = np.zeros(0), np.full(3, place[0])
    water = body.astype(np.float32)
    return Beamlets(water, body, target, SPACING_MM, origin, np.zeros(3), 1000.0, np.zeros(1), 5.0, none, none, none)


class Even:
    """Ten beamlets of the same dose everywhere."""

    beamlets = range(10)

    def __init__(self, n_voxels: int) -> None:
        self.n_voxels = n_voxels

    def apply(self, weights):
        return np.full(self.n_voxels, 0.5 * weights.sum())


def test_every_voxel_of_the_body_is_in_one_structure(phantom):
    # mutant: the core's axis along y; mutant: the body with the target in it
    found = structures(phantom)
    count = sum(mask.astype(int) for mask in found.values())
    assert np.array_equal(count == 1, phantom.body) and count.max() == 1
    z, y, x = np.nonzero(found["Core"])
    assert np.hypot(x - N // 2, y - N // 2).max() * SPACING_MM < 10.0
    assert (z.max() - z.min()) * SPACING_MM == 90.0  # centres of 5 mm voxels within 50 mm of the middle


def test_both_optimisers_get_the_problem_that_their_doses_are_judged_by(phantom):
    # mutant: sums in place of means; mutant: a level of another structure
    voxels = np.flatnonzero(phantom.body)
    problem, start = fluence_problem(phantom, Even(len(voxels)), voxels)
    dose = np.zeros(phantom.body.shape, np.float32)
    dose[phantom.body] = np.random.default_rng(2).uniform(0.0, 70.0, len(voxels))
    value, _ = sum_of_terms(list(problem.terms), dose[phantom.body].astype(np.float64))
    assert value == pytest.approx(quality(phantom, dose)["objective_gy2"], rel=1e-6)
    assert 0.5 * start.sum() == pytest.approx(PRESCRIBED_GY)
    (hard,) = problem.wishes
    assert (hard.level_gy, hard.goal.priority, len(hard.rows)) == (HOTTEST_ALLOWED_GY, 0, len(voxels))


def test_figures_are_those_of_the_dose_scaled_to_the_prescription(phantom):
    # mutant: the hottest voxel of the target alone; mutant: no scaling
    dose = np.where(phantom.target, 25.0, 5.0).astype(np.float32)
    dose[np.unravel_index(np.flatnonzero(structures(phantom)["Body"])[0], dose.shape)] = 30.0
    found = quality(phantom, dose)
    assert found["hottest_pct"] == pytest.approx(120.0) and found["core_d10_gy"] == pytest.approx(10.0)
    assert found["d95_gy"] == pytest.approx(25.0)
    underdose = next(weight for name, kind, _, weight in GOALS if (name, kind) == ("PTV", "underdose"))
    body_part = 200.0 * 5.0**2 / structures(phantom)["Body"].sum()
    assert found["objective_gy2"] == pytest.approx(underdose * 25.0**2 + body_part, rel=1e-4)


def test_a_proven_gap_is_within_the_tolerance_and_counts_its_calls():
    operator = Counted(make_case(spacing_mm=14.0, beamlet_mm=10.0, beams=5))
    problem, start = make_problem(operator, TARGET + NORMAL, 0.01)
    found = proven(problem, start, operator, 1e-3, 2000)
    assert found["converged"] and found["relative_gap"] <= 1e-3 and found["stopped"] == "gap"
    assert found["lower_bound_gy2"] <= found["objective_gy2"]
    assert found["operator_calls"] >= 2 * found["iterations"]
    cut_off = proven(problem, start, operator, 1e-3, 5)
    assert (cut_off["converged"], cut_off["iterations"]) == (False, 5)  # never told as converged


def test_a_peer_that_is_absent_is_a_row_that_says_so(phantom, monkeypatch, tmp_path, capsys):
    # mutant: the part left out without a word
    dose = np.where(phantom.target, 50.0, 0.0).astype(np.float32)

    def absent(*_):
        raise PeerFailed("no network")

    monkeypatch.setattr(bench_optimise, "c_shape", lambda: phantom)
    monkeypatch.setattr(bench_optimise.Bench, "ours", lambda *_: ({"cpu_s": 4.0, "iterations": 60}, dose))
    monkeypatch.setattr("benchmarks.bench_peers.peer_interpreter", absent)
    monkeypatch.setattr(results_file, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench_optimise", "--only", "peers"])
    bench_optimise.main()
    assert "DID NOT RUN: not installed: no network" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["optimise_peers.json"]
    written = json.loads((tmp_path / "optimise_peers.json").read_text())
    assert set(written) == {"about", "threads", "peers"}
    assert written["peers"]["rtplan"]["cpu_s"] == 4.0 and written["peers"]["rtplan"]["hottest_pct"] == pytest.approx(100.0)
    assert written["peers"]["pyRadPlan"] == {"error": "not installed: no network"}
