"""What a run costs: processor time of all threads, wall time, peak memory. Standard library alone."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
THREADS_VARIABLE = "PEERS_THREADS"
LIBRARY_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
# A thread that spins while it waits is charged as if it worked: up to six times the peers' processor time where other
# programs share the processors.
WAIT_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables by which the libraries of every engine are told how many threads to use, and to wait asleep."""
    return {THREADS_VARIABLE: str(threads)} | dict.fromkeys(LIBRARY_VARIABLES, str(threads)) | WAIT_ASLEEP


def keep_to_threads() -> int:
    """Holds this process to as many processors as it was given threads, and returns the number.

    Thread pools that count the machine's processors themselves are held by this too.
    """
    threads = int(os.environ[THREADS_VARIABLE])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return threads


def timed(action: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """An action's result, and its processor seconds (all threads, user and system) and wall seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = action()
    return result, {"cpu_s": time.process_time() - processor, "wall_s": time.perf_counter() - wall}


def fastest(action: Callable[[], T], repeats: int) -> tuple[T, dict[str, float]]:
    """The result and the figures of the repeat with the least processor time."""
    runs = [timed(action) for _ in range(repeats)]
    return min(runs, key=lambda run: run[1]["cpu_s"])


def forget_peak() -> None:
    """Sets the process's peak of resident memory back to what is resident now, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_gib() -> float:
    """Largest resident memory of this process since `forget_peak`, in GiB, libraries included."""
    status = Path("/proc/self/status")
    if status.exists():
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def write_figures(path: Path, figures: dict[str, object]) -> None:
    """Hands a run's figures to the benchmark that started it."""
    path.write_text(json.dumps(figures), encoding="utf-8")
