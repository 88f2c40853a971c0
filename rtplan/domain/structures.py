"""Contours and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.arrays import frozen
from rtplan.domain.grid import Grid
from rtplan.domain.verdict import Finding

Kind = Literal["EXTERNAL", "PTV", "CTV", "GTV", "ORGAN", "AVOIDANCE", "SUPPORT", "CONTROL"]  # RT ROI Interpreted Type
Origin = Literal["physician", "engine", "model"]


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One closed planar contour: `points_xy_mm` (n, 2) LPS mm on the axial plane `z_mm`."""

    z_mm: float
    points_xy_mm: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "points_xy_mm", frozen(self.points_xy_mm, np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class RoiContours:
    """A region of interest as it stands in an RTSTRUCT file."""

    number: int
    name: str
    interpreted_type: str
    contours: tuple[Contour, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ContourSet:
    """The contents of an RTSTRUCT file, contours already checked against the CT."""

    sop_instance_uid: str
    frame_of_reference_uid: str
    rois: tuple[RoiContours, ...]
    sha256: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawnBy:
    """The model that drew a structure, and how sure it was.

    `version` tells the model from its successors: its version and the SHA-256 of its weights. `confidence` is the model's
    own estimate, 0 to 1, of the Dice with a careful reader.
    """

    model_id: str
    version: str
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """A named volume as a (z, y, x) boolean mask on the CT grid. `drawn_by` is there where `origin` is "model"."""

    name: str  # TG-263
    kind: Kind
    mask: NDArray[np.bool_]
    source_name: str = ""  # as the sender wrote it
    origin: Origin = "physician"
    drawn_by: DrawnBy | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", frozen(self.mask, np.bool_))
        if (self.origin == "model") != (self.drawn_by is not None):
            raise ValueError(f"{self.name}: of origin {self.origin}, drawn by {self.drawn_by}")


@dataclass(frozen=True, slots=True, eq=False)
class StructureSet:
    """Named volumes on one grid. Names are unique without regard to case."""

    grid: Grid
    structures: tuple[Structure, ...]
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        names = [s.name.lower() for s in self.structures]
        if len(set(names)) != len(names):
            raise ValueError(f"structure names are not unique: {sorted(names)}")
        for s in self.structures:
            if s.mask.shape != self.grid.shape_zyx:
                raise ValueError(f"{s.name}: mask {s.mask.shape} does not fit the grid {self.grid.shape_zyx}")

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    def __contains__(self, name: str) -> bool:
        return any(s.name == name for s in self.structures)

    def __getitem__(self, name: str) -> Structure:
        for s in self.structures:
            if s.name == name:
                return s
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(s.name for s in self.structures)

    @property
    def external(self) -> Structure:
        """The body contour."""
        return next(s for s in self.structures if s.kind == "EXTERNAL")
