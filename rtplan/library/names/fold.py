"""Names cut into words, each with a key for which case, accents and letter forms do not matter."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_LETTERS = {
    **dict.fromkeys("أإآٱ", "ا"),
    **{"ى": "ي", "ی": "ي", "ئ": "ي", "ة": "ه", "ک": "ك", "ؤ": "و", "ـ": ""},
    **{"æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "ё": "е"},
    "\u0901": "\u0902",  # Devanagari chandrabindu and anusvara are used for each other
    # Traditional and Japanese forms to simplified ones, for the characters of anatomical names.
    **dict(
        zip(
            "腦脳側體臟臓腸膽胆頜視經経頸頭頚兩両雙双髖關関節頰顳葉動靜静脈輪廓顎縮囊嚢腎舌晶狀状結腔脾肝會厭氣気門骯賁臂叢幹干脊顱聽聴發発淚涙齒歯蝸皮膚軀躯聯陰莖巣網馬輸攝護",
            "脑脑侧体脏脏肠胆胆颌视经经颈头颈两两双双髋关关节颊颞叶动静静脉轮廓颚缩囊囊肾舌晶状状结腔脾肝会厌气气门肮贲臂丛干干脊颅听听发发泪泪齿齿蜗皮肤躯躯联阴茎巢网马输摄护",
            strict=True,
        )
    ),
}
_TABLE = str.maketrans(_LETTERS)
# Accents, vowel points and nukta may be left out without changing a word; vowel signs of Devanagari and kana marks may not.
_MARKS = re.compile("[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u093c]")
_ELISION = re.compile(r"\b(?:l|d|dell|all|nell)['’ʼ](?=[^\W\d_])", re.IGNORECASE)
_RUNS = re.compile(r"[^\W\d_]+|\d+")
_WRITTEN_TOGETHER = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
_MIN_SPLIT = 2


@dataclass(frozen=True, slots=True)
class Word:
    """A word as written, in lower case (`text`), and its key for comparisons."""

    text: str
    key: str


def words_of(raw: str) -> tuple[Word, ...]:
    """The words of a name: cut at separators, at changes of case, between letters and digits, and between scripts.

    A single letter stays with its digits, so that v2 and L1 (a vertebra) are words of their own.
    """
    # NFKC makes full-width and half-width forms plain; format characters are invisible (direction marks, joiners).
    text = "".join(c for c in unicodedata.normalize("NFKC", raw) if unicodedata.category(c) != "Cf")
    return tuple(Word(w.casefold(), key_of_word(w)) for w in _cut(_ELISION.sub("", text)))


def key_of(raw: str) -> str:
    """The keys of all words of a name, joined."""
    return "".join(word.key for word in words_of(raw))


def key_of_word(word: str) -> str:
    """Case, accents and letter forms folded; the article of Arabic and Hebrew taken off."""
    text = unicodedata.normalize("NFKD", word.casefold().translate(_TABLE))
    text = unicodedata.normalize("NFC", _MARKS.sub("", text)).translate(_TABLE)
    if text.startswith("ال") and len(text) > 3:
        return text[2:]
    if text.startswith("ה") and len(text) > 2:
        return text[1:]
    return text


def written_together(word: str) -> bool:
    """Whether a word is of a script that puts no spaces between words."""
    return unicodedata.name(word[0], "").startswith(_WRITTEN_TOGETHER)


def _cut(text: str) -> list[str]:
    words: list[str] = []
    for piece in re.split(r"[^\w\u0300-\u036f\u0591-\u05c7\u0610-\u065f\u0900-\u097f\u3099]|_", text):
        start = 0
        for i in range(1, len(piece) + 1):
            if i == len(piece) or _boundary(piece, start, i):
                words.append(piece[start:i])
                start = i
    return [w for w in words if w]


def _boundary(text: str, start: int, i: int) -> bool:
    """Whether a word ends before character i of a piece without separators."""
    left, right = text[i - 1], text[i]
    if unicodedata.combining(right) or unicodedata.category(right) in ("Mc", "Mn"):
        return False
    if left.isdigit() != right.isdigit():
        return left.isdigit() or i - start >= _MIN_SPLIT
    if left.isdigit():
        return False
    if written_together(left) != written_together(right):
        return True
    follows_lower = i + 1 < len(text) and text[i + 1].islower()
    return right.isupper() and (left.islower() or (left.isupper() and follows_lower))
