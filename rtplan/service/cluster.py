"""Cases as jobs on Dask distributed: the only importer of dask.

The cluster is a disposable executor. A job carries paths and names, never data; its result is a CaseOutcome, also when
the worker was killed. The output folder must be one that the workers see under the same path.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import logging
import os
import queue
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, Future, LocalCluster, get_worker
from distributed.system import MEMORY_LIMIT

from rtplan.domain.outcome import CaseOutcome
from rtplan.errors import RtplanError, TransportFailed
from rtplan.service.job import Job, Planner, outcome_of_error, run_case

CaseProgress = Callable[[str, str, float, str], None]  # job name, step, fraction, message

POLL_S = 0.5
CONNECT_TIMEOUT_S = 15
# A killed worker is replaced by its nanny within seconds; a remote cluster may need a little longer.
WORKERLESS_S = 60.0
EVENTS_PER_S = 5.0

_LOCAL_CONFIG = {
    # One more attempt, elsewhere or on the restarted worker: whoever dies twice on a case dies of the case.
    "distributed.scheduler.allowed-failures": 1,
    # A compiled kernel may hold the interpreter for minutes; a dead process is noticed by its closed connection.
    "distributed.scheduler.worker-ttl": None,
    "distributed.admin.tick.limit": "1h",
    # Nothing of a case is in Dask's own store, so there is nothing to spill; beyond the limit the worker is ended.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


def available_cores() -> int:
    """Cores this process may use, counting affinity and container limits."""
    return int(CPU_COUNT)


def available_memory_bytes() -> int:
    """Memory this process may use, counting container limits."""
    return int(MEMORY_LIMIT)


class Cluster:
    """Runs jobs on a scheduler, a bounded number at a time."""

    def __init__(self, client: Client, slots: int) -> None:
        self._client = client
        self._slots = slots
        self._topic = f"rtplan-{uuid.uuid4().hex}"
        self._done: queue.SimpleQueue[Future[CaseOutcome]] = queue.SimpleQueue()

    def run(
        self, jobs: Sequence[Job], *, on_progress: CaseProgress, planner: Planner | None = None
    ) -> Iterator[tuple[Job, CaseOutcome]]:
        """Yield each job with its outcome as it ends. Never raises for a job; a lost worker or scheduler is an outcome."""
        waiting = deque(jobs)
        running: dict[Future[CaseOutcome], tuple[Job, float]] = {}

        def hear(event: tuple[float, Mapping[str, Any]]) -> None:
            _, said = event
            on_progress(said["job"], said["step"], said["fraction"], said["message"])

        self._client.subscribe_topic(self._topic, hear)
        try:
            while waiting or running:
                # No more jobs than slots: a job queued behind another would be blamed for the other's dead worker.
                while waiting and len(running) < self._slots:
                    job = waiting.popleft()
                    running[self.submit_case(job, planner)] = job, time.monotonic()
                future = self._next_done()
                if future is None:
                    yield from (_lost(job, started) for job, started in running.values())
                    yield from (_lost(job, time.monotonic()) for job in waiting)
                    return
                job, started = running.pop(future)
                yield job, _outcome(future, started)
        finally:
            self._client.unsubscribe_topic(self._topic)
            if running:
                self._client.cancel(list(running), force=True)

    def submit_case(self, job: Job, planner: Planner | None = None) -> Future[CaseOutcome]:
        """Hand one job to the scheduler. The future's result is a CaseOutcome."""
        key = f"case-{uuid.uuid4().hex}"
        future = self._client.submit(_run_on_worker, job, self._topic, planner, key=key, pure=False)
        future.add_done_callback(self._done.put)
        return future

    def _next_done(self) -> Future[CaseOutcome] | None:
        """The next future that ended, or None when the scheduler or every worker has been gone for too long."""
        seen = time.monotonic()
        while True:
            try:
                return self._done.get(timeout=POLL_S)
            except queue.Empty:
                pass
            if self._client.status == "closed":
                return None
            if self._client.status == "running" and self._client.scheduler_info(n_workers=-1)["workers"]:
                seen = time.monotonic()
            elif time.monotonic() - seen > WORKERLESS_S:
                return None


@contextmanager
def cluster(
    scheduler: str | None, *, workers: int = 1, threads: int | None = None, memory_bytes: int | None = None
) -> Iterator[Cluster]:
    """A local cluster of `workers` processes with `threads` kernel threads each, or the one at the address `scheduler`.

    Locally the cores and the memory are shared out evenly unless given, everything listens on the loopback interface
    alone, and leaving the context ends the processes. Raises TransportFailed when the address does not answer.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if scheduler is None:
            environment = kernel_environment(threads or max(1, available_cores() // workers))
            stack.enter_context(_surroundings(environment))
            stack.enter_context(dask.config.set(_LOCAL_CONFIG | {"distributed.nanny.pre-spawn-environ": environment}))
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="rtplan-", ignore_cleanup_errors=True))
            local = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,  # of Dask; the kernels bring their own
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # the health page; any free port, so that two runs never meet
                memory_limit=memory_bytes or available_memory_bytes() // workers,
                local_directory=scratch,
                silence_logs=logging.CRITICAL,
            )
            stack.callback(local.close, timeout=10)
            client = stack.enter_context(Client(local, set_as_default=False))
            yield Cluster(client, workers)
        else:
            client = stack.enter_context(_connect(scheduler))
            yield Cluster(client, max(workers, 1))


def kernel_environment(threads: int) -> dict[str, str]:
    """Environment of the worker processes, set before any of them loads a numeric library."""
    count = str(threads)
    names = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **dict.fromkeys(names, count),
        "PYTHONWARNINGS": "ignore",
        "MPLBACKEND": "Agg",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }


@contextmanager
def _surroundings(environment: dict[str, str]) -> Iterator[None]:
    """This process's environment while its workers are started.

    Dask prefers what the environment already says to its own configuration, and writes the latter into it for good: a
    second cluster of one process would get the first one's threads.
    """
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _connect(address: str) -> Client:
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise TransportFailed(
            "SCHEDULER_UNREACHABLE",
            f"no Dask scheduler with a worker answers at {address}: {type(error).__name__}",
            "an address such as tcp://host:8786",
            "start it, or leave --scheduler out to plan on this computer",
        ) from None
    return client


def _run_on_worker(job: Job, topic: str, planner: Planner | None) -> CaseOutcome:
    worker = get_worker()
    last_step, last_time = "", 0.0

    def progress(step: str, fraction: float, message: str = "") -> None:
        nonlocal last_step, last_time
        now = time.monotonic()
        if step == last_step and fraction < 1.0 and now - last_time < 1.0 / EVENTS_PER_S:
            return
        last_step, last_time = step, now
        worker.log_event(topic, {"job": job.name, "step": step, "fraction": float(fraction), "message": message})

    return run_case(job, progress=progress, planner=planner)


def _outcome(future: Future[CaseOutcome], started: float) -> CaseOutcome:
    seconds = time.monotonic() - started
    if future.status == "finished":
        try:
            outcome: CaseOutcome = future.result(timeout=CONNECT_TIMEOUT_S)
            return outcome
        except Exception:  # the result went down with its worker or its scheduler
            return _worker_lost(seconds)
    if future.status == "error":
        error = future.exception(timeout=CONNECT_TIMEOUT_S)
        if type(error).__name__ == "KilledWorker":
            return _worker_lost(seconds)
        found = f"{type(error).__name__}: {error}"
        return outcome_of_error(RtplanError("WORKER_ERROR", found, "", "run the same rtplan on client and workers"), seconds)
    return _worker_lost(seconds)


def _worker_lost(seconds: float) -> CaseOutcome:
    error = TransportFailed(
        "WORKER_LOST",
        "the process that planned this case died, or its scheduler was lost",
        "a worker that lives until the case ends",
        "look for a lack of memory, run fewer cases at a time, then try again",
    )
    return outcome_of_error(error, seconds)


def _lost(job: Job, started: float) -> tuple[Job, CaseOutcome]:
    return job, _worker_lost(time.monotonic() - started)
