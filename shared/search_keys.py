"""Text in the forms that names are sorted, filtered and searched by, the same on every database.

Folding is NFKD, Unicode case folding, marks left out, letters that are no accented ones by Unicode
but are typed as such (`ø`, `ł`, `ı`) replaced, NFC, blanks collapsed. Marks that spell a vowel
(Thai, Lao, Tibetan, viramas of Indic scripts) or another consonant (voiced kana) are no accents:
they stay. What is folded needs no collation: bytes compare as the order that is meant.

A *word* is a run of letters and digits; apostrophes join (`Joe's` is `joes`). Scripts that are
written without blanks have no visible words: each of their runs is a word of its own, and so is a
run of symbols. A *term* is what a word is found by: its beginning, and what is left of it from any
later character on, where `MIN_INNER_CHARS` are left or the script has no blanks. What is shorter is
found by marked terms of how words begin, which nothing within a word can be mistaken for.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

NAME_KEY_CHARS: Final = 80  # at most 320 bytes: fits an index entry and a cursor
FILTER_KEY_CHARS: Final = 64
TERM_CHARS: Final = 32
MIN_INNER_CHARS: Final = 3

BEGINNING_MARK: Final = "^"
CITY_MARK: Final = "@"
CUISINE_MARK: Final = "="

_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"}
    | {"þ": "th"}
)
# Canonical combining classes: kana voicing, virama, vowels of Telugu, Thai, Lao and Tibetan.
_SPELLING_CLASSES = frozenset((8, 9, 84, 91, 103, 118, 129, 130, 132))
_APOSTROPHES = frozenset("'`\u00b4\u02b9\u02bb\u02bc\u02be\u02bf\u2018\u2019\u201b\uff07")
_NO_APOSTROPHES = dict.fromkeys(map(ord, "'`"))
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_VARIATION_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))
# First and last of each block of scripts without blanks between words.
_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u2e80", "\u30ff"),  # radicals, kana
    ("\u31f0", "\u31ff"),
    ("\u3400", "\u9fff"),  # Han
    ("\uf900", "\ufaff"),
    ("\u1100", "\u11ff"),  # Hangul: Korean has blanks, but joins words as it likes
    ("\uac00", "\ud7ff"),
    ("\U0001b000", "\U0001b16f"),
    ("\U00020000", "\U0003ffff"),
)


def fold(text: str) -> str:
    """The text without case, accents and superfluous blanks."""
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    kept = "".join(char for char in folded if not _is_dropped(char))
    return " ".join(unicodedata.normalize("NFC", kept.translate(_LETTERS)).split())


def name_key(name: str) -> str:
    """What a name is sorted by; empty only for an empty name."""
    return (fold(name) or name.strip())[:NAME_KEY_CHARS].rstrip()


def filter_key(text: str | None) -> str:
    """What a city or one cuisine is compared by; empty where there is none."""
    return fold(text or "").replace("|", " ").strip()[:FILTER_KEY_CHARS].rstrip()


def cuisine_keys(cuisine_type: str | None) -> str:
    """The keys of all cuisines of a restaurant, `|a|b|`; empty where there is none."""
    keys = dict.fromkeys(filter_key(cuisine) for cuisine in (cuisine_type or "").split("|"))
    keys.pop("", None)
    return f"|{'|'.join(keys)}|" if keys else ""


def search_words(text: str) -> tuple[str, ...]:
    """The distinct words of a text, folded, in their order."""
    return tuple(dict.fromkeys(word for word, _ in _words(fold(text))))


def search_text(name: str, cuisine_type: str | None) -> str:
    """All words that a restaurant is found by, each between blanks.

    The blank at the end tells that the terms of this text hold the beginnings of its words.
    """
    words = search_words(f"{name} {cuisine_type or ''}")
    return f" {' '.join(words)} " if words else ""


def search_terms(text: str, city_key: str, keys_of_cuisines: str) -> set[str]:
    """Every term of a `search_text`, and the marked ones of city and cuisines."""
    terms: set[str] = set()
    for word, is_unspaced in _words(text):
        terms.update(_terms(word, is_unspaced))
        if not is_unspaced:
            terms.add(BEGINNING_MARK + word[: MIN_INNER_CHARS - 1])
    terms.update(CUISINE_MARK + key for key in keys_of_cuisines.split("|") if key)
    if city_key:
        terms.add(CITY_MARK + city_key)
    return terms


def is_inner_word(word: str) -> bool:
    """Whether the word is looked for anywhere in others, not only at their beginning."""
    return len(word) >= MIN_INNER_CHARS or _is_unspaced(word[0])


def _is_dropped(char: str) -> bool:
    combining = unicodedata.combining(char)
    if combining:
        return combining not in _SPELLING_CLASSES
    return unicodedata.category(char) == "Cf" or char in _VARIATION_SELECTORS


def _words(folded: str) -> Iterator[tuple[str, bool]]:
    """(word, whether its script has no blanks), in their order."""
    if folded.isascii():
        for plain in _ASCII_WORD.findall(folded.translate(_NO_APOSTROPHES)):
            yield plain, False
        return
    word: list[str] = []
    was_unspaced = False
    for char in folded:
        if char in _APOSTROPHES:
            continue
        is_word = _is_word(char)
        is_unspaced = is_word and _is_unspaced(char)
        if word and (not is_word or is_unspaced != was_unspaced):
            yield "".join(word), was_unspaced
            word.clear()
        if is_word:
            word.append(char)
            was_unspaced = is_unspaced
    if word:
        yield "".join(word), was_unspaced


def _is_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char) in ("Mn", "Mc", "So")


def _is_unspaced(char: str) -> bool:
    if char.isascii():
        return False
    if any(first <= char <= last for first, last in _UNSPACED):
        return True
    return unicodedata.category(char) == "So"


def _terms(word: str, is_unspaced: bool) -> Iterator[str]:
    yield word[:TERM_CHARS]
    shortest = 1 if is_unspaced else MIN_INNER_CHARS
    for start in range(1, len(word) - shortest + 1):
        yield word[start : start + TERM_CHARS]
