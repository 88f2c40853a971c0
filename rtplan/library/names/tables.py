"""What the files of this folder say: organs' names by key, the side words of each language, and the words around a name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rtplan.errors import LibraryInvalid
from rtplan.library.names.fold import key_of, key_of_word, words_of, written_together
from rtplan.library.yaml_lines import YamlDocument, read_yaml

FOLDER = Path(__file__).parent
LANGUAGES = ("de", "fr", "es", "pt", "it", "nl", "pl", "tr", "ru", "ar", "he", "hi", "zh", "ja", "ko")
MAX_NAME = 16  # TG-263
MIN_TYPO_LENGTH = 6
Side = Literal["L", "R", "both"]
# clear: always a side. beside_own: only beside an organ's name of the same language. guess: never more than a proposal.
Strength = Literal["clear", "beside_own", "guess"]
_SIDES: dict[str, Side] = {"left": "L", "right": "R", "both": "both"}
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


@dataclass(frozen=True, slots=True)
class Organ:
    """What a key stands for: a TG-263 name, without its side where there are two, and the languages that write it so."""

    name: str
    paired: bool
    languages: frozenset[str]
    homonym: bool = False  # means something else elsewhere, so a person confirms it unless a side of its language is there


@dataclass(frozen=True, slots=True)
class SideWord:
    """A word for a side. `foreign` are languages in which it means something else."""

    side: Side
    strength: Strength
    languages: frozenset[str]
    foreign: frozenset[str] = frozenset()


@dataclass(slots=True)
class Tables:
    """The name list. Not changed once it is loaded."""

    organs: dict[str, Organ] = field(default_factory=dict)
    bags: dict[tuple[str, ...], str] = field(default_factory=dict)  # sorted words, for another word order -> key
    sides: dict[str, SideWord] = field(default_factory=dict)
    glued_sides: tuple[str, ...] = ()  # side words that may be written together with the name, longest first
    typos: dict[str, tuple[str, ...]] = field(default_factory=dict)  # a key with one letter left out -> keys
    collective: dict[str, str] = field(default_factory=dict)  # Lung -> Lungs
    numbered: frozenset[str] = frozenset()  # a number says which one
    words: dict[str, str] = field(default_factory=dict)  # key -> what kind of word it is
    fma: dict[str, int] = field(default_factory=dict)


@cache
def name_tables() -> Tables:
    """All files of the folder. Raises LibraryInvalid when one is malformed or two names share a way of writing."""
    found = Tables()
    _read_tg263(found, read_yaml(FOLDER / "tg263.yaml"))
    documents = {language: read_yaml(FOLDER / f"{language}.yaml") for language in ("en", *LANGUAGES)}
    for language, document in documents.items():
        _read_sides(found, language, document)
    for language, document in documents.items():
        for word in _list(document.data.get("not_sides")):
            if word not in found.sides:
                raise LibraryInvalid("NAME_UNKNOWN", f"{document.where(('not_sides',))}: {word!r} is no side", "a side word")
            found.sides[word] = replace(found.sides[word], foreign=found.sides[word].foreign | {language})
        _read_names(found, language, document)
    _read_words(found, read_yaml(FOLDER / "words.yaml"))
    _index(found)
    return found


def _list(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in (text or "").split(",") if part.strip()]


def _read_tg263(found: Tables, document: YamlDocument) -> None:
    numbered = set()
    for entry in document.data["names"]:
        name, paired = entry["name"], entry.get("paired", False)
        for alias in (name, *entry["aliases"]):
            _add(found, alias, Organ(name, paired, frozenset({"en"})), document)
        if "both" in entry:
            found.collective[name] = entry["both"]
        if entry.get("numbered", False):
            numbered.add(name)
        _add_codes(found.fma, entry, [f"{name}_L", f"{name}_R"] if paired else [name])
    found.numbered = frozenset(numbered)


def _add_codes(fma: dict[str, int], entry: dict[str, Any], names: list[str]) -> None:
    keys = ["fma_left", "fma_right"] if len(names) == 2 else ["fma"]
    for name, key in zip(names, keys, strict=True):
        if entry[key] is not None:
            fma[name] = int(entry[key])


def _read_names(found: Tables, language: str, document: YamlDocument) -> None:
    paired = {organ.name: organ.paired for organ in found.organs.values()}
    homonyms = {key_of(word) for word in _list(document.data.get("homonyms"))}
    for name, text in document.data["names"].items():
        if name not in paired:
            raise LibraryInvalid("NAME_UNKNOWN", f"{document.where(('names', name))}: not of tg263.yaml", "a name of it")
        for alias in _list(text):
            for spelling in {alias, alias.translate(_UMLAUTS)} if language == "de" else {alias}:
                organ = Organ(name, paired[name], frozenset({language}), key_of(spelling) in homonyms)
                _add(found, spelling, organ, document)


def _add(found: Tables, alias: str, organ: Organ, document: YamlDocument) -> None:
    words = words_of(alias)
    key = "".join(w.key for w in words)
    known = found.organs.get(key, organ)
    if known.name != organ.name:
        raise LibraryInvalid(
            "NAMES_AMBIGUOUS", f"{document.path.name}: {alias!r} is both {known.name} and {organ.name}", "one name"
        )
    languages, homonym = organ.languages | known.languages, organ.homonym or known.homonym
    found.organs[key] = replace(organ, languages=languages, homonym=homonym)
    if len(words) > 1:
        # Two names of the same words in another order would make the order matter.
        bag = tuple(sorted(w.key for w in words))
        other = found.bags.setdefault(bag, key)
        if found.organs[other].name != organ.name:
            found.bags[bag] = ""


def _read_sides(found: Tables, language: str, document: YamlDocument) -> None:
    for strength, groups in document.data["sides"].items():
        for group, text in groups.items():
            for word in _list(text):
                for key in {word, key_of_word(word)} if not word.isascii() and word != "sağ" else {word}:
                    _add_side(found, key, SideWord(_SIDES[group], strength, frozenset({language})), document)


def _add_side(found: Tables, word: str, entry: SideWord, document: YamlDocument) -> None:
    known = found.sides.get(word, entry)
    if known.side != entry.side or known.strength != entry.strength:
        raise LibraryInvalid(
            "SIDE_WORD_AMBIGUOUS",
            f"{document.path.name}: {word!r} is {entry.side} ({entry.strength}), elsewhere {known.side} ({known.strength})",
            "one side and one strength a word",
        )
    found.sides[word] = replace(entry, languages=entry.languages | known.languages)


def _read_words(found: Tables, document: YamlDocument) -> None:
    kinds = {**document.data["not_an_organ"], **{k: document.data[k] for k in ("harmless", "uncertain", "joining")}}
    kinds["other anatomy"] = document.data["other_anatomy"]
    for kind, text in kinds.items():
        for word in _list(text):
            for part in words_of(word):
                if found.words.setdefault(part.key, kind) != kind or part.text in found.sides:
                    raise LibraryInvalid(
                        "NAME_WORD_AMBIGUOUS", f"{document.path.name}: {word!r} is of two kinds", "one kind a word"
                    )


def _index(found: Tables) -> None:
    """What follows from the lists: side words that may be glued on, and keys by what is left without one letter."""
    clear = [w for w, s in found.sides.items() if s.strength == "clear"]
    glued = [w for w in clear if written_together(w) or len(w) > 3]
    found.glued_sides = tuple(sorted(glued, key=len, reverse=True))
    near: defaultdict[str, set[str]] = defaultdict(set)
    for key in found.organs:
        if typed(key):
            for shorter in without_one(key):
                near[shorter].add(key)
    found.typos = {shorter: tuple(sorted(keys)) for shorter, keys in near.items()}


def typed(key: str) -> bool:
    """Whether a key is long enough, and of an alphabet, for a misspelling to be recognised."""
    return len(key) >= MIN_TYPO_LENGTH and re.fullmatch("[a-zа-я]+", key) is not None


def without_one(key: str) -> Iterator[str]:
    """The key itself, and with each letter but the first left out."""
    yield key
    for i in range(1, len(key)):
        yield key[:i] + key[i + 1 :]
