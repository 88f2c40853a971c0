"""What a segmentation model is: what it takes, what it returns, how it names structures, and what its confidence means.

A model is one file of `segmentation/models/` with a `PLUGIN` that satisfies `Segmenter`.

Confidence is a number from 0 to 1 for each structure: the model's own estimate of the fraction of the structure's surface
that a radiation oncologist would leave where it is. 1 means nothing to correct, 0 that the structure must be drawn by hand.
It is shown to the reviewer and never used to skip the review.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float3 = tuple[float, float, float]

# TG-263 (Mayo et al., Int J Radiat Oncol Biol Phys 100:1057, 2018): primary name, then _L or _R, at most 16 characters.
TG263_PATTERN = re.compile(r"^[A-Z][A-Za-z0-9]*(_[A-Za-z0-9]+)*$")
MAX_NAME_CHARS = 16
VOCABULARY = frozenset(
    {
        *("External", "Bladder", "Bone_Mandible", "Bowel", "BrachialPlex_L", "BrachialPlex_R", "Brain", "Brainstem"),
        *("Bronchus", "Cavity_Oral", "Cochlea_L", "Cochlea_R", "Colon_Sigmoid", "Esophagus", "Eye_L", "Eye_R"),
        *("Femur_Head_L", "Femur_Head_R", "Glnd_Lacrimal_L", "Glnd_Lacrimal_R", "Glnd_Submand_L", "Glnd_Submand_R"),
        *("Glnd_Thyroid", "Heart", "Hippocampus_L", "Hippocampus_R", "Kidney_L", "Kidney_R", "Larynx", "Lens_L", "Lens_R"),
        *("Lips", "Liver", "Lung_L", "Lung_R", "OpticChiasm", "OpticNrv_L", "OpticNrv_R", "Parotid_L", "Parotid_R"),
        *("PenileBulb", "Pharynx", "Pituitary", "Prostate", "Rectum", "SeminalVes", "SpinalCord", "Spleen", "Stomach"),
        *("Trachea", "Urethra"),
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Masks (z, y, x) bool by TG-263 name, and a confidence from 0 to 1 for each. A structure not found is left out."""

    masks: Mapping[str, NDArray[np.bool_]]
    confidence: Mapping[str, float]

    def __post_init__(self) -> None:
        if set(self.masks) != set(self.confidence):
            raise ValueError(
                f"masks {sorted(self.masks)} and confidence {sorted(self.confidence)} name different structures"
            )
        for name, value in self.confidence.items():
            if name not in VOCABULARY:
                raise ValueError(f"{name} is not in the vocabulary")
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"confidence of {name} is {value}")
        object.__setattr__(self, "masks", MappingProxyType(dict(self.masks)))
        object.__setattr__(self, "confidence", MappingProxyType(dict(self.confidence)))


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A volume that a model must manage: (z, y, x) int16 HU, and the voxels that each structure surely has or has not."""

    hu: NDArray[np.int16]
    spacing_zyx_mm: Float3
    inside: Mapping[str, NDArray[np.bool_]]
    outside: Mapping[str, NDArray[np.bool_]]


class Segmenter(Protocol):
    """A model that outlines structures. Pure: the same voxels give the same masks, and nothing is written or fetched."""

    @property
    def kind(self) -> str:
        """Name of the model in configuration and in messages."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """TG-263 names that the model may return."""
        ...

    def segment(self, hu: NDArray[np.int16], *, spacing_zyx_mm: Float3) -> Segmentation:
        """Outline a CT: (z, y, x) HU with x to the patient's left, y to posterior, z to superior."""
        ...

    def example(self) -> Example:
        """What the contract tests run the model on."""
        ...
