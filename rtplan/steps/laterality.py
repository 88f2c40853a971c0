"""On which side of the patient the target lies: never guessed."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from rtplan.domain.goals import Side
from rtplan.domain.grid import Grid
from rtplan.domain.prescription import Protocol
from rtplan.domain.structures import StructureSet
from rtplan.domain.verdict import Finding
from rtplan.errors import CaseRejected

CLEAR_OF_MIDLINE_MM = 15.0  # nearer to the midline the side is a matter of opinion
_LEFT = re.compile(r"(^|[^a-z])(l|lt|left)([^a-z]|$)", re.IGNORECASE)
_RIGHT = re.compile(r"(^|[^a-z])(r|rt|right)([^a-z]|$)", re.IGNORECASE)


def target_side(structures: StructureSet, protocol: Protocol) -> tuple[Side, Finding]:
    """The side of the targets' centre from the body's midline, and a finding that says so.

    The midline is the middle of the External over the targets' slices. The paired organs that the protocol knows and the
    side in the target's own name must agree. Raises CaseRejected SIDE_AMBIGUOUS.
    """
    grid = structures.grid
    present = [structures[level.target] for level in protocol.levels if level.target in structures]
    target = np.logical_or.reduce([s.mask for s in present])
    from_midline_mm = _centre_x_mm(target, grid) - _midline_x_mm(structures.external.mask, target, grid)
    if abs(from_midline_mm) < CLEAR_OF_MIDLINE_MM:
        raise _ambiguous(f"the targets' centre lies {abs(from_midline_mm):.0f} mm from the body's midline")
    side: Side = "left" if from_midline_mm > 0 else "right"
    text = f"the targets' centre lies {abs(from_midline_mm):.0f} mm to the {side} of the body's midline"
    for left, right in _pairs(structures, protocol):
        near = _nearer(target, structures[left].mask, structures[right].mask, grid)
        if near != side:
            raise _ambiguous(f"{text}, but nearer to {left if near == 'left' else right}")
    for structure in present:
        named = _named_side(structure.source_name)
        if named is not None and named != side:
            raise _ambiguous(f"{text}, but {structure.source_name} is called {named}")
    return side, Finding("SIDE_TAKEN", "flag", f"planned as a target on the {side}: {text}")


def _centre_x_mm(mask: NDArray[np.bool_], grid: Grid) -> float:
    columns = mask.sum(axis=(0, 1))
    return float((columns * grid.x_mm()).sum() / columns.sum())


def _midline_x_mm(external: NDArray[np.bool_], target: NDArray[np.bool_], grid: Grid) -> float:
    columns = np.flatnonzero(external[target.any(axis=(1, 2))].any(axis=(0, 1)))
    if not columns.size:
        raise _ambiguous("the External is empty where the targets are")
    return float(grid.x_mm()[[columns[0], columns[-1]]].mean())


def _pairs(structures: StructureSet, protocol: Protocol) -> list[tuple[str, str]]:
    lefts = [organ.name for organ in protocol.organs if organ.name.endswith("_L") and organ.name in structures]
    pairs = [(left, left.removesuffix("_L") + "_R") for left in lefts]
    return [(a, b) for a, b in pairs if b in structures and structures[a].mask.any() and structures[b].mask.any()]


def _nearer(target: NDArray[np.bool_], left: NDArray[np.bool_], right: NDArray[np.bool_], grid: Grid) -> Side:
    """Which of two organs the target's centre is nearer to across the body."""
    x_mm = _centre_x_mm(target, grid)
    return "left" if abs(x_mm - _centre_x_mm(left, grid)) < abs(x_mm - _centre_x_mm(right, grid)) else "right"


def _named_side(name: str) -> Side | None:
    left, right = _LEFT.search(name) is not None, _RIGHT.search(name) is not None
    if left == right:
        return None
    return "left" if left else "right"


def _ambiguous(found: str) -> CaseRejected:
    return CaseRejected(
        "SIDE_AMBIGUOUS",
        found,
        "a target that lies clearly on one side, organs and names that agree",
        "check target and organs; for a target in the middle use a protocol that names its beams",
    )
