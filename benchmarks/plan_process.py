"""Plans one case in a process of its own, so that its time and its peak of memory are its own.

    python -m benchmarks.plan_process JOB.json RESULT.json

is that process; `plan_in_process` starts it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rtplan.domain.case import Order
from rtplan.domain.progress import silent

ROOT = Path(__file__).parents[1]
LONGEST_S = 3600.0
LAST_CHARACTERS = 400  # of what a process that died said
DIED, TIMED_OUT = "PROCESS_DIED", "TIMED_OUT"
ACCIDENTS = frozenset({DIED, TIMED_OUT, "OUT_OF_MEMORY"})  # of the computer rather than of the case: worth another try


@dataclass(frozen=True, slots=True)
class PlanRun:
    """How one case ended: the outcome's class, code and line, and what it cost.

    `seconds` is the wall time of all of plan_case, `process_s` with the start of the process too. `cpu_s` is the processor
    time of all its threads, which a busy machine stretches less, `peak_memory_gb` 1e9 bytes of resident memory; None where
    the process died or the system does not tell.
    """

    outcome: str
    code: str
    message: str
    planned: bool
    seconds: float
    process_s: float
    cpu_s: float | None
    peak_memory_gb: float | None


def plan_in_process(order: Order, out_dir: Path, *, threads: int, limit_s: float = LONGEST_S) -> PlanRun:
    """Plan `order` into `out_dir` with `threads` kernel threads. Raises KeyboardInterrupt when the user broke it off."""
    from rtplan.service.cluster import kernel_environment  # late: the process itself has no use for Dask

    with TemporaryDirectory(prefix="rtplan-bench-") as folder:
        job, result = Path(folder) / "job.json", Path(folder) / "result.json"
        job.write_text(json.dumps({"order": asdict(order), "out_dir": str(out_dir)}), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.plan_process", str(job), str(result)]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | kernel_environment(threads),
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _accident(TIMED_OUT, f"no end after {limit_s:.0f} s", time.monotonic() - started)
        process_s = time.monotonic() - started
        if done.returncode in (-signal.SIGINT, 128 + signal.SIGINT):
            raise KeyboardInterrupt
        if not result.exists():
            said = done.stderr.strip()[-LAST_CHARACTERS:]
            return _accident(DIED, f"exit code {done.returncode}: {said}", process_s)
        return PlanRun(**json.loads(result.read_text(encoding="utf-8")), process_s=process_s)


def _accident(code: str, message: str, seconds: float) -> PlanRun:
    return PlanRun("failed", code, message, False, seconds, seconds, None, None)


def peak_memory_gb() -> float | None:
    """Peak of this process's resident memory, 1e9 bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM")), None)


def main(job_path: Path, result_path: Path) -> None:
    """The process: plans as every case is planned, mistakes become outcomes."""
    from rtplan.service.job import Job, run_case, settle

    asked = json.loads(job_path.read_text(encoding="utf-8"))
    job = Job("benchmark", Order(**asked["order"]), asked["out_dir"])
    outcome = run_case(job, progress=silent)
    settle(job, outcome)
    result = {
        "outcome": outcome.outcome,
        "code": outcome.code,
        "message": outcome.message,
        "planned": outcome.planned,
        "seconds": outcome.seconds,
        "cpu_s": time.process_time(),
        "peak_memory_gb": peak_memory_gb(),
    }
    result_path.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
