"""Regions whose names only may mean an organ: nobody uses them for it in silence, and nobody overlooks them."""

from __future__ import annotations

from collections.abc import Sequence

from rtplan.domain.prescription import Protocol
from rtplan.domain.roi_names import is_target_roi
from rtplan.domain.structures import RoiContours, Structure
from rtplan.domain.verdict import Finding
from rtplan.library.names import match_name


def is_written_out(name: str, organ: str) -> bool:
    """Whether a name means a TG-263 name without any doubt or addition."""
    found = match_name(name)
    return found.name == organ and found.confidence == 1.0


def names_to_confirm(unused: Sequence[RoiContours], structures: Sequence[Structure], protocol: Protocol) -> list[Finding]:
    """A NAME_TO_CONFIRM for each unused region that may be an organ; held when the protocol needs it and nothing else is it.

    `structures` are those of the case, under their names. What a model drew is no answer to what a person may have drawn.
    """
    needed = {rule.name for rule in protocol.organs} | {goal.structure for goal in protocol.goals}
    given = {s.name: s.source_name or s.origin for s in structures if s.origin != "model"}
    by_model = {s.name for s in structures if s.origin == "model"}
    findings = []
    for roi in (r for r in unused if not is_target_roi(r.name, r.interpreted_type)):
        found = match_name(roi.name)
        meant = (found.name,) if found.name is not None else tuple(n for n in found.alternatives if n in needed)
        if not meant or given.get(meant[0]) == roi.name:
            continue
        text = f"{roi.name} may be {' or '.join(meant)}: {found.why}; it is not used as such until a person confirms it"
        if found.name in by_model:
            text = f"{roi.name} may be {found.name}: {found.why}; until a person confirms it, what a model drew is used"
        lacking = [name for name in meant if name in needed and name not in given]
        if found.name in given:
            text = f"{roi.name} may be {found.name} too: {found.why}; {given[found.name]} is used"
        if found.name is not None or lacking:
            findings.append(Finding("NAME_TO_CONFIRM", "hold" if lacking else "flag", text))
    return findings
