"""Colours of structures and isodoses, told apart by people with colour vision deficiency (Okabe and Ito 2008, adapted)."""

from __future__ import annotations

from rtplan.domain.structures import StructureSet

_TARGET_COLOURS = ("#e3201b", "#ff8c1a", "#e24bd0")
_ORGAN_COLOURS = ("#3fa9f5", "#00a884", "#8e6bf0", "#a86b32", "#7d8f1f", "#4f6fd8", "#c2577e")
_ORGAN_DASHES = ("solid", "dashed", "dotted")
_EXTERNAL_COLOUR = "#9aa0a6"
_TARGETS = ("PTV", "CTV", "GTV")
_HIDDEN = ("CONTROL", "SUPPORT")

Look = tuple[str, str, float]  # colour, line style, width in points


def looks(structures: StructureSet) -> dict[str, Look]:
    """Colour, line style and width by structure name, for everything that a reviewer sees, in given order."""
    result: dict[str, Look] = {}
    targets = organs = 0
    for structure in structures:
        if structure.kind in _HIDDEN:
            continue
        if structure.kind == "EXTERNAL":
            result[structure.name] = (_EXTERNAL_COLOUR, "solid", 0.9)
        elif structure.kind in _TARGETS:
            colour = _TARGET_COLOURS[targets % len(_TARGET_COLOURS)]
            result[structure.name] = (colour, _ORGAN_DASHES[targets // len(_TARGET_COLOURS) % 3], 2.0)
            targets += 1
        else:
            colour = _ORGAN_COLOURS[organs % len(_ORGAN_COLOURS)]
            result[structure.name] = (colour, _ORGAN_DASHES[organs // len(_ORGAN_COLOURS) % 3], 1.5)
            organs += 1
    return result


def drawable(text: str) -> str:
    """Text that the figures' font can draw: what it lacks becomes a box instead of a warning."""
    return "".join(c if c.isprintable() and ord(c) < 0x500 else "\u25a1" for c in text)
