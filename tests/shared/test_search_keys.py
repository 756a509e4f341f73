"""Folding, words and terms: what is the same text to a visitor is the same bytes."""

from __future__ import annotations

import random
import unicodedata

import pytest

from shared.search_keys import (
    NAME_KEY_CHARS,
    cuisine_keys,
    filter_key,
    fold,
    name_key,
    search_terms,
    search_text,
    search_words,
)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("  Zoë's\t Ramen ", "zoe's ramen"),
        ("SMØRREBRØD Łódź", "smorrebrod lodz"),
        ("Straße STRASSE", "strasse strasse"),
        ("İstanbul ISPARTA Diyarbakır", "istanbul isparta diyarbakir"),
        ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("Phở bò Huế", "pho bo hue"),
        ("Ёлка", "елка"),
        ("شَاوَرْمَا", "شاورما"),
        ("שָׁלוֹם", "שלום"),
        ("が\u200bんこ", "がんこ"),
        ("か\u3099んこ", "がんこ"),
        ("ผัดไทย", "ผัดไทย"),
        ("김밥", "김밥"),
        ("हिन्दी", "हिन्दी"),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert fold(text) == folded
    assert fold(unicodedata.normalize("NFD", text)) == folded


def test_what_is_folded_stays_as_it_is() -> None:
    rng = random.Random(3)
    for _ in range(3_000):
        text = "".join(chr(rng.randrange(0x20, 0x3000)) for _ in range(6))
        folded = fold(text)
        assert fold(folded) == folded, ascii(text)
        words = search_words(text)
        assert search_words(" ".join(words)) == words, ascii(text)
        assert not set(" ".join(words)) & set("%_\\'|@=^")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Joe's / JOES ´Joe’s´", ("joes",)),
        ("Café-Bar, No. 7", ("cafe", "bar", "no", "7")),
        ("東京寿司Tower", ("東京寿司", "tower")),
        ("🍕Pizza ☕️", ("🍕", "pizza", "☕")),
        ("100%_\\|&", ("100",)),
        (" - & ! ", ()),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert search_words(text) == words


def test_terms_begin_where_a_search_may() -> None:
    keys = cuisine_keys("Izakaya| Café Bar |café bar|")
    assert keys == "|izakaya|cafe bar|"
    text = search_text("Nonna 東京", None)
    assert text == " nonna 東京 "
    assert search_terms(text, filter_key(" São  Paulo "), keys) == {
        *("nonna", "onna", "nna", "^no", "東京", "京"),
        *("@sao paulo", "=izakaya", "=cafe bar"),
    }


def test_keys_are_bounded_and_never_empty() -> None:
    # One character that is eighteen once it is folded.
    longest = name_key("\ufdfa" * 200)
    assert len(longest) <= NAME_KEY_CHARS
    assert name_key("\u0301") == "\u0301"
    assert filter_key("a|b") == "a b"
    assert filter_key("｜") == ""
    assert max(map(len, search_terms(search_text("x" * 200, None), "", ""))) == 32
