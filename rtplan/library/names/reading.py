"""Words read as an organ with its side: nothing may be left over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rtplan.library.names.fold import Word, written_together
from rtplan.library.names.tables import Organ, SideWord, Tables, typed, without_one

CONFIRM_BELOW = 0.9
"""A name that is less certain than this is not used until a person confirms it."""

# Ranks, not frequencies: they order the ways of reading a name and put each on its side of CONFIRM_BELOW.
EXACT, ORDER, OWN_SIDE, GLUED = 1.0, 0.97, 0.95, 0.95
GLUED_END, HOMONYM, MISSPELT, GUESSED_SIDE = 0.8, 0.8, 0.75, 0.6

_MIN_GLUED = 4
_MIN_MISSPELT = 5


@dataclass(frozen=True, slots=True)
class NameMatch:
    """What a name stands for.

    `name` is the TG-263 name, or None when nothing is meant that the vocabulary has; `confidence` is 0 to 1, and below
    CONFIRM_BELOW a person has to confirm; `why` says in words what the confidence rests on; `alternatives` are names
    that may be meant instead.
    """

    name: str | None
    confidence: float
    why: str
    alternatives: tuple[str, ...] = ()

    @property
    def sure(self) -> bool:
        """Whether the name may be used without asking."""
        return self.name is not None and self.confidence >= CONFIRM_BELOW


def reading_of(words: Sequence[Word], known: Tables) -> NameMatch | None:
    """The most certain way to read all of the words as an organ and its side; None when they are not that."""
    without_side = None
    for strengths in ((), ("clear",), ("clear", "beside_own"), ("clear", "beside_own", "guess")):
        sides = [(w, s) for w in words if (s := side_of(w, known)) is not None and s.strength in strengths]
        if strengths and not sides:
            continue
        taken = [w for w, _ in sides]
        found = _organ_of([w for w in words if w not in taken], known)
        if found is None:
            continue
        match = _with_sides(found[0], [s for _, s in sides], found[1], known)
        if match.name is not None or sides:
            return match
        without_side = match
    return without_side or _glued(words, known)


def side_of(word: Word, known: Tables) -> SideWord | None:
    """The side that a word names, in any language."""
    return known.sides.get(word.text) or known.sides.get(word.key)


def sides_cut(words: Iterable[Word], known: Tables) -> tuple[Word, ...]:
    """The words, with sides cut off those of scripts without spaces that are no organ's name as they stand."""
    cut: list[Word] = []
    for word in words:
        whole = not written_together(word.text) or word.key in known.organs or side_of(word, known) is not None
        cut += [word] if whole else _sides_and_rest(word, known)
    return tuple(cut)


def misspelt(words: Sequence[Word], known: Tables) -> NameMatch | None:
    """An organ of whose name one letter is wrong, missing or too many, or two are swapped; never the first letter."""
    sides = [s for w in words if (s := side_of(w, known)) is not None and s.strength == "clear"]
    rest = [w.key for w in words if (s := side_of(w, known)) is None or s.strength != "clear"]
    key = "".join(rest)
    # A single letter beside a name says which part is meant: Esophagus_S.
    if not typed(key) or any(len(k) == 1 or known.words.get(k) == "other anatomy" for k in rest):
        return None
    near = {k for shorter in without_one(key) for k in known.typos.get(shorter, ()) if _one_word_differs(rest, k)}
    organs = {known.organs[k].name: known.organs[k] for k in near}
    if not organs:
        return None
    matches = [_with_sides(organ, sides, MISSPELT, known) for _, organ in sorted(organs.items())]
    matches = [m for m in matches if m.name is not None or not sides] or matches
    if len(matches) == 1:
        why = f"spelt nearly like {min(near)!r}" if matches[0].name else f"{matches[0].why}, and misspelt"
        return replace(matches[0], why=why)
    alternatives = tuple(m.name for m in matches if m.name is not None)
    return NameMatch(None, 0.0, "spelt nearly like several organs", alternatives)


def _one_word_differs(words: Sequence[str], key: str) -> bool:
    """Whether a key has all of the words but one, which is long enough to be recognised all the same."""
    for i, word in enumerate(words):
        before, after = "".join(words[:i]), "".join(words[i + 1 :])
        if len(word) >= _MIN_MISSPELT and key.startswith(before) and key.endswith(after):
            return True
    return False


def _organ_of(words: Sequence[Word], known: Tables) -> tuple[Organ, float] | None:
    organ = known.organs.get("".join(w.key for w in words))
    if organ is not None:
        return organ, EXACT
    key = known.bags.get(tuple(sorted(w.key for w in words))) if len(words) > 1 else None
    return (known.organs[key], ORDER) if key else None


def _with_sides(organ: Organ, sides: Sequence[SideWord], confidence: float, known: Tables) -> NameMatch:
    """The organ's name with its side, if it has one and the words agree on it."""
    if any(s.side == "both" and s.strength == "clear" for s in sides):
        sides = [s for s in sides if s.strength == "clear"]  # a letter beside "both" is an article, not a side
    named = {s.side for s in sides}
    if organ.homonym and not any(s.languages & organ.languages for s in sides):
        confidence = min(confidence, HOMONYM)
    both = known.collective.get(organ.name)
    two = (f"{organ.name}_L", f"{organ.name}_R")
    if len(named) > 1:
        return NameMatch(None, 0.0, "the sides contradict each other", two if organ.paired else ())
    if not organ.paired:
        if not named or (named == {"both"} and organ.name in known.collective.values()):
            why = "a known name, which has other meanings too" if organ.homonym else "a known name"
            return NameMatch(organ.name, confidence, why)
        return NameMatch(None, 0.0, f"{organ.name} has no sides")
    if not named:
        return NameMatch(None, 0.0, f"{organ.name} without a side", (*two, both) if both else two)
    if named == {"both"}:
        return NameMatch(both, confidence if both else 0.0, "both sides in one")
    side = named.pop()
    certainty, why = _certainty(sides, organ)
    if confidence == HOMONYM and certainty > HOMONYM:
        why = "a known name, which has other meanings too"
    name, other = two if side == "L" else two[::-1]
    return NameMatch(name, min(confidence, certainty), why, (other,) if certainty < CONFIRM_BELOW else ())


def _certainty(sides: Sequence[SideWord], organ: Organ) -> tuple[float, str]:
    """How certain side words are beside an organ; what is clear outweighs what is not."""
    if any(s.strength == "clear" for s in sides):
        return EXACT, "a known name and side"
    if any(s.strength == "beside_own" and s.languages & organ.languages and not s.foreign & organ.languages for s in sides):
        return OWN_SIDE, "a known name, and a side in the same language"
    return GUESSED_SIDE, "the side is an abbreviation that does not mean it everywhere"


def _glued(words: Sequence[Word], known: Tables) -> NameMatch | None:
    """Side and organ written as one word, such as parotidleft or LPAROTID."""
    key = "".join(w.key for w in words)
    if known.words.get(key) == "other anatomy":
        return None
    for side in known.glued_sides:
        for rest in (key.removeprefix(side), key.removesuffix(side)):
            if rest != key and (organ := known.organs.get(rest)) is not None and organ.paired:
                return _with_sides(organ, [known.sides[side]], GLUED, known)
    for rest, letter, confidence in ((key[1:], key[:1], GLUED), (key[:-1], key[-1:], GLUED_END)):
        organ = known.organs.get(rest) if letter in ("l", "r") and len(rest) >= _MIN_GLUED else None
        if organ is not None and organ.paired:
            return _with_sides(organ, [known.sides[letter]], confidence, known)
    return None


def _sides_and_rest(word: Word, known: Tables) -> list[Word]:
    """A word of a script without spaces, with the sides at its ends as words of their own."""
    for side in known.glued_sides:
        if written_together(side) and len(side) < len(word.key):
            rest = word.key.removeprefix(side)
            if rest != word.key:
                return [Word(side, side), *_sides_and_rest(Word(rest, rest), known)]
            rest = word.key.removesuffix(side)
            if rest != word.key:
                return [*_sides_and_rest(Word(rest, rest), known), Word(side, side)]
    return [word]
