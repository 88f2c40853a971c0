"""Where a result came from: hashes of inputs, and the version of the code."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's contents, 64 hexadecimal digits. Raises OSError when it cannot be read."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def package_version() -> str:
    """Version of the installed package, or "0+unknown" when the code runs without being installed."""
    try:
        return version("rtplan")
    except PackageNotFoundError:
        return "0+unknown"


@cache
def git_commit() -> str | None:
    """Commit of the checkout that the code runs from, with "+changes" when it was edited since; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    edited = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+changes" if edited else commit


def _git(root: Path, *arguments: str) -> str | None:
    """Standard output of one git command, or None when git is absent or fails."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def code_version() -> str:
    """Package version and, where known, the git commit: "0.1.0 (commit 1a2b3c...)"."""
    commit = git_commit()
    return f"{package_version()} (commit {commit})" if commit else package_version()
