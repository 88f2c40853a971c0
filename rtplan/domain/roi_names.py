"""What can be told from the name of a region of interest, and how a hostile name is made harmless."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

TARGET_TYPES = frozenset({"PTV", "CTV", "GTV"})
_TARGET_NAME = re.compile(r"^[\W_]*[ip]?(PTV|CTV|GTV|ITV)", re.IGNORECASE)
_MAX_DISPLAY = 64
MAX_NAME = 16  # TG-263, and the limit of DICOM's short string


def is_target_roi(name: str, interpreted_type: str) -> bool:
    """Whether a region is a target by its RT ROI Interpreted Type, or by a name such as PTV70, iGTV or CTVn_5600."""
    return interpreted_type.upper() in TARGET_TYPES or _TARGET_NAME.match(name) is not None


def printable(raw: str) -> str:
    """The name as it may be shown: control and direction characters written as escapes, at most 64 characters.

    It is still text from outside: whoever writes HTML, CSV or a path escapes it for that place.
    """
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in raw)
    return text if len(text) <= _MAX_DISPLAY else text[: _MAX_DISPLAY - 1] + "…"


def comparable(raw: str) -> str:
    """The name without case, spaces and typographic variants: two regions that share it cannot be told apart."""
    return "".join(unicodedata.normalize("NFKC", raw).casefold().split())


def safe_name(raw: str, taken: Container[str]) -> str:
    """A name of ASCII letters, digits and _ - + ~ !, at most 16 characters, that is in no case variant in `taken`.

    `taken` holds lower-case names.
    """
    ascii_text = unicodedata.normalize("NFKD", raw).encode("ascii", "ignore").decode("ascii")
    stem = re.sub(r"[^A-Za-z0-9_+~!-]+", "_", ascii_text).lstrip("-+~!_").rstrip("_")[:MAX_NAME] or "Roi"
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        suffix = f"_{number}"
        name = stem[: MAX_NAME - len(suffix)] + suffix
    return name
