"""From the names that clinics use to the names of AAPM TG-263."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rtplan.errors import LibraryInvalid
from rtplan.library.yaml_lines import read_yaml

_FILE = Path(__file__).parent / "names" / "tg263.yaml"
_MAX_LENGTH = 16
_SIDES = {
    "l": "L",
    "lt": "L",
    "left": "L",
    "li": "L",
    "links": "L",
    "r": "R",
    "rt": "R",
    "right": "R",
    "re": "R",
    "rechts": "R",
}
_PRV = re.compile(r"^(.*?)[ _-]*prv[ _-]*0*(\d{1,2})(?:[ _-]*mm)?$", re.IGNORECASE)
# Boundaries inside written-together words: LeftParotid, PTVHigh, LParotid.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class _Names:
    """TG-263 names by comparison key, keys that exist on two sides, and FMA codes by TG-263 name."""

    single: dict[str, str]
    paired: dict[str, str]
    fma: dict[str, int]


def tg263_name(raw: str) -> str | None:
    """TG-263 name for a region's name, None when it is not known for certain.

    Case, separators and the place of the side do not matter: "Parotid L", LeftParotid and lt_parotid are Parotid_L.
    An organ that exists twice needs its side. SpinalCord_PRV5 and "cord prv 05" are SpinalCord_PRV05.
    """
    prv = _PRV.match(raw.strip())
    if prv:
        organ = tg263_name(prv.group(1)) if prv.group(1) else None
        name = f"{organ}_PRV{int(prv.group(2)):02d}"
        return name if organ is not None and len(name) <= _MAX_LENGTH else None
    names = _load()
    words = _words(raw)
    single = names.single.get("".join(words))
    if single is not None:
        return single
    for side, organ in _side_split(words):
        base = names.paired.get(organ)
        if base is not None:
            return f"{base}_{side}"
    return None


def fma_code(name: str) -> int | None:
    """Code of a TG-263 name in the Foundational Model of Anatomy, None when there is none."""
    return _load().fma.get(name)


def known_names() -> tuple[str, ...]:
    """Every TG-263 name that `tg263_name` can return, but for PRVs."""
    names = _load()
    sided = [f"{base}_{side}" for base in set(names.paired.values()) for side in "LR"]
    return tuple(sorted({*names.single.values(), *sided}))


def _words(raw: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", raw)
    return [w.casefold() for w in re.split(r"[\W_]+", _CAMEL.sub(" ", plain)) if w]


def _side_split(words: list[str]) -> Iterator[tuple[str, str]]:
    """Ways to take a side off the first or last word, with what is left joined."""
    if len(words) > 1:
        if words[-1] in _SIDES:
            yield _SIDES[words[-1]], "".join(words[:-1])
        if words[0] in _SIDES:
            yield _SIDES[words[0]], "".join(words[1:])
    joined = "".join(words)
    for word, side in _SIDES.items():
        # Written together without capitals, such as parotidleft or rlung; only words that cannot be part of an organ's name.
        if len(word) != 2 and joined.endswith(word):
            yield side, joined.removesuffix(word)
        if len(word) != 2 and joined.startswith(word):
            yield side, joined.removeprefix(word)


@cache
def _load() -> _Names:
    """The name list. Raises LibraryInvalid when an entry is malformed or two names share an alias."""
    single: dict[str, str] = {}
    paired: dict[str, str] = {}
    fma: dict[str, int] = {}
    for entry in read_yaml(_FILE).data["names"]:
        name = entry["name"]
        is_paired = entry.get("paired", False)
        table = paired if is_paired else single
        for alias in (name, *entry["aliases"]):
            key = "".join(_words(alias))
            if table.setdefault(key, name) != name:
                raise LibraryInvalid(
                    "NAMES_AMBIGUOUS", f"{_FILE.name}: {alias!r} is both {table[key]} and {name}", "one name"
                )
        _add_codes(fma, entry, [f"{name}_L", f"{name}_R"] if is_paired else [name])
    return _Names(single, paired, fma)


def _add_codes(fma: dict[str, int], entry: dict[str, Any], names: list[str]) -> None:
    keys = ["fma_left", "fma_right"] if len(names) == 2 else ["fma"]
    for name, key in zip(names, keys, strict=True):
        if entry[key] is not None:
            fma[name] = int(entry[key])
