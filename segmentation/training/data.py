"""Patients for training: OpenKBP's files on the working grid, and which voxels of which organ may teach.

A file is okbp-npz-1: `ct` (z, y, x) HU, `mask` of bits named by `bit_names`, `spacing` (dz, dy, dx) mm, `body_z`, `flags`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmentation.contract import Float3
from segmentation.preprocess import to_working_grid

LABELS = ("Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Esophagus", "Larynx", "Bone_Mandible", "External")
SPACING_ZYX_MM: Float3 = (3.0, 3.9, 3.9)
# What a step is taught on, and what the network is asked about at once: it normalises by means over such a part.
PATCH_ZYX = (64, 64, 80)
SPLIT_FILE = Path(__file__).parent / "split.json"
TG263_OF_OPENKBP = {"RightParotid": "Parotid_R", "LeftParotid": "Parotid_L", "Mandible": "Bone_Mandible"}
# Drawn only as far down as the fields reach, though the organ goes on: below the last slice it is unknown, not absent.
GOES_ON_BELOW = ("SpinalCord", "Esophagus")
# What a flag says about masks. `no_brainstem_or_cord` stands for patients without either; an empty mask is left out anyway.
WRONG_BY_FLAG = {"larynx_tiny": ("Larynx",)}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A patient on the working grid. Axes to superior, posterior and the patient's left."""

    case_id: str
    hu: NDArray[np.int16]  # (z, y, x)
    bits: NDArray[np.uint8]  # (z, y, x), bit b is LABELS[b]
    known: NDArray[np.bool_]  # (labels, z): whether the reference says anything about a structure in a slice
    phantom: bool = False

    @property
    def has(self) -> NDArray[np.bool_]:
        """(labels,) which structures were drawn."""
        return np.array([bool((self.bits >> b & 1).any()) for b in range(len(LABELS))])


def split_ids(part: str) -> tuple[str, ...]:
    """Patients of "train", "calibration" or "validation", as "dev/pt_2". Raises KeyError for another part."""
    return tuple(json.loads(SPLIT_FILE.read_text())[part])


def reference_masks(path: Path) -> tuple[NDArray[np.int16], dict[str, NDArray[np.bool_]], Float3, tuple[str, ...]]:
    """CT (z, y, x) HU, masks by TG-263 name, spacing mm and flags of a file, within the slices where the body is whole.

    Organs with no voxel there are left out. Raises KeyError when the file is of another format.
    """
    with np.load(path, allow_pickle=False) as file:
        first, last = (int(v) for v in file["body_z"])
        keep = slice(first, last + 1)
        hu, mask = file["ct"][keep], file["mask"][keep]
        names = [TG263_OF_OPENKBP.get(str(n), str(n)) for n in file["bit_names"]]
        spacing = tuple(float(v) for v in file["spacing"])
        flags = tuple(str(f) for f in np.atleast_1d(file["flags"]) if str(f))
    masks = {n: (mask >> b & 1).astype(bool) for b, n in enumerate(names) if n in LABELS}
    return hu, {n: m for n, m in masks.items() if m.any()}, (spacing[0], spacing[1], spacing[2]), flags


def load_case(path: Path, case_id: str) -> Case:
    """A patient on the working grid with what may teach."""
    hu, masks, spacing, flags = reference_masks(path)
    working = to_working_grid(hu, spacing, SPACING_ZYX_MM).hu
    bits = np.zeros(working.shape, np.uint8)
    known = np.zeros((len(LABELS), len(working)), bool)
    phantom = "phantom" in flags
    wrong = {name for flag in flags for name in WRONG_BY_FLAG.get(flag, ())}
    for b, name in enumerate(LABELS):
        if name not in masks or name in wrong:
            known[b] = phantom  # a phantom without the organ has none; a patient's was only not drawn
            continue
        inside = to_working_grid(masks[name], spacing, SPACING_ZYX_MM).hu > 0.5
        bits |= inside.astype(np.uint8) << b
        known[b] = True
        slices = np.flatnonzero(inside.any(axis=(1, 2)))
        if name in GOES_ON_BELOW and not phantom and len(slices):
            known[b, : slices[0]] = False
    return Case(case_id, np.clip(np.rint(working), -1024, 3071).astype(np.int16), bits, known, phantom)


def load_cases(folder: Path, case_ids: tuple[str, ...], cache: Path) -> list[Case]:
    """Patients on the working grid, kept in `cache` once they were resampled. Raises FileNotFoundError for a missing one."""
    cache.mkdir(parents=True, exist_ok=True)
    cases = []
    for case_id in case_ids:
        source = folder / f"{case_id}.npz"
        digest = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:16]
        kept = cache / f"{digest}.npz"
        if not kept.exists():
            case = load_case(source, case_id)
            np.savez_compressed(kept, hu=case.hu, bits=case.bits, known=case.known, phantom=case.phantom)
        with np.load(kept) as file:
            cases.append(Case(case_id, file["hu"], file["bits"], file["known"], bool(file["phantom"])))
    return cases
