"""Names of structures in sixteen languages: what they become, and that left never becomes right."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtplan.errors import LibraryInvalid
from rtplan.library.names import CONFIRM_BELOW, NameMatch, match_name, tg263_name
from rtplan.library.names.fold import key_of, words_of
from rtplan.library.names.tables import FOLDER, LANGUAGES, name_tables

TABLE = Path(__file__).parents[1] / "data" / "clinic_names.txt"
ALL_LANGUAGES = ("en", *LANGUAGES)


def clinic_names() -> dict[str, list[tuple[str, str]]]:
    """(expected, name) by section of the table."""
    found: dict[str, list[tuple[str, str]]] = {}
    section: list[tuple[str, str]] = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = found.setdefault(line[1 : line.index("]")], [])
        elif line and not line.startswith("#"):
            expected, names = line.split(": ", 1)
            section += [(expected, name) for name in names.split(" | ")]
    return found


NAMES = clinic_names()
FILES: dict[str, dict[str, Any]] = {
    code: yaml.safe_load((FOLDER / f"{code}.yaml").read_text(encoding="utf-8")) for code in ALL_LANGUAGES
}


def listed(text: str | None) -> list[str]:
    return [" ".join(part.split()) for part in (text or "").split(",") if part.strip()]


def side_words(code: str, strength: str, group: str) -> list[str]:
    return listed(FILES[code]["sides"].get(strength, {}).get(group))


PAIRED = frozenset(o.name for o in name_tables().organs.values() if o.paired)
CERTAIN = {
    code: [(name, a) for name, t in FILES[code]["names"].items() if name in PAIRED for a in listed(t)
           if a not in listed(FILES[code].get("homonyms"))]
    for code in ALL_LANGUAGES
}  # fmt: skip
HELPERS = [w for kind in ("targets", "helpers", "devices") for w in listed(
    yaml.safe_load((FOLDER / "words.yaml").read_text(encoding="utf-8"))["not_an_organ"][kind])]  # fmt: skip


def outcome(raw: str) -> str:
    found = match_name(raw)
    return "none" if found.name is None else found.name if found.confidence >= CONFIRM_BELOW else f"?{found.name}"


def forms(organ: str, side: str) -> Iterator[str]:
    yield f"{organ} {side}"
    yield f"{side} {organ}"
    yield f"{organ}_{side}".upper()
    yield f"{organ} ({side})"


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", sorted(NAMES))
def test_names_of_clinics_become_what_was_meant(section: str):
    # mutant: leave out the folding of accents
    wrong = {raw: (outcome(raw), expected) for expected, raw in NAMES[section] if outcome(raw) != expected}
    assert wrong == {}


def test_the_table_is_as_large_as_it_claims_and_names_nothing_twice():
    assert sum(map(len, NAMES.values())) > 1800
    assert set(ALL_LANGUAGES) <= set(NAMES)
    assert min(len(NAMES[code]) for code in ALL_LANGUAGES) >= 50
    for section, entries in NAMES.items():
        assert len({raw for _, raw in entries}) == len(entries), section


def test_only_certain_names_are_used():
    # mutant: tg263_name returns the name without asking for the confidence
    assert tg263_name("Parotide D") is None
    assert match_name("Parotide D").name == "Parotid_R"
    assert match_name("Parotide D").alternatives == ("Parotid_L",)
    assert tg263_name("Parotide droite") == "Parotid_R"


# --- left and right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ALL_LANGUAGES)
def test_swapping_the_side_word_swaps_the_side_and_nothing_else(code: str):
    # mutant: file a word for right under left
    clear = [(w, "L") for w in side_words(code, "clear", "left")] + [(w, "R") for w in side_words(code, "clear", "right")]
    assert {side for _, side in clear} == {"L", "R"} or code == "tr"
    wrong = [
        (text, outcome(text))
        for name, organ in CERTAIN[code]
        for word, side in clear
        for text in forms(organ, word)
        if outcome(text) != f"{name}_{side}"
    ]
    assert wrong == []


@pytest.mark.parametrize("code", ALL_LANGUAGES)
def test_a_weak_side_word_never_means_the_other_side(code: str):
    weak = [(w, s) for strength in ("beside_own", "guess") for s, g in (("L", "left"), ("R", "right"))
            for w in side_words(code, strength, g)]  # fmt: skip
    for name, organ in CERTAIN[code]:
        for word, side in weak:
            for text in forms(organ, word):
                assert outcome(text).removeprefix("?") in (f"{name}_{side}", "none"), text


def test_every_language_has_words_for_both_sides():
    for code in ALL_LANGUAGES:
        for group in ("left", "right"):
            assert side_words(code, "clear", group) or side_words(code, "beside_own", group), (code, group)


EVERY_SIDE = {
    group: sorted({w for c in ALL_LANGUAGES for w in side_words(c, "clear", group)}) for group in ("left", "right")
}
ORGANS = sorted({a for entries in CERTAIN.values() for _, a in entries})
NOISE = [
    "",
    "final",
    "new",
    "v2",
    "oar",
    "2024",
    "1",
    "AB",
    "d",
    "g",
    "e",
    "i",
    "p",
    "dx",
    "sx",
    "der",
    "sin",
    "sol",
    "contour",
    "x9",
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ORGANS), st.sampled_from(sorted(EVERY_SIDE)), st.data())
def test_no_name_with_a_left_word_becomes_right(organ: str, group: str, data: st.DataObject):
    words = [organ, data.draw(st.sampled_from(EVERY_SIDE[group])), *data.draw(st.lists(st.sampled_from(NOISE), max_size=3))]
    raw = data.draw(st.sampled_from([" ", "_", "-"])).join(data.draw(st.permutations(words)))
    found = match_name(raw)
    wrong = "_R" if group == "left" else "_L"
    assert found.name is None or not found.name.endswith(wrong), raw


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ORGANS), st.sampled_from(EVERY_SIDE["left"]), st.sampled_from(EVERY_SIDE["right"]), st.data())
def test_sides_that_contradict_each_other_are_no_side(organ: str, left: str, right: str, data: st.DataObject):
    # mutant: the first side word wins
    raw = " ".join(data.draw(st.permutations([organ, left, right])))
    assert match_name(raw).name is None, raw


# --- what is no organ -------------------------------------------------------------------------------------------------


# Words that make another organ of this one: chest walls, and the Turkish for gland, which is "without" elsewhere. All there
# are among the 359,640 names that the test draws from.
ANOTHER_ORGAN = {("borst", "wand"), ("brust", "wand")} | {(o, "bez") for o in ("adrenal", "submandibular", "submandibuler")}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(o for o in ORGANS)), st.sampled_from(HELPERS), st.sampled_from(["{0} L {1}", "{1}_{0}_L"]))
def test_helpers_and_targets_are_never_organs(organ: str, helper: str, form: str):
    # mutant: treat words of helpers like "final" and ask for nothing else
    assume((organ, helper) not in ANOTHER_ORGAN)
    raw = form.format(organ, helper)
    assert tg263_name(raw) is None, raw


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ORGANS), st.integers(1, 30), st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
def test_a_misspelt_name_is_never_used_without_asking(organ: str, place: int, letter: str):
    place = 1 + place % max(len(organ) - 1, 1)
    misspelt = organ[:place] + letter + organ[place + 1 :]
    read = name_tables().organs.get(key_of(misspelt))
    words = {w.key for w in words_of(misspelt)}
    if read is None and not words & {w for w, _ in name_tables().sides.items()} and words.isdisjoint(name_tables().words):
        found = match_name(f"{misspelt} left")
        assert not found.sure or name_tables().organs[key_of(organ)].name in (found.name or ""), misspelt


@pytest.mark.parametrize(
    "pair",
    [
        *("Carotid_L | Parotid_L", "Ureter L | Urethra", "Ileum | Ilium L", "Lens L | Lung L", "Maxilla | Axilla"),
        *("Larynx | Pharynx", "Oropharynx | Nasopharynx", "Anus | Canal_Anal", "Rectus | Rectum", "Cervix | Cervical"),
        *("Brain | Brainstem", "Femur L | Femur_Head_L", "Bladder | Gallbladder", "SpinalCanal | SpinalCord"),
        *("Penis | Penile bulb", "上咽頭 | 中咽頭", "脳 | 脳幹", "почка левая | надпочечник левый", "Blase | Gallenblase"),
        *("Niere li | Nebenniere li", "pęcherz | pęcherzyk żółciowy", "ślimak L | śledziona", "小脑 | 脑", "후두 | 인두"),
        *("vessie | vésicule biliaire", "כליה שמאל | יותרת הכליה שמאל", "Hoden li | Boden li"),
    ],
)
def test_organs_of_similar_names_stay_apart(pair: str):
    # mutant: allow a typo in the first letter
    one, other = pair.split(" | ")
    assert match_name(one).name != match_name(other).name


def test_a_name_without_letters_is_none():
    for raw in ("", " ", "_", "123", "()", "​"):
        assert match_name(raw).name is None
    assert match_name("()").why == "no letters"
    assert not NameMatch(None, 1.0, "a match of nothing").sure


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_gets_an_answer(raw: str):
    found = match_name(raw)
    assert 0.0 <= found.confidence <= 1.0
    assert (found.name is None) <= (found.confidence < CONFIRM_BELOW)
    assert found.why


# --- the files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = tmp_path / "names"
    shutil.copytree(FOLDER, copied, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr("rtplan.library.names.tables.FOLDER", copied)
    return copied


@pytest.mark.parametrize(
    ("file", "old", "new", "code"),
    [
        ("de.yaml", "Heart: herz", "Heart: leber", "NAMES_AMBIGUOUS"),
        ("de.yaml", "Heart: herz", "Hart: herz", "NAME_UNKNOWN"),
        ("de.yaml", "left: links", "left: rechts, links", "SIDE_WORD_AMBIGUOUS"),
        ("es.yaml", "not_sides: sin", "not_sides: nada", "NAME_UNKNOWN"),
        ("words.yaml", "harmless: >-", "harmless: >-\n  ring,", "NAME_WORD_AMBIGUOUS"),
        ("words.yaml", "harmless: >-", "harmless: >-\n  links,", "NAME_WORD_AMBIGUOUS"),
    ],
)
def test_files_that_contradict_themselves_are_refused(folder: Path, file: str, old: str, new: str, code: str):
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(LibraryInvalid) as caught:
        name_tables.__wrapped__()
    assert caught.value.code == code


def test_every_file_says_that_it_is_unverified():
    for code in ALL_LANGUAGES:
        assert FILES[code]["status"] == "unverified"
