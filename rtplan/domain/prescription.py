"""Protocols as data, and the prescription that a protocol becomes for one patient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rtplan.domain.goals import Goal, Side, Status
from rtplan.domain.verdict import Finding

Technique = Literal["imrt", "vmat", "conformal"]
Direction = Literal["CW", "CC"]  # as seen facing the gantry: CW counts IEC angles upwards
ArrangementKind = Literal["opposed_laterals", "ap_pa", "pa", "tangents"]


@dataclass(frozen=True, slots=True)
class PrescriptionLevel:
    """One target and its dose over the whole course. `names` are the ROI names accepted for it, as regular expressions."""

    target: str
    dose_gy: float
    names: tuple[str, ...]
    optional: bool = False


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
class Arc:
    """One rotation with radiation, couch 0. Angles are IEC 61217 degrees; it never passes 180."""

    start_deg: float
    stop_deg: float
    direction: Direction
    collimator_angle_deg: float

    @property
    def length_deg(self) -> float:
        """How far the gantry turns, 0 to 360."""
        turned = self.stop_deg - self.start_deg if self.direction == "CW" else self.start_deg - self.stop_deg
        return turned % 360.0

    @property
    def mirrored(self) -> Arc:
        """The arc as the other side of the patient sees it."""
        turned: Direction = "CC" if self.direction == "CW" else "CW"
        return Arc(
            mirrored_deg(self.start_deg), mirrored_deg(self.stop_deg), turned, mirrored_deg(self.collimator_angle_deg)
        )


def mirrored_deg(angle_deg: float) -> float:
    """A gantry or collimator angle as the other side of the patient sees it, in [0, 360)."""
    return (360.0 - angle_deg) % 360.0


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Fields whose angles follow from the patient or from custom.

    `posterior_tilt_deg`: by how much opposed laterals come from behind. `flash_mm`: how far tangents open into the air
    beyond the skin. None where the kind has no such thing.
    """

    kind: ArrangementKind
    posterior_tilt_deg: float | None = None
    flash_mm: float | None = None


@dataclass(frozen=True, slots=True)
class BeamArrangement:
    """Directions of the beams, couch 0, IEC 61217 degrees: static fields, arcs, or an arrangement.

    With `laterality` angles and arcs are those for a target on the left; the right gets their mirror image.
    """

    gantry_angles_deg: tuple[float, ...]
    collimator_angle_deg: float
    arcs: tuple[Arc, ...] = ()
    arrangement: Arrangement | None = None

    @property
    def mirrored(self) -> BeamArrangement:
        """The same for the other side of the patient."""
        return replace(
            self,
            gantry_angles_deg=tuple(mirrored_deg(angle) for angle in self.gantry_angles_deg),
            collimator_angle_deg=mirrored_deg(self.collimator_angle_deg),
            arcs=tuple(arc.mirrored for arc in self.arcs),
        )


@dataclass(frozen=True, slots=True)
class Block:
    """A structure that the leaves of a conformal field keep covered, with `margin_mm` around it in the beam's view."""

    structure: str
    margin_mm: float


@dataclass(frozen=True, slots=True)
class ConformalRules:
    """Aims of a conformal plan: the highest target's dose between two percentages of its prescription, organs covered."""

    low_percent: float
    high_percent: float
    blocks: tuple[Block, ...]


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
    beams: BeamArrangement
    normalisation: Normalisation | None
    beamlet_mm: float
    dose_grid_mm: float
    optimisation_grid_mm: float
    segments_per_beam: int
    sha256: str
    technique: Technique = "imrt"
    sided: bool = False  # goals and beams await the side of the target: they are written for the left
    conformal: ConformalRules | None = None  # of the technique "conformal"


@dataclass(frozen=True, slots=True)
class PrescribedTarget:
    """A target of this patient and its dose over the whole course."""

    name: str
    dose_gy: float


@dataclass(frozen=True, slots=True)
class Prescription:
    """A protocol applied to one patient: which targets and goals hold, and what was left out."""

    protocol: Protocol  # for the target's side
    targets: tuple[PrescribedTarget, ...]  # highest dose first
    goals: tuple[Goal, ...]
    findings: tuple[Finding, ...]
    side: Side | None = None  # of the target, where the protocol's goals and beams depend on it

    def prescribed_gy(self, structure: str) -> float:
        """Dose that percentages in a structure's metrics refer to: its own level, else the highest."""
        own = [t.dose_gy for t in self.targets if t.name == structure]
        return own[0] if own else self.targets[0].dose_gy


def partners(name: str) -> tuple[str, str] | None:
    """Left and right organ behind a name such as Lung_ipsi or Breast_contra; None for any other name."""
    for ending in ("_ipsi", "_contra"):
        if name.endswith(ending) and len(name) > len(ending):
            return name.removesuffix(ending) + "_L", name.removesuffix(ending) + "_R"
    return None


def on_side(name: str, side: Side) -> str:
    """The organ that a name means for a target on `side`: Lung_ipsi becomes Lung_L on the left. Other names stay."""
    pair = partners(name)
    if pair is None:
        return name
    return pair[0] if name.endswith("_ipsi") == (side == "left") else pair[1]


def for_side(protocol: Protocol, side: Side) -> Protocol:
    """The protocol for a target on `side`: organs by their own names, goals of the other side left out, beams mirrored for
    the right."""

    def names(listed: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(on_side(name, side) for name in listed)

    rules = protocol.conformal
    blocks = () if rules is None else tuple(replace(b, structure=on_side(b.structure, side)) for b in rules.blocks)
    return replace(
        protocol,
        helpers=tuple(replace(h, of=names(h.of), minus=names(h.minus)) for h in protocol.helpers),
        goals=tuple(
            replace(g, structure=on_side(g.structure, side), side=None) for g in protocol.goals if g.side in (None, side)
        ),
        beams=protocol.beams.mirrored if side == "right" else protocol.beams,
        conformal=None if rules is None else replace(rules, blocks=blocks),
        sided=False,
    )
