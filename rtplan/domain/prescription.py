"""Protocols as data, and the prescription that a protocol becomes for one patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rtplan.domain.goals import Goal, Status
from rtplan.domain.verdict import Finding


@dataclass(frozen=True, slots=True)
class PrescriptionLevel:
    """One target and its dose over the whole course. `names` are the ROI names accepted for it, as regular expressions."""

    target: str
    dose_gy: float
    names: tuple[str, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class ObjectiveSpec:
    """One term of the optimisation: an objective of the shelf on a structure, with its parameters and weight."""

    structure: str
    kind: str
    parameters: tuple[tuple[str, float], ...]
    weight: float


HelperKind = Literal["expand", "ring", "subtract", "union"]


@dataclass(frozen=True, slots=True)
class HelperRule:
    """A structure made for optimisation or reporting.

    expand: `of` grown by `outer_mm`. ring: what lies between `inner_mm` and `outer_mm` outside `of`.
    subtract: `of` without `minus` grown by `inner_mm`. union: all of `of`. Always inside the External; parts of `of`
    and `minus` that the patient lacks are left out.
    """

    name: str
    kind: HelperKind
    of: tuple[str, ...]
    minus: tuple[str, ...] = ()
    inner_mm: float = 0.0
    outer_mm: float = 0.0


@dataclass(frozen=True, slots=True)
class OrganRule:
    """An organ that the protocol knows: TG-263 name, accepted ROI names, and whether a plan may be made without it."""

    name: str
    names: tuple[str, ...]
    required: bool = False


@dataclass(frozen=True, slots=True)
class BeamArrangement:
    """Static fields: gantry angles (IEC 61217 deg), one collimator angle, couch 0, isocentre at the targets' centre."""

    gantry_angles_deg: tuple[float, ...]
    collimator_angle_deg: float


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The final dose and the MU are scaled so that `metric` of `structure` equals `value`."""

    structure: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class Protocol:
    """A site protocol, as read and checked from `library/sites/<id>.yaml`."""

    protocol_id: str
    version: str
    title: str
    status: Status
    sources: tuple[str, ...]
    fractions: int
    levels: tuple[PrescriptionLevel, ...]  # highest dose first
    nested_targets: bool  # a lower level's target includes every higher one
    target_skin_crop_mm: float
    target_margin_mm: float  # how far beamlets reach beyond the target's projection
    organs: tuple[OrganRule, ...]
    helpers: tuple[HelperRule, ...]
    goals: tuple[Goal, ...]
    objectives: tuple[ObjectiveSpec, ...]
    beams: BeamArrangement
    normalisation: Normalisation | None
    beamlet_mm: float
    dose_grid_mm: float
    optimisation_grid_mm: float
    segments_per_beam: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PrescribedTarget:
    """A target of this patient and its dose over the whole course."""

    name: str
    dose_gy: float


@dataclass(frozen=True, slots=True)
class Prescription:
    """A protocol applied to one patient: which targets, goals and objectives hold, and what was left out."""

    protocol: Protocol
    targets: tuple[PrescribedTarget, ...]  # highest dose first
    goals: tuple[Goal, ...]
    objectives: tuple[ObjectiveSpec, ...]
    findings: tuple[Finding, ...]

    def prescribed_gy(self, structure: str) -> float:
        """Dose that percentages in a structure's metrics refer to: its own level, else the highest."""
        own = [t.dose_gy for t in self.targets if t.name == structure]
        return own[0] if own else self.targets[0].dose_gy
