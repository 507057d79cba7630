"""A text as its reader sees it, whatever code points it is written in."""

from __future__ import annotations

import re
import unicodedata

# Latin letters' look-alikes in Cyrillic and Greek, from Unicode's table of confusables (UTS 39); NFKC leaves them.
_LOOK_ALIKES = str.maketrans(
    "аАеЕоОрРсСхХуУкКМНТВіІјЈѕЅԁԛԝһӏαΑΒΕΖΗΙΚΜΝοΟρΡΤΥΧνι",
    "aAeEoOpPcCxXyYkKMHTBiIjJsSdqwhlaABEZHIKMNoOpPTYXvi",
)
# Blank though Unicode counts them as letters or symbols: Hangul fillers, braille without dots.
_BLANKS = re.compile("[\u115f\u1160\u3164\uffa0\u2800]")
_REVERSED = re.compile("\u202e([^\u202c\n]*)\u202c?")
_LATIN = re.compile("[A-Za-z]")


def visible(text: str) -> str:
    """The text without invisible characters, with look-alikes and styled letters as plain ones.

    Compatibility forms (full width, mathematical bold, circled) are folded by NFKC (UAX 15), text that a right-to-left
    override turns round is turned back, and format characters (zero width, tags, bidirectional marks) are dropped.
    Look-alikes from other alphabets become Latin only where Latin letters are most of the text's.
    """
    text = _REVERSED.sub(lambda match: match[1][::-1], text)
    text = unicodedata.normalize("NFKC", _BLANKS.sub(" ", text))
    kept = (c if c in "\n\t" else " " if unicodedata.category(c)[0] in "CZ" and c.isspace() else c for c in text)
    text = "".join(c for c in kept if c in "\n\t" or unicodedata.category(c) not in ("Cf", "Cc", "Co", "Cn", "Cs"))
    # More than one mark on a letter is decoration; accents that a language uses were composed by NFKC.
    text = "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Me"))
    letters = sum(map(str.isalpha, text))
    if letters and len(_LATIN.findall(text)) > letters / 2:
        text = text.translate(_LOOK_ALIKES)
    return text
