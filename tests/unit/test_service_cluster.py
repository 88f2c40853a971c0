"""Cases on a local Dask cluster, with stand-ins for the pipeline."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from rtplan.domain.case import Order
from rtplan.domain.outcome import CaseOutcome
from rtplan.errors import CaseRejected, TransportFailed
from rtplan.service.cluster import Cluster, cluster
from rtplan.service.job import Job


def quiet(job, step, fraction, message):
    pass


def job(folder: Path, name: str) -> Job:
    return Job(name, Order(f"/ct/{name}", None, "protocol", "machine", "auto"), str(folder / name))


def make_planner():
    """A function inside a function: Dask carries it by value, so the worker need not import this module."""

    def planner(order, out_dir, *, progress):
        progress("ingest", 0.5, "half")
        progress("ingest", 1.0, f"pid {os.getpid()} threads {os.environ['NUMBA_NUM_THREADS']}")
        (out_dir / "RTPLAN.dcm").write_text("plan")
        name = Path(order.ct_dir).name
        if name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "rejected":
            raise CaseRejected("CT_SLICE_GAP", "gap at z = 12.0 mm", "even slices", "send all slices")
        if name == "accident":
            raise ZeroDivisionError("one\nover zero")
        return CaseOutcome("goals_met", "PLANNED", "all goals met", goals_met=3, goals_total=3)

    return planner


@pytest.fixture(scope="module")
def two_workers() -> Cluster:
    with cluster(None, workers=2, threads=3) as local:
        yield local


def test_each_job_ends_in_one_outcome_whatever_happens_to_the_others(two_workers: Cluster, tmp_path: Path):
    # mutant: let the error of one job end the loop
    jobs = [job(tmp_path, name) for name in ("good", "rejected", "dies", "accident", "also_good")]
    ended = [(j.name, o) for j, o in two_workers.run(jobs, on_progress=quiet, planner=make_planner())]
    outcomes = dict(ended)
    assert len(ended) == len(outcomes) == 5
    assert {n: (o.outcome, o.code) for n, o in outcomes.items()} == {
        "good": ("goals_met", "PLANNED"),
        "also_good": ("goals_met", "PLANNED"),
        "rejected": ("rejected", "CT_SLICE_GAP"),
        "dies": ("failed", "WORKER_LOST"),
        "accident": ("failed", "INTERNAL_ERROR"),
    }
    assert "\n" not in outcomes["accident"].message
    assert outcomes["rejected"].found == "gap at z = 12.0 mm"


def test_results_appear_only_when_the_plan_is_whole(two_workers: Cluster, tmp_path: Path):
    # mutant: let the pipeline write into the output folder itself
    jobs = [job(tmp_path, name) for name in ("good", "rejected")]
    outcomes = {j.name: o for j, o in two_workers.run(jobs, on_progress=quiet, planner=make_planner())}
    assert outcomes["good"].files == ("RTPLAN.dcm",)
    assert [p.name for p in (tmp_path / "good").iterdir()] == ["RTPLAN.dcm"]
    assert list((tmp_path / "rejected").iterdir()) == []


def test_progress_reaches_the_client_from_another_process_with_its_share_of_threads(two_workers: Cluster, tmp_path: Path):
    said = []

    def hear(name, step, fraction, message):
        said.append((name, step, fraction, message))

    list(two_workers.run([job(tmp_path, "good")], on_progress=hear, planner=make_planner()))
    deadline = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < deadline:  # events travel beside the result
        time.sleep(0.01)
    assert said[0] == ("good", "ingest", 0.5, "half")
    assert said[1][2] == 1.0
    assert said[1][3].endswith("threads 3")
    assert f"pid {os.getpid()} " not in said[1][3]


def test_a_cluster_keeps_its_threads_whatever_the_environment_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # mutant: leave the environment to Dask, which prefers what it already says
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    said = []
    with cluster(None, workers=1, threads=2) as local:
        list(local.run([job(tmp_path, "good")], on_progress=lambda *heard: said.append(heard[3]), planner=make_planner()))
        deadline = time.monotonic() + 10
        while len(said) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said[1].endswith("threads 2")
    assert os.environ["NUMBA_NUM_THREADS"] == "7"
    assert "MPLBACKEND" not in os.environ


def test_a_scheduler_that_does_not_answer_is_a_transport_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rtplan.service.cluster.CONNECT_TIMEOUT_S", 1)
    with pytest.raises(TransportFailed, match="SCHEDULER_UNREACHABLE"), cluster("tcp://127.0.0.1:9"):
        pass


def test_an_existing_scheduler_runs_jobs_by_its_address(tmp_path: Path):
    with cluster(None, workers=1, threads=1) as local:
        address = local._client.scheduler.address
        with cluster(address) as remote:
            outcomes = [o for _, o in remote.run([job(tmp_path, "good")], on_progress=quiet, planner=make_planner())]
    assert [o.code for o in outcomes] == ["PLANNED"]
