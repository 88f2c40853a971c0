"""A protocol applied to one patient: targets nested and cropped, helpers made, goals that can be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.grid import Grid
from rtplan.domain.prescription import HelperRule, PrescribedTarget, Prescription, Protocol, for_side
from rtplan.domain.structures import Structure, StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected
from rtplan.steps.laterality import target_side
from rtplan.steps.margins import deeper_than, expanded, ring
from rtplan.steps.target_checks import check_organ

_Masks = dict[str, NDArray[np.bool_]]


def prescribe(structures: StructureSet, protocol: Protocol) -> tuple[Prescription, StructureSet]:
    """The prescription for these structures, and the structures with final targets and the protocol's helpers.

    Goals on structures that the patient lacks are left out, each named in a finding. Raises CaseRejected
    SS_TARGET_MISSING, SS_TARGET_EMPTY when the crop under the skin leaves nothing of a target, or SIDE_AMBIGUOUS.
    """
    present = [level for level in protocol.levels if level.target in structures]
    absent = [level for level in protocol.levels if level.target not in structures and not level.optional]
    if absent or not present:
        missing = (absent or protocol.levels)[0]
        raise CaseRejected(
            "SS_TARGET_MISSING",
            f"no region for {missing.target} ({missing.dose_gy:g} Gy); found: {', '.join(structures.names)}",
            "a target for every prescription level",
            "contour it or choose another protocol",
        )
    findings: list[Finding] = []
    side = None
    if protocol.sided:
        side, said = target_side(structures, protocol)
        findings.append(said)
        protocol = for_side(protocol, side)
    masks: _Masks = {s.name: s.mask for s in structures}
    masks.update(_targets(masks, [level.target for level in present], structures, protocol, findings))
    helpers = _helpers(masks, structures, protocol, findings)
    judged = {goal.structure for goal in protocol.goals}
    for organ in (s for s in structures if s.name in judged):
        findings += check_organ(organ, structures.external.mask, structures.grid)
    complete = tuple(replace(s, mask=masks[s.name]) for s in structures)
    prescription = Prescription(
        protocol=protocol,
        targets=tuple(PrescribedTarget(level.target, level.dose_gy) for level in present),
        goals=tuple(goal for goal in protocol.goals if goal.structure in masks),
        findings=(*findings, *_left_out(protocol, set(masks))),
        side=side,
    )
    return prescription, StructureSet(structures.grid, (*complete, *helpers), structures.findings)


def _targets(
    masks: Mapping[str, NDArray[np.bool_]],
    names: list[str],
    structures: StructureSet,
    protocol: Protocol,
    findings: list[Finding],
) -> _Masks:
    """Targets, highest dose first, each holding the ones before it where the protocol nests them, cropped under the skin."""
    grid = structures.grid
    deep = deeper_than(structures.external.mask, grid, protocol.target_skin_crop_mm)
    final: _Masks = {}
    higher = np.zeros(grid.shape_zyx, dtype=np.bool_)
    for name in names:
        whole = masks[name] | higher if protocol.nested_targets else masks[name]
        cropped = whole & deep
        lost_cc = int((masks[name] & ~deep).sum()) * grid.voxel_cc
        if not cropped.any():
            raise CaseRejected(
                "SS_TARGET_EMPTY",
                f"nothing of {name} lies deeper than {protocol.target_skin_crop_mm:g} mm under the skin",
                "a target below the skin",
                "check the target and the External",
            )
        if lost_cc > 0:
            text = (
                f"{lost_cc:.2f} cc of {name} within {protocol.target_skin_crop_mm:g} mm of the skin left out of the target"
            )
            findings.append(Finding("TARGET_CROPPED", "flag", text))
        final[name] = cropped
        higher = whole
    return final


def _helpers(masks: _Masks, structures: StructureSet, protocol: Protocol, findings: list[Finding]) -> list[Structure]:
    """Helpers in the protocol's order, added to `masks` as they are made, so that later rules can use earlier ones."""
    external = structures.external.mask
    made = []
    for rule in protocol.helpers:
        of = [masks[name] for name in rule.of if name in masks]
        missing = [name for name in (*rule.of, *rule.minus) if name not in masks]
        if not of:
            text = f"{rule.name} is not made: {', '.join(rule.of)} not contoured"
            findings.append(Finding("HELPER_SKIPPED", "info", text))
            continue
        minus = [masks[name] for name in rule.minus if name in masks]
        mask = _made(rule, np.logical_or.reduce(of), minus, structures.grid) & external
        if not mask.any():
            findings.append(Finding("HELPER_EMPTY", "info", f"{rule.name} is not made: nothing is left of it"))
            continue
        if missing:
            findings.append(Finding("HELPER_PARTIAL", "info", f"{rule.name} is made without {', '.join(missing)}"))
        masks[rule.name] = mask
        made.append(Structure(rule.name, "CONTROL", mask, "", "engine"))
    return made


def _made(rule: HelperRule, of: NDArray[np.bool_], minus: list[NDArray[np.bool_]], grid: Grid) -> NDArray[np.bool_]:
    """The mask of one rule, not yet cut at the body (see HelperRule)."""
    match rule.kind:
        case "expand":
            return expanded(of, grid, rule.outer_mm)
        case "ring":
            return ring(of, grid, inner_mm=rule.inner_mm, outer_mm=rule.outer_mm)
        case "subtract":
            return of & ~expanded(np.logical_or.reduce(minus), grid, rule.inner_mm) if minus else of
        case "union":
            return of


def _left_out(protocol: Protocol, names: set[str]) -> list[Finding]:
    """One finding for each goal that cannot be judged."""
    findings = []
    for goal in protocol.goals:
        if goal.structure not in names:
            what = f"goal {goal.metric.text} {goal.sense} {goal.limit:g} not evaluated"
            findings.append(Finding("GOAL_SKIPPED", "flag", f"{goal.structure} is not contoured: {what}"))
    return findings
