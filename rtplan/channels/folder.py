"""Way out: a folder of a file system."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from rtplan.errors import TransportFailed


class Folder:
    """Puts files into a folder so that a reader never sees half a file or a mixture of two deliveries."""

    kind = "folder"

    def example(self) -> dict[str, bytes]:
        """Names and contents that the contract tests deliver."""
        return {"RTPLAN.dcm": b"plan" * 1000, "RTDOSE.dcm": b"dose" * 1000, "report.json": b"{}"}

    def deliver(self, files: Sequence[Path], out: Path) -> tuple[str, ...]:
        """Copy `files` into `out` under their own names; returns the names. The last file is the mark of completeness.

        A new folder appears at once with all its files. In a folder that exists, the old last file goes first and the new
        one comes last: a folder with it is complete, one without it was interrupted. Delivering again is harmless.
        Raises TransportFailed; then nothing new has the last file.
        """
        names = tuple(f.name for f in files)
        if not names or len(set(names)) != len(names):
            raise TransportFailed("DELIVERY_FAILED", f"files to deliver: {list(names)}", "files with names of their own")
        staging: Path | None = None
        try:
            fresh = not out.exists()
            home = out.parent if fresh else out
            home.mkdir(parents=True, exist_ok=True)
            # Beside or inside the destination, so that a rename never crosses file systems.
            staging = home / f".{out.name}.partial-{secrets.token_hex(8)}"
            staging.mkdir()
            for file in files:
                _copy_durably(file, staging / file.name)
            _sync_folder(staging)
            if fresh:
                _publish_folder(staging, out)
            else:
                _publish_files(staging, out, names)
        except OSError as error:
            place = f"{out.name}: {error.strerror or error}"
            raise TransportFailed(
                "DELIVERY_FAILED", place, "a folder that can be written", "free space or choose another"
            ) from error
        finally:
            if staging is not None and staging.exists():
                shutil.rmtree(staging, ignore_errors=True)
        return names


def _copy_durably(source: Path, target: Path) -> None:
    """Copy a file and wait until it is on the disk."""
    with source.open("rb") as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 2**20)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _publish_folder(staging: Path, out: Path) -> None:
    """Give a whole folder its name in one step."""
    staging.rename(out)
    _sync_folder(out.parent)


def _publish_files(staging: Path, out: Path, names: Sequence[str]) -> None:
    """Move files into a folder that exists, the last one last."""
    (out / names[-1]).unlink(missing_ok=True)
    _sync_folder(out)
    for name in names[:-1]:
        os.replace(staging / name, out / name)
    _sync_folder(out)
    os.replace(staging / names[-1], out / names[-1])
    _sync_folder(out)


PLUGIN = Folder()
