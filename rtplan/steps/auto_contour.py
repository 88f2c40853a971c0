"""Organs that a model outlines: masks on the CT's grid with a confidence, and every doubt as a finding.

Whoever needs an organ for a plan passes its name in `needed`: a doubt about such an organ holds the case. No target is ever
outlined here: what the engine takes from a model is an organ, whatever the model calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rtplan.dicom.outlines import outlines
from rtplan.domain.contours import rasterise
from rtplan.domain.grid import Grid, Int3
from rtplan.domain.image import CtImage
from rtplan.domain.structures import DrawnBy, Structure
from rtplan.domain.verdict import Finding, Severity
from rtplan.errors import CaseRejected, SafetyStop
from rtplan.library.models import as_rtplan_error, why_unusable
from segmentation.contract import (
    CtVolume,
    DeviceMissing,
    Doubt,
    ModelRefused,
    ModelUnverified,
    OutputInvalid,
    Segmentation,
    Segmenter,
)
from segmentation.shapes import dice

MIN_ROUND_TRIP_DICE = 0.99
MAX_SPILL = 0.05  # of an organ's volume, drawn outside the body: more is no grain of the model's coarser grid
SAME_ORGAN_DICE = 0.5

Mask = NDArray[np.bool_]
LoadModel = Callable[[str], Segmenter]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnOrgans:
    """Organs drawn by a model, and what a reviewer must know of them.

    `asked` are those that it was to draw, `model` its id and version; both are empty where no model was run.
    """

    structures: tuple[Structure, ...]
    findings: tuple[Finding, ...]
    asked: tuple[str, ...] = ()
    model: tuple[str, str] | None = None

    def only(self, names: Collection[str]) -> DrawnOrgans:
        """Without the organs that are not in `names`, and what was found about them."""
        kept = tuple(s for s in self.structures if s.name in names)
        said = tuple(f for f in self.findings if not f.structure or f.structure in names)
        return replace(self, structures=kept, findings=said)


NOTHING_DRAWN = DrawnOrgans((), ())


def missing_organs(
    ct: CtImage,
    lacking: Sequence[str],
    required: Collection[str],
    *,
    model_id: str | None,
    load_model: LoadModel,
    device: str,
) -> DrawnOrgans:
    """Those of the lacking organs that the model knows. The model is loaded only when something lacks, and run only then.

    A model that refuses the CT leaves the organs out, with a hold. Raises CaseRejected SS_ORGAN_MISSING when one of them
    is `required`, LibraryInvalid MODEL_UNKNOWN or MODEL_UNVERIFIED, BackendMissing BACKEND_MISSING, SafetyStop
    MODEL_OUTPUT_INVALID.
    """
    if model_id is None or not lacking:
        return NOTHING_DRAWN
    segmenter = load_model(model_id)
    names = [name for name in lacking if name in segmenter.labels]
    if not names:
        return NOTHING_DRAWN
    verified(segmenter)
    try:
        return draw_organs(ct, segmenter, names, device=device, needed=names)
    except ModelRefused as error:
        missed = ", ".join(name for name in names if name in required)
        if missed:
            found = (
                f"{missed}, which the protocol requires, is not contoured, and the model {segmenter.kind} refused: {error}"
            )
            raise CaseRejected("SS_ORGAN_MISSING", found, "a contour of every required organ", "contour it") from error
        text = f"{', '.join(names)} not contoured: the model {segmenter.kind} refused: {error}"
        refusal = Finding("MODEL_REFUSED", "hold", text)
        return DrawnOrgans((), (refusal,), tuple(names), (segmenter.kind, segmenter.version))
    except (ModelUnverified, DeviceMissing, OutputInvalid) as error:
        raise as_rtplan_error(error, segmenter.kind) from error


def verified(segmenter: Segmenter) -> Segmenter:
    """The model, when its files are as they were released or pinned. Raises MODEL_UNVERIFIED or MODEL_REFUSED."""
    wrong = why_unusable(segmenter)
    if wrong is not None:
        raise wrong
    return segmenter


def draw_organs(
    ct: CtImage, segmenter: Segmenter, names: Sequence[str], *, device: str, needed: Collection[str]
) -> DrawnOrgans:
    """Organs `names` of a CT as the model sees them; of its other structures nothing is kept.

    Raises what the model raises: ModelUnverified, ModelRefused, DeviceMissing, OutputInvalid.
    """
    volume = CtVolume.standard(ct.hu, ct.grid.spacing_zyx_mm, ct.grid.origin_xyz_mm)
    found = segmenter.segment(volume, device=device)
    structures, missed = [], []
    for name in names:
        mask = _mask(found, name, ct.grid)
        if mask is None:
            missed.append(name)
            continue
        drawn_by = DrawnBy(segmenter.kind, segmenter.version, found.confidence[name])
        structures.append(Structure(name, "ORGAN", mask, "", "model", drawn_by))
    doubts = [d for d in found.doubts if d.structure is None or d.structure in names]
    findings = [_finding(doubt, needed, ct.grid) for doubt in doubts]
    findings += [_not_found(name, segmenter.kind, needed) for name in missed if not _questioned(name, findings)]
    if structures:
        drawn = ", ".join(s.name for s in structures)
        text = f"{drawn}: drawn by the model {segmenter.kind} {segmenter.version}; a person has to look at each"
        findings.append(Finding("AUTO_CONTOURS", "flag", text))
    return DrawnOrgans(tuple(structures), tuple(findings), tuple(names), (segmenter.kind, segmenter.version))


def _mask(found: Segmentation, name: str, grid: Grid) -> Mask | None:
    """The model's mask of a structure, None when it has no voxel."""
    mask = found.masks.get(name)
    if mask is None:
        return None
    if mask.shape != grid.shape_zyx or mask.dtype != np.bool_:
        raise OutputInvalid(f"{name}: mask {mask.shape} {mask.dtype} for a CT {grid.shape_zyx}")
    return mask if mask.any() else None


def _finding(doubt: Doubt, needed: Collection[str], grid: Grid) -> Finding:
    """A doubt as a finding. What is doubtful about an organ that the plan needs holds the case."""
    severity: Severity = "hold" if doubt.severity == "flag" and doubt.structure in needed else doubt.severity
    name = doubt.structure or ""
    text = doubt.message if name in doubt.message else f"{name}: {doubt.message}"
    return Finding(doubt.code, severity, text, name, _inside(doubt.at, grid))


def _inside(at: Int3 | None, grid: Grid) -> Int3 | None:
    """The index of a voxel, None for one that the grid does not have."""
    if at is None or any(not 0 <= i < n for i, n in zip(at, grid.shape_zyx, strict=True)):
        return None
    return int(at[0]), int(at[1]), int(at[2])


def _questioned(name: str, findings: Sequence[Finding]) -> bool:
    return any(f.structure == name and f.severity != "info" for f in findings)


def _not_found(name: str, kind: str, needed: Collection[str]) -> Finding:
    text = f"{name}: the model {kind}, which knows it, found none on this CT"
    return Finding("AUTO_NOT_FOUND", _doubtful(name, needed), text, name)


def _doubtful(name: str, needed: Collection[str]) -> Severity:
    return "hold" if name in needed else "flag"


def fitted(drawn: DrawnOrgans, external: Mask, grid: Grid, needed: Collection[str]) -> tuple[list[Structure], list[Finding]]:
    """The organs inside the body, as the contours that will be written give them back.

    Raises SafetyStop CONTOUR_ROUND_TRIP when contours lose more than 1 % of an organ (Dice).
    """
    kept, findings = [], list(drawn.findings)
    for structure in drawn.structures:
        inside = structure.mask & external
        spilled = 1.0 - int(inside.sum()) / int(structure.mask.sum())
        if spilled > 0:
            findings.append(_spill(structure, external, spilled, needed))
        if inside.any():
            kept.append(replace(structure, mask=as_written(structure.name, inside, grid)))
    return kept, findings


def _spill(structure: Structure, external: Mask, share: float, needed: Collection[str]) -> Finding:
    outside = np.argwhere(structure.mask & ~external)
    z, y, x = (int(i) for i in outside[len(outside) // 2])
    severity: Severity = _doubtful(structure.name, needed) if share > MAX_SPILL else "info"
    text = f"{structure.name}: {100 * share:.1f} % of what the model drew lies outside the body and is cut off"
    return Finding("AUTO_OUTSIDE_BODY", severity, text, structure.name, (z, y, x))


def as_written(name: str, mask: Mask, grid: Grid) -> Mask:
    """The mask that the contours of a mask give back, which is what must be planned on. Raises SafetyStop."""
    back = rasterise(outlines(mask, grid), grid)
    same = dice(mask, back)
    if same < MIN_ROUND_TRIP_DICE:
        raise SafetyStop(
            "CONTOUR_ROUND_TRIP", f"{name}: its contours give back a Dice of {same:.3f}", f"at least {MIN_ROUND_TRIP_DICE}"
        )
    return back


def doubles(drawn: Sequence[Structure], others: Sequence[Structure]) -> list[Finding]:
    """A hold for each organ that a person seems to have drawn as well, under a name that nobody could read."""
    findings = []
    for organ in drawn:
        for other in others:
            if other.kind != "ORGAN" or not (same := dice(organ.mask, other.mask)) >= SAME_ORGAN_DICE:
                continue
            given = other.source_name or other.name
            text = f"{given} of the structure set looks like {organ.name} (Dice {same:.2f}), which a model drew; rename it"
            findings.append(Finding("AUTO_DOUBLE", "hold", text, organ.name, middle(organ.mask)))
    return findings


def middle(mask: Mask) -> Int3:
    """Index of a voxel of the mask, in the slice where it is largest, nearest to its centre there."""
    z = int(np.argmax(mask.sum(axis=(1, 2))))
    points = np.argwhere(mask[z])
    y, x = points[int(np.argmin(np.abs(points - points.mean(axis=0)).sum(axis=1)))]
    return z, int(y), int(x)
