"""Draw the phantoms and write them as DICOM with their manifest: `python sample_data/make_phantoms.py [FOLDER]`.

Deterministic: the same bytes on every run, checked by `tests/unit/test_phantoms.py` against `manifest.yaml`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:  # run as a script
    sys.path.insert(0, str(HERE.parent))

from sample_data.head_neck import head_neck  # noqa: E402
from sample_data.phantom import Phantom  # noqa: E402
from sample_data.tg119 import c_shape, multi_target  # noqa: E402
from sample_data.write_dicom import write_phantom  # noqa: E402

PHANTOMS: tuple[Callable[[], Phantom], ...] = (c_shape, multi_target, head_neck)
LICENCE = "Apache-2.0"
ORIGIN = "drawn by sample_data/make_phantoms.py; no patient's data"


def folder_sha256(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the sorted relative names and the SHA-256 of each file."""
    total = hashlib.sha256()
    for path in sorted(files):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{digest}  {path.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def describe(phantom: Phantom, folder: Path, files: tuple[Path, ...]) -> dict[str, object]:
    """One entry of the manifest."""
    alone = {"targets_alone": f"{phantom.name}/RS_targets.dcm"} if phantom.with_targets_alone else {}
    return {
        "title": phantom.title,
        "protocol": phantom.protocol_id,
        "ct": f"{phantom.name}/CT",
        "structures": f"{phantom.name}/RS.dcm",
        **alone,
        "slices": phantom.grid.shape_zyx[0],
        "spacing_zyx_mm": list(phantom.grid.spacing_zyx_mm),
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": folder_sha256(folder, files),
        "origin": ORIGIN,
        "licence": LICENCE,
    }


def make_all(folder: Path) -> dict[str, object]:
    """Write every phantom below `folder`, and `folder`/manifest.yaml; returns the manifest."""
    sets: dict[str, object] = {}
    for draw in PHANTOMS:
        phantom = draw()
        target = folder / phantom.name
        sets[phantom.name] = describe(phantom, target, write_phantom(phantom, target))
    manifest: dict[str, object] = {"made_by": "sample_data/make_phantoms.py", "sets": sets}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False, width=120), encoding="utf-8")
    return manifest


def main() -> None:
    """Write the phantoms to the folder named on the command line, or beside this script."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name, entry in make_all(folder)["sets"].items():  # type: ignore[attr-defined]
        print(f"{name}: {entry['bytes'] / 1e6:.2f} MB, sha256 {entry['sha256']}")


if __name__ == "__main__":
    main()
