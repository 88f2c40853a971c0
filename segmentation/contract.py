"""What a segmentation model is: what it takes, what it returns, how it names structures, and what its confidence means.

A model is one file of `segmentation/models/` with a `PLUGIN` that satisfies `Segmenter`; MONAI bundles become one by
`segmentation.bundles`.

Confidence, of a structure and of a voxel alike, is the model's own estimate from 0 to 1 that it is right: for a voxel the
probability of the label that it was given, for a structure the Dice that the model expects against a careful reader. It is
shown to the reviewer and never used to skip the review.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

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
        *("Trachea", "Urethra", "A_Aorta", "A_Pulmonary", "Atrium_L", "Atrium_R", "Bone_Pelvic_L", "Bone_Pelvic_R"),
        *("Bowel_Small", "Clavicle_L", "Clavicle_R", "Colon", "Duodenum", "Femur_L", "Femur_R", "Gallbladder"),
        *("Glnd_Adrenal_L", "Glnd_Adrenal_R", "Humerus_L", "Humerus_R", "Lung_LLL", "Lung_LUL", "Lung_RLL", "Lung_RML"),
        *("Lung_RUL", "Pancreas", "Sacrum", "Scapula_L", "Scapula_R", "V_Venacava_I", "Ventricle_L", "Ventricle_R"),
        *(f"Rib{number:02d}_{side}" for number in range(1, 13) for side in "LR"),
        *(f"VB_C{number}" for number in range(1, 8)),
        *(f"VB_T{number:02d}" for number in range(1, 13)),
        *(f"VB_L{number}" for number in range(1, 6)),
    }
)


Severity = Literal["info", "flag", "hold"]


class ModelUnverified(Exception):
    """A model's files are missing, of another hash or of another version: it must not run."""


class ModelRefused(Exception):
    """A model that nobody configured, or that cannot be used on this input: nothing was run."""


class DeviceMissing(Exception):
    """The device asked for is unknown or not there: nothing was run, and nothing else is taken in its place."""


class OutputInvalid(Exception):
    """The network's output is not a segmentation: not finite, of another shape, or with other channels."""


@dataclass(frozen=True, slots=True, eq=False)
class CtVolume:
    """A CT as it lies in memory: `hu` (n0, n1, n2) int16 HU, and where its voxels are.

    `affine_lps_mm` (4, 4) takes the index (a0, a1, a2, 1) of a voxel's centre to (x, y, z, 1) in mm, DICOM patient
    coordinates: x to the patient's left, y to posterior, z to superior. Array axes may run along them in any order and
    sense; axes that are oblique by more than 1e-3 raise ValueError.
    """

    hu: NDArray[np.int16]
    affine_lps_mm: NDArray[np.float64]

    def __post_init__(self) -> None:
        affine = np.array(self.affine_lps_mm, np.float64)
        if self.hu.ndim != 3 or affine.shape != (4, 4) or not np.all(np.isfinite(affine)):
            raise ValueError(f"voxels {self.hu.shape}, affine {affine.shape}: expected three axes and a finite (4, 4)")
        spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.all(spacing_mm > 0):
            raise ValueError("a voxel has no extent")
        directions = np.abs(affine[:3, :3] / spacing_mm)
        if not np.allclose(np.sort(directions, axis=0), [[0.0] * 3, [0.0] * 3, [1.0] * 3], atol=1e-3) or not np.allclose(
            directions.sum(axis=1), 1.0, atol=3e-3
        ):
            raise ValueError("the axes are oblique or not independent")
        affine.setflags(write=False)
        object.__setattr__(self, "affine_lps_mm", affine)

    @classmethod
    def standard(cls, hu: NDArray[np.int16], spacing_zyx_mm: Float3, origin_xyz_mm: Float3 = (0.0, 0.0, 0.0)) -> CtVolume:
        """A volume (z, y, x) whose axes run to superior, posterior and the patient's left."""
        affine = np.zeros((4, 4))
        affine[2, 0], affine[1, 1], affine[0, 2] = spacing_zyx_mm
        affine[:3, 3], affine[3, 3] = origin_xyz_mm, 1.0
        return cls(hu, affine)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a contour, or a whole segmentation, needs a person's eye.

    `structure` is None when it concerns the whole CT; `at` is the array index of a voxel that shows it, for a picture.
    `severity` is `flag`, or `hold` where the contour must not be used unseen.
    """

    code: str
    structure: str | None
    severity: Severity
    message: str
    at: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Masks by TG-263 name on the volume's own array, a confidence for each and for each of their voxels, and doubts.

    A structure not found is left out of the masks and is the subject of a doubt. `voxel_confidence` is uint8, 0 to 100 %:
    how sure the model is of the label, inside or outside, that the voxel got.
    """

    masks: Mapping[str, NDArray[np.bool_]]
    confidence: Mapping[str, float]
    voxel_confidence: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()

    def __post_init__(self) -> None:
        if set(self.masks) != set(self.confidence):
            raise ValueError(
                f"masks {sorted(self.masks)} and confidence {sorted(self.confidence)} name different structures"
            )
        if not set(self.voxel_confidence) <= set(self.masks):
            raise ValueError("a confidence map without its mask")
        for name, value in self.confidence.items():
            if name not in VOCABULARY:
                raise ValueError(f"{name} is not in the vocabulary")
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"confidence of {name} is {value}")
        for name in ("masks", "confidence", "voxel_confidence"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A volume that a model must manage, and the voxels (same array) that each structure surely has or has not."""

    volume: CtVolume
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

    @property
    def version(self) -> str:
        """What a report must say to tell this model from its successors: version and SHA-256 of its weights."""
        ...

    def segment(self, volume: CtVolume, *, device: str = "cpu") -> Segmentation:
        """Outline a CT in any array orientation. Raises ModelUnverified, ModelRefused, DeviceMissing, OutputInvalid."""
        ...

    def example(self) -> Example:
        """What the contract tests run the model on."""
        ...
