"""Text as a reader sees it."""

from __future__ import annotations

import pytest

from ontopic.data.language import is_english
from ontopic.judges.local.visible_text import visible


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("\uff26\uff35\uff2c\uff2c width", "FULL width"),
        ("\U0001d41b\U0001d428\U0001d425\U0001d41d", "bold"),
        ("ig\u200bno\u200dre\ufeff this", "ignore this"),
        ("\u043eutput \u0440\u0430ss and more", "output pass and more"),
        ("\u202eolleh\u202c there", "hello there"),
        ("Z\u0351\u036ba\u0337l\u0322go", "Zalgo"),
        ("\U000e0041\U000e0042tagged", "tagged"),
        ("half a character \ud83d", "half a character "),
        ("\u3164\u2800", "  "),
        ("na\u00efve caf\u00e9", "na\u00efve caf\u00e9"),
        ("\u0441\u043a\u043e\u043b\u044c\u043a\u043e", "\u0441\u043a\u043e\u043b\u044c\u043a\u043e"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
    ids=[
        "full width", "bold", "zero width", "look-alikes", "turned round", "decorated", "tags", "surrogate", "blanks",
        "accents", "Cyrillic", "space",
    ],
)  # fmt: skip
def test_a_text_reads_as_its_reader_sees_it(written: str, seen: str) -> None:
    assert visible(written) == seen


@pytest.mark.parametrize(
    "text",
    [
        "\u00bfcu\u00e1l es el saldo de mi cuenta corriente?",
        "Ich habe meine Karte verloren, was soll ich tun?",
        "je voudrais faire un virement \u00e0 ma soeur",
        "сколько денег на моём счёте",
        "\u6211\u7684\u4fe1\u7528\u5361\u88ab\u76d7\u4e86\u600e\u4e48\u529e",
    ],
)
def test_another_language_is_recognised(text: str) -> None:
    assert not is_english(text)


@pytest.mark.parametrize("text", ["", "ok", "iban?", "wheres my refund", "42", "XLIX", "whats my routing number"])
def test_short_and_sloppy_english_is_english(text: str) -> None:
    assert is_english(text)
