"""A patient's reference as if a model had drawn it: what envelopes are made of, and what predictions are held to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segmentation.evidence import Evidence
from segmentation.training.data import LABELS, SPACING_ZYX_MM, Case, load_case

# Masks that a flag of the data spoils for an envelope, though some of them may still teach.
SPOILT_BY_FLAG = {"larynx_tiny": "Larynx", "couch_in_ct": "External", "fov_edge": "External"}


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """`evidence` with the reference as its masks; `spoilt` structures have a mask that is no example; `known` (n, z)."""

    case_id: str
    evidence: Evidence
    known: NDArray[np.bool_]
    spoilt: frozenset[str]
    hu_suspect: bool


def truth_of(folder: Path, case_id: str) -> Truth:
    """The reference of a patient on the working grid. Raises FileNotFoundError, KeyError as `load_case` does."""
    path = folder / f"{case_id}.npz"
    with np.load(path, allow_pickle=False) as file:
        flags = {str(flag) for flag in np.atleast_1d(file["flags"])}
    case = load_case(path, case_id)
    spoilt = frozenset(SPOILT_BY_FLAG[flag] for flag in flags if flag in SPOILT_BY_FLAG)
    return Truth(case_id, drawn(case), case.known, spoilt, "hu_shift_suspect" in flags)


def drawn(case: Case) -> Evidence:
    """Evidence of a network that is as sure as the reference."""
    masks = np.stack([(case.bits >> b & 1).astype(bool) for b in range(len(LABELS))])
    sure = masks.astype(np.float32)
    return Evidence(LABELS, case.hu.astype(np.float32), SPACING_ZYX_MM, sure, np.stack([masks, masks]), masks)
