"""An environment of its own for each peer, with pinned versions, and runs of scripts in it."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.measure import thread_environment

ROOT = Path(__file__).parents[2]
STAMP = "requirements.txt"
LONGEST_RUN_S = 3600.0
LAST_LINES = 3  # of what a failed command said


class PeerFailed(Exception):
    """A peer could not be installed or did not finish: the message is the last that it said."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another dose engine: the name that tables show, what pip is asked for, and the script that runs it."""

    name: str
    requirements: tuple[str, ...]
    script: str


PYRADPLAN = Peer("pyRadPlan", ("pyRadPlan[numba]==0.5.0", "pydantic<2.13"), "benchmarks.peers.run_pyradplan")
PYDOSERT = Peer("PyDoseRT", ("pydosert==1.5.0", "torch==2.13.0"), "benchmarks.peers.run_pydosert")
PEERS = (PYRADPLAN, PYDOSERT)
RTPLAN_SCRIPT = "benchmarks.peers.run_rtplan"


def default_folder() -> Path:
    """Where environments are kept: the user's cache, outside any checkout."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "rtplan" / "peers"


def interpreter(peer: Peer, folder: Path) -> Path:
    """Python of the peer's environment, made where it is absent or was made for other versions. Raises PeerFailed."""
    home = folder / peer.name.lower()
    python, stamp = home / "bin" / "python", home / STAMP
    wanted = "\n".join(peer.requirements) + "\n"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(home, with_pip=True, clear=True)
    _call([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements], {})
    # The stamp is made last: an installation that broke off is done again.
    stamp.write_text(wanted, encoding="utf-8")
    return python


def run(
    python: Path, script: str, arguments: list[str], out: Path, threads: int
) -> tuple[dict[str, object], NDArray[np.float32]]:
    """One script's figures and dose (z, y, x). `out` is where they pass through, without suffix. Raises PeerFailed."""
    command = [str(python), "-W", "ignore", "-m", script, *arguments[:2], str(out), *arguments[2:]]
    _call(command, thread_environment(threads))
    figures = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(out.with_suffix(".npz")) as data:
        return figures, data["dose"]


def _call(command: list[str], extra: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | extra, capture_output=True, text=True, timeout=LONGEST_RUN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise PeerFailed(str(problem)) from problem
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PeerFailed(" | ".join(said[-LAST_LINES:]) or f"ended with {done.returncode} and said nothing")
