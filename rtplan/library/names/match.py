"""Which TG-263 name a region's name stands for, and how sure that is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from rtplan.library.names.fold import Word, words_of
from rtplan.library.names.reading import NameMatch, misspelt, reading_of, side_of, sides_cut
from rtplan.library.names.tables import MAX_NAME, Tables, name_tables

HARMLESS, UNCERTAIN, INITIALS = 0.95, 0.8, 0.6  # ranks, as those of reading.py

_PRV = re.compile(r"[\s_-]*prv[\s_-]*0*(\d{1,2})(?!\d)(?:[\s_-]*mm)?", re.IGNORECASE)
_PRV_FIRST = re.compile(r"^prv[\s_-]+(\D.*?)[\s_+-]*0*(\d{1,2})[\s_-]*mm$", re.IGNORECASE)
_ANY_PRV = re.compile(r"(?<![^\W\d_])prv|prv(?![^\W\d_])", re.IGNORECASE)
_TARGET = re.compile(r"(?<![^\W\d_])[ipz]?(ptv|ctv|gtv|itv)|(ptv|ctv|gtv|itv)(?![^\W\d_])", re.IGNORECASE)
# TG-263 puts z or _ before what is not for evaluation, and ~ behind a part; ! marks helpers of this project.
_HELPER_SIGN = re.compile(r"^_|^[zZxX](?=[\s_.-]|[A-Z][a-z])|[!~]")
_MARGIN = re.compile(r"\+\s*\d+|\d\s*(mm|cm)\b", re.IGNORECASE)
_DOSE = re.compile(r"\d\s*c?gy\b|\d\s*%|[<>]", re.IGNORECASE)
_DATE = re.compile(r"(19|20)\d\d|\d{6}|\d{8}")
_DATE_PARTS = re.compile(r"(?<!\d)((?:19|20)\d\d|\d\d?)[-./](\d\d?)[-./]((?:19|20)\d\d|\d\d)(?!\d)")
_OPEN = re.compile(r"[?^]")  # ^ begins the clinic's own qualifier in TG-263
_STOPS = frozenset({"targets", "helpers", "devices", "dose", "parts"})
_ASCII_INITIALS = re.compile("[a-z]{2,3}")


def match_name(raw: str) -> NameMatch:
    """The TG-263 name for a region's name in any of the languages of this folder.

    Case, separators, accents, the place of the side and words such as "final" do not matter. An organ that exists
    twice needs its side; sides that contradict each other, targets, helpers of optimisation and parts of organs are no
    organ. PRVs carry their margin: "cord prv 5mm" is SpinalCord_PRV05.
    """
    text = _DATE_PARTS.sub(r"\1\2\3", unicodedata.normalize("NFKC", raw).strip())
    known = name_tables()
    if not words_of(text):
        return NameMatch(None, 0.0, "no letters")
    if _HELPER_SIGN.search(text):
        return NameMatch(None, 0.0, "marked as a helper or a part by its first letter or a sign")
    if _TARGET.search(text):
        return NameMatch(None, 0.0, "named after a target")
    if _ANY_PRV.search(text):
        return _prv(text)
    found = _organ(text, known)
    if found.sure and _OPEN.search(text):
        return replace(found, confidence=UNCERTAIN, why="a sign in the name leaves it open")
    return found


def _prv(text: str) -> NameMatch:
    """An organ at risk with a planning margin."""
    first, inside = _PRV_FIRST.match(text), _PRV.search(text)
    if first:
        organ, margin = first.group(1), int(first.group(2))
    elif inside:
        organ, margin = f"{text[: inside.start()]} {text[inside.end() :]}", int(inside.group(1))
    else:
        return NameMatch(None, 0.0, "a planning volume without its margin")
    found = match_name(organ)
    name = f"{found.name}_PRV{margin:02d}"
    if found.name is None or margin == 0 or len(name) > MAX_NAME:
        return NameMatch(None, 0.0, f"a planning volume of no known organ: {found.why}")
    return replace(found, name=name, alternatives=tuple(f"{a}_PRV{margin:02d}" for a in found.alternatives))


def _organ(text: str, known: Tables) -> NameMatch:
    """The name of an organ with whatever stands around it."""
    words = sides_cut(words_of(text), known)
    whole = reading_of(words, known)
    if whole is not None and (whole.name is not None or not _MARGIN.search(text)):
        return whole
    stop = next((w.text for w in words if known.words.get(w.key) in _STOPS), None)
    if stop is not None:
        return NameMatch(None, 0.0, f"{stop!r} says that it is not the organ itself")
    if _DOSE.search(text):
        return NameMatch(None, 0.0, "named after a dose")
    if _MARGIN.search(text):
        return NameMatch(None, 0.0, "an organ grown or shrunk by a margin")
    return (
        _without_additions(words, known)
        or misspelt([w for w in words if _addition(w, known) is None], known)
        or _with_initials(words, known)
        or NameMatch(None, 0.0, "no known name")
    )


def _addition(word: Word, known: Tables) -> float | None:
    """What a word that is not part of an organ's name leaves of the confidence; None for all other words."""
    if word.key.isdigit():
        return HARMLESS if len(word.key) == 1 or _DATE.fullmatch(word.key) else UNCERTAIN
    kind = known.words.get(word.key)
    return {"harmless": HARMLESS, "joining": HARMLESS, "uncertain": UNCERTAIN}.get(kind or "")


def _without_additions(words: Sequence[Word], known: Tables) -> NameMatch | None:
    """The name without words such as "final", numbers and dates."""
    additions = [(w, a) for w in words if (a := _addition(w, known)) is not None]
    for least in (HARMLESS, UNCERTAIN):
        dropped = [(w, a) for w, a in additions if a >= least]
        rest = [w for w in words if w not in [d for d, _ in dropped]]
        found = reading_of(rest, known) if dropped and rest else None
        if found is not None:
            break
    else:
        return None
    numbers = any(w.key.isdigit() for w, _ in dropped)
    if found.name is None:
        return found
    if numbers and found.name in known.numbered:
        return NameMatch(None, 0.0, f"one of several: {found.name} by number")
    least = min(a for _, a in dropped)
    text = ", ".join(w.text for w, _ in dropped)
    return replace(found, confidence=min(found.confidence, least), why=f"{found.why}, with {text!r} left out")


def _with_initials(words: Sequence[Word], known: Tables) -> NameMatch | None:
    """The name with one short word too many, which may be somebody's initials and may be a part of the organ."""
    rest = [w for w in words if _addition(w, known) is None]
    for short in rest:
        if _ASCII_INITIALS.fullmatch(short.key) and side_of(short, known) is None:
            found = reading_of([w for w in rest if w is not short], known)
            if found is not None and found.name is not None:
                why = f"{short.text!r} may be somebody's initials, or a part of the organ"
                return replace(found, confidence=min(found.confidence, INITIALS), why=why)
    return None
