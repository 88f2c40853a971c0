"""Structures for planning, from the physician's contours and the body found on the CT."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.contours import rasterise
from rtplan.domain.grid import Grid
from rtplan.domain.image import CtImage
from rtplan.domain.prescription import PrescriptionLevel, Protocol, partners
from rtplan.domain.roi_names import TARGET_TYPES, is_target_roi, safe_name
from rtplan.domain.structures import ContourSet, Kind, RoiContours, Structure, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected
from rtplan.library.names import known_names, tg263_name
from rtplan.steps.auto_contour import NOTHING_DRAWN, DrawnOrgans, doubles, fitted
from rtplan.steps.organ_names import is_written_out, names_to_confirm
from rtplan.steps.target_checks import check_external, check_sides, check_target, required_outlines

_EXTERNAL = "External"


def needed_organs(protocol: Protocol) -> tuple[str, ...]:
    """Organs that a plan by this protocol uses: required ones, those with a goal, and parts of helpers.

    TG-263 names, in the protocol's order. Targets, a GTV that the protocol uses as a volume, and the External are none.
    """
    used = [organ.name for organ in protocol.organs if organ.required]
    used += [goal.structure for goal in protocol.goals]
    used += [] if protocol.normalisation is None else [protocol.normalisation.structure]
    used += [] if protocol.conformal is None else [block.structure for block in protocol.conformal.blocks]
    rules = {helper.name: helper for helper in protocol.helpers}
    found: set[str] = set()
    while used:
        name = used.pop()
        pair = partners(name) if protocol.sided else None
        if pair is not None:
            used += pair
        elif name not in found:
            found.add(name)
            used += (*rules[name].of, *rules[name].minus) if name in rules else ()
    found -= {level.target for level in protocol.levels} | set(rules) | {_EXTERNAL}
    found = {name for name in found if not is_target_roi(name, "")}  # what no model draws
    ordered = [organ.name for organ in protocol.organs if organ.name in found]
    return (*ordered, *sorted(found.difference(ordered)))


def lacking_organs(contours: ContourSet, protocol: Protocol) -> tuple[str, ...]:
    """Organs that the protocol uses and for which the structure set has no region with contours."""
    drawn = [r for r in contours.rois if r.contours]
    given = {tg263_name(r.name) for r in drawn}
    given |= {rule.name for rule in protocol.organs if any(_matches(rule.names, r.name) for r in drawn)}
    return tuple(name for name in needed_organs(protocol) if name not in given)


def structures_from_contours(
    contours: ContourSet,
    ct: CtImage,
    body: NDArray[np.bool_],
    protocol: Protocol,
    drawn_organs: DrawnOrgans = NOTHING_DRAWN,
) -> StructureSet:
    """Masks on the CT grid under TG-263 names: the External first, the protocol's targets and organs, then all others.

    `body` is the engine's own External (z, y, x); it is used when the physician drew none, and to check the one drawn.
    `drawn_organs` are organs that the structure set lacks (`lacking_organs`), drawn by a model.
    Raises CaseRejected: SS_NAME_AMBIGUOUS, SS_TARGET_MISSING, SS_TARGET_EMPTY, SS_ORGAN_MISSING, SS_EXTERNAL_MISMATCH,
    SS_TARGET_OUTSIDE_BODY, TARGET_TOO_LARGE, SS_SELF_CROSSING, SS_GAP.
    """
    drawn = tuple(r for r in contours.rois if r.contours)
    findings = [Finding("SS_EMPTY", "info", f"{r.name} has no contours") for r in contours.rois if not r.contours]
    outline, external, notes = _external(drawn, ct.grid, body)
    findings += notes
    structures = [external]
    used = set() if outline is None else {outline.number}
    for level in protocol.levels:
        roi = _roi_of_level(level, contours.rois, protocol.levels)
        if roi is None:
            findings.append(_skipped(level, contours.rois))
            continue
        target, notes = _target(level, roi, ct.grid, external.mask)
        structures.append(target)
        findings += notes
        used.add(roi.number)
    lacking = set(lacking_organs(contours, protocol))  # what the physician drew wins, whatever came from elsewhere
    added, notes = fitted(drawn_organs.only(lacking), external.mask, ct.grid, drawn_organs.asked)
    findings += notes
    organs = _organs([r for r in drawn if r.number not in used], protocol, {s.name for s in added})
    structures += [
        Structure(name, "GTV" if is_target_roi(name, "") else "ORGAN", rasterise(r.contours, ct.grid), r.name)
        for name, r in organs
    ]
    structures += added
    used |= {r.number for _, r in organs}
    others, notes = _others([r for r in drawn if r.number not in used], ct.grid, structures, protocol)
    structures += others
    findings += [*notes, *doubles(added, others), *check_sides(structures, ct.grid)]
    return StructureSet(ct.grid, tuple(structures), tuple(findings))


def _external(
    drawn: Sequence[RoiContours], grid: Grid, body: NDArray[np.bool_]
) -> tuple[RoiContours | None, Structure, list[Finding]]:
    """The physician's External if there is one, by its type first and its name next; else the engine's."""
    own = [r for r in drawn if r.interpreted_type == "EXTERNAL"]
    named = [r for r in drawn if tg263_name(r.name) == _EXTERNAL and r.interpreted_type in ("", "ORGAN")]
    own = own or [r for r in named if is_written_out(r.name, _EXTERNAL)] or named
    if len(own) > 1:
        names = ", ".join(r.name for r in own)
        raise CaseRejected("SS_NAME_AMBIGUOUS", f"{len(own)} body outlines: {names}", "one External", "delete all but one")
    if not own:
        text = "no body outline was drawn; the one found on the CT is used"
        return None, Structure(_EXTERNAL, "EXTERNAL", body, "", "engine"), [Finding("EXTERNAL_FOUND", "info", text)]
    mask = rasterise(own[0].contours, grid)
    return own[0], Structure(_EXTERNAL, "EXTERNAL", mask, own[0].name), check_external(mask, body)


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name.strip(), re.IGNORECASE) for pattern in patterns)


def _roi_of_level(
    level: PrescriptionLevel, rois: Sequence[RoiContours], levels: Sequence[PrescriptionLevel]
) -> RoiContours | None:
    """The region that is a level's target; None when an optional level has none."""
    named = [r for r in rois if _matches(level.names, r.name)]
    found = [r for r in named if r.contours]
    if len(found) > 1:
        raise CaseRejected(
            "SS_NAME_AMBIGUOUS",
            f"{', '.join(r.name for r in found)} all stand for {level.target} ({level.dose_gy:g} Gy)",
            "one region a prescription level",
            "rename all but one",
        )
    if found:
        rivals = [other.target for other in levels if other is not level and _matches(other.names, found[0].name)]
        if rivals:
            raise CaseRejected(
                "SS_NAME_AMBIGUOUS",
                f"{found[0].name} stands for {level.target} and for {rivals[0]}",
                "one level a region",
                "rename it",
            )
        return found[0]
    if level.optional:
        return None
    if named:
        raise CaseRejected(
            "SS_TARGET_EMPTY",
            f"{named[0].name}, the target of {level.dose_gy:g} Gy, has no contours",
            "a target with a volume",
            "draw it or remove the level",
        )
    raise CaseRejected(
        "SS_TARGET_MISSING",
        f"no region for {level.target} ({level.dose_gy:g} Gy); found: {', '.join(r.name for r in rois) or 'none'}",
        f"a region named like {' or '.join(level.names)}",
        "rename the target or choose another protocol",
    )


def _skipped(level: PrescriptionLevel, rois: Sequence[RoiContours]) -> Finding:
    names = ", ".join(r.name for r in rois)
    text = f"{level.target} ({level.dose_gy:g} Gy) is not contoured and is left out of the prescription; found: {names}"
    return Finding("LEVEL_SKIPPED", "flag", text)


def _target(
    level: PrescriptionLevel, roi: RoiContours, grid: Grid, external: NDArray[np.bool_]
) -> tuple[Structure, list[Finding]]:
    """Mask of a level's target inside the body."""
    if not is_target_roi(roi.name, roi.interpreted_type):
        # The reader did not know that this is a target, so what it only reported is refused here.
        required_outlines(roi, grid)
    mask = rasterise(roi.contours, grid)
    inside, findings = check_target(roi, mask, external, grid)
    kind: Kind = next((k for k in ("PTV", "CTV", "GTV") if k == roi.interpreted_type or level.target.startswith(k)), "PTV")
    return Structure(level.target, kind, inside, roi.name), findings


def _organs(
    rois: Sequence[RoiContours], protocol: Protocol, drawn_by_model: Container[str]
) -> list[tuple[str, RoiContours]]:
    """The regions of the organs that the protocol knows, by its own names and by the TG-263 mapping, in its order."""
    organs: list[tuple[str, RoiContours]] = []
    for rule in protocol.organs:
        # A protocol may use a GTV as a volume, for the lungs outside of it; no other rule takes a target.
        is_target = is_target_roi(rule.name, "")
        candidates = [r for r in rois if is_target_roi(r.name, r.interpreted_type) == is_target]
        found = [r for r in candidates if _matches(rule.names, r.name) or is_written_out(r.name, rule.name)]
        found = found or [r for r in candidates if tg263_name(r.name) == rule.name]
        names = ", ".join(r.name for r in found)
        if len(found) > 1:
            raise CaseRejected(
                "SS_NAME_AMBIGUOUS", f"{names} all stand for {rule.name}", "one region an organ", "rename all but one"
            )
        if found and any(found[0] is roi for _, roi in organs):
            raise CaseRejected(
                "SS_NAME_AMBIGUOUS", f"{names} stands for two organs of the protocol", "one organ a region", "rename it"
            )
        if found:
            organs.append((rule.name, found[0]))
        elif rule.required and rule.name not in drawn_by_model:
            raise CaseRejected(
                "SS_ORGAN_MISSING",
                f"{rule.name}, which the protocol requires, is not contoured; found: {', '.join(r.name for r in rois)}",
                f"a region named like {' or '.join(rule.names)}",
                "contour it",
            )
    return organs


def _others(
    rois: Sequence[RoiContours], grid: Grid, structures: Sequence[Structure], protocol: Protocol
) -> tuple[list[Structure], list[Finding]]:
    """Everything that the protocol does not name, kept for the report and the output under a safe, unique name.

    No name that the protocol gives a meaning to is handed out, so that nothing becomes a target or a helper by accident.
    """
    taken = {s.name.lower() for s in structures} | {level.target.lower() for level in protocol.levels}
    taken |= {organ.name.lower() for organ in protocol.organs} | {helper.name.lower() for helper in protocol.helpers}
    organs = {name.lower() for name in known_names()}
    kept, findings = [], []
    for roi in rois:
        known = tg263_name(roi.name)
        name = known if known is not None and known.lower() not in taken else safe_name(roi.name, taken | organs)
        taken.add(name.lower())
        kept.append(Structure(name, _kind(roi), rasterise(roi.contours, grid), roi.name))
        if name != roi.name:
            findings.append(Finding("SS_RENAMED", "info", f"{roi.name} is not of this protocol and is kept as {name}"))
        if roi.interpreted_type in TARGET_TYPES:
            findings.append(Finding("TARGET_UNUSED", "flag", f"{roi.name} is a target without a dose in this protocol"))
        if roi.interpreted_type == "BOLUS":
            text = f"{roi.name} is a bolus; it is not part of the body and its effect is not in the dose"
            findings.append(Finding("BOLUS_IGNORED", "hold", text))
    return kept, [*findings, *names_to_confirm(rois, [*structures, *kept], protocol)]


def _kind(roi: RoiContours) -> Kind:
    return next((k for k in get_args(Kind) if k == roi.interpreted_type and k != "EXTERNAL"), "ORGAN")
