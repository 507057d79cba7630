"""Personal data taken out of texts before they are stored: best effort, by checksums and numbering plans."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from string import ascii_uppercase

KINDS = ("card", "iban", "email", "phone")
PLACEHOLDERS = tuple(f"[{kind}]" for kind in KINDS)


class _Plain(dict[int, str]):
    """Each character's plain form, for ``str.translate``; of the digits of all scripts, once they occur."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if not character.isdecimal():
            return character
        self[code] = str(unicodedata.decimal(character))
        return self[code]


# One character for one, so that what is found in the plain text stands at the same place in the given one.
_PLAIN = _Plain(
    {
        **{0xFF21 + i: chr(65 + i) for i in range(26)},  # full-width letters
        **{0xFF41 + i: chr(97 + i) for i in range(26)},
        **dict.fromkeys(map(ord, "\t\u00a0\u00ad\u2007\u2009\u200b\u200c\u200d\u202f\u2060\u3000\ufeff"), " "),
        **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\uff0d"), "-"),
        **{ord("\uff0e"): ".", ord("\uff20"): "@", ord("\uff0b"): "+"},
    }
)
_GAP = "[ .-]{1,3}"
# Possessive, and starting only where no part of an address can stand before: linear on whatever is typed.
_EMAIL = re.compile(r"(?<![\w.%+'-])[\w%+'-][\w.%+'-]*+@(?:[^\W_](?:[\w-]*[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])")
_REPOSITORY = re.compile(r"(?:git|hg|svn)@[^\s@:/]{1,255}[:/]")  # of code: nobody reads what is sent there
_IBAN_START = re.compile("[A-Za-z]{2}[0-9]{2}")
_NUMBERS = re.compile(f"[0-9]+(?:{_GAP}[0-9]+)*+")
_GROUP = re.compile("[0-9]+")
_DIGIT = re.compile("[0-9]")
_CARD_DIGITS = range(13, 20)
# Who issues cards, by first digits: without it a tenth of all order numbers and times of that length would go.
_CARD = re.compile(
    "4(?:.{12}|.{15}|.{18})|(?:5[1-5]|2[2-7]).{14}|3[47].{13}|3(?:0|6|8|9).{12,17}|35.{14,17}"
    "|(?:5[06-8]|6[0-9]|8[12]).{11,17}|9792.{12}"
)
# A card's groups as a form or a wrapped line has them; nothing else of the kind may stand beside, as in a table.
_BETWEEN = r"(?:[/_,|:·]|[ .-]|[ \t]?\r?\n[ \t]?)"
_CARD_IN_PARTS = re.compile(
    rf"(?<![0-9])(?<![0-9][/_,|:·\n .-])(?:[0-9]{{4}}(?:{_BETWEEN}[0-9]{{4}}){{3}}"
    rf"|3[0-9]{{3}}{_BETWEEN}[0-9]{{6}}{_BETWEEN}[0-9]{{5}})(?!{_BETWEEN}?[0-9])"
)
_REGIONS = ("US", "GB", "DE", "FR", "IN", "AU")  # whose numbers without a country code are known too
_AMERICAN = re.compile(
    r"(?<![0-9.,$€£+-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}(?![0-9]|[.,-][0-9])"
)
_MADE_UP = re.compile("555.{1,3}[0-9]{3}|[0-9]{3}.{1,3}555.[0-9]{4}|.*123.4567")
_ROUND_LIST = re.compile("(?:[0-9]+0 ){2}[0-9]+0")
_IN_LIST = re.compile("(?<=[0-9] )[0-9 ]+|[0-9]+ [0-9]+ [0-9]+(?= [0-9]{2})")
_DAY, _MONTH, _YEAR = "(?:0?[1-9]|[12][0-9]|3[01])", "(?:0?[1-9]|1[0-2])", "(?:19|20)[0-9]{2}"
_MONTHS = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_CLOCK = r"[0-9]{1,2}[:.h][0-9]{2}(?:[:.m][0-9]{2}(?:[.,][0-9]{1,9})?)?(?:Z| ?[+-][0-9]{2}:?[0-9]{2})?(?![0-9])"
_CLOCK_IN_GROUPS = "[0-9]{1,2}[ -][0-9]{2}[ -][0-9]{2}(?![0-9])"
# What is written like a phone number and is none: dates, with the time of day behind them or not, times and fractions.
_NO_PHONE = re.compile(
    rf"(?<![0-9])(?<![0-9][/.-])(?:"
    rf"(?:{_YEAR}(?P<ymd>[-/. ]){_MONTH}(?P=ymd){_DAY}(?![0-9])"
    rf"|(?:{_DAY}[-/. ]{_MONTH}|{_MONTH}[-/]{_DAY})[-/. ]{_YEAR}(?![0-9])"
    rf"|(?:{_DAY}[-/.]{_MONTH}|{_MONTH}[-/]{_DAY})[-/.][0-9]{{2}}(?![-/. ]?[0-9]{{2}}(?![0-9]*[:h]))(?![0-9])"
    rf"|{_DAY}[ /.-]{{1,2}}{_MONTHS}[ /.-]{{1,2}}{_YEAR}(?![0-9]))(?:(?:[T:_-]|,? )(?:{_CLOCK_IN_GROUPS}|{_CLOCK}))?"
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?![0-9])"
    r"|(?:0|[1-9][0-9]{0,20})[.,][0-9]{1,20}(?![.,]?[0-9]))",
    re.I,
)
# In groups, or dialled abroad; never from the middle of a number.
_PHONE_LIKE = re.compile(r"(?<![0-9])(?<![0-9][./-])(?:\(?0[0-9 ()./-]*[ ()./-][0-9]|00|011)")
_PHONE_WORD = re.compile(r"\b(?:phone|telephone|tel|mobile|cell|call|text|sms|whatsapp|fax)\b[^0-9\n]{0,20}$", re.I)
_OTHER_WORD = re.compile(
    r"\b(?:ticket|order|case|invoice|reference|ref|booking|tracking|claim|id|part|article|sku|serial|isbn)s?"
    r"(?: ?(?:number|num|no|nr|id)\b\.?)?(?: is)?[ :#-]{1,3}$",
    re.I,
)
_DIGITS = re.compile(r"[0-9](?:[ ()./-]{0,3}[0-9])*+")
_PHONE_DIGITS = range(7, 16)
_LEAST_ABROAD = 10
_ROUND = re.compile("(?:[ .]?000){2}$")
_LONGEST_RUN = 60  # characters of a phone number and its neighbours: beyond it stand tables


@dataclass(frozen=True)
class Redacted:
    """A text without the personal data that was found in it.

    Attributes:
        text: with ``[card]``, ``[iban]``, ``[email]`` or ``[phone]`` in place of each.
        counts: how many of each kind, of those that occur.
    """

    text: str
    counts: dict[str, int]


def redact(text: str) -> Redacted:
    """Replace card numbers (by issuer and Luhn), IBANs (by country and mod 97), e-mail addresses and phone numbers.

    Digits of any script count, and spaces, dots and dashes may stand between them. A phone number is found where it
    has a country code, where it is written in groups as in one of a few countries, or where a word such as "phone"
    stands before it. Best effort: names, addresses and numbers in words stay. Takes time in proportion to the text.
    """
    plain = text if text.isascii() else text.translate(_PLAIN)
    found: list[tuple[int, int, str]] = []
    for kind, finder in (("email", _emails), ("iban", _ibans), ("card", _cards), ("phone", _phones)):
        spans = list(finder(plain))
        plain = _without(plain, spans)  # what one kind has taken is no part of another
        found += [(start, end, kind) for start, end in spans]
    if not found:
        return Redacted(text, {})
    parts, last = [], 0
    for start, end, kind in sorted(found):
        parts += [text[last:start], f"[{kind}]"]
        last = end
    counts = Counter(kind for _, _, kind in found)
    return Redacted("".join([*parts, text[last:]]), {kind: counts[kind] for kind in KINDS if counts[kind]})


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """``text`` with line ends, which join no numbers, in place of the spans; they are in order."""
    parts, last = [], 0
    for start, end in spans:
        parts += [text[last:start], "\n" * (end - start)]
        last = end
    return "".join([*parts, text[last:]])


def _emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" not in text:
        return iter(())
    return (match.span() for match in _EMAIL.finditer(text) if not _REPOSITORY.match(text, match.start()))


@cache
def _iban_patterns() -> dict[str, re.Pattern[str]]:
    """What follows the check digits of an IBAN, by country."""
    from stdnum import numdb

    countries = (first + second for first in ascii_uppercase for second in ascii_uppercase)
    parts = {country: numdb.get("iban").info(country)[0][1].get("bban") for country in countries}
    return {
        country: re.compile(f"(?:(?:{_GAP})?[A-Za-z0-9]){{{sum(map(int, re.findall('[0-9]+', bban)))}}}")
        for country, bban in parts.items()
        if bban
    }


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    last = 0
    for start in _IBAN_START.finditer(text):
        rest = _iban_patterns().get(start[0][:2].upper())
        if rest is None or start.start() < last:
            continue
        from stdnum import iban  # with what it reads, a tenth of a second, which only who redacts need wait

        match = rest.match(text, start.end())
        if match and iban.is_valid(text[start.start() : match.end()], check_country=False):
            last = match.end()
            yield start.start(), last


def _cards(text: str) -> list[tuple[int, int]]:
    found = [match.span() for match in _CARD_IN_PARTS.finditer(text) if _is_card("".join(_DIGIT.findall(match[0])))]
    return sorted([*found, *_cards_in_groups(_without(text, found))])


def _cards_in_groups(text: str) -> Iterator[tuple[int, int]]:
    for numbers in _NUMBERS.finditer(text):
        if len(numbers[0]) < _CARD_DIGITS[0]:
            continue
        groups = [match.span() for match in _GROUP.finditer(text, *numbers.span())]
        start, end = -1, -1
        for first, last in _card_groups(text, groups):
            if first < end:  # overlaps the one before: which of them is the card is not known, so both go
                end = max(end, last)
                continue
            if end >= 0:
                yield start, end
            start, end = first, last
        if end >= 0:
            yield start, end


def _card_groups(text: str, groups: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Where neighbouring groups make a card number."""
    sizes = [end - start for start, end in groups]
    if len(groups) in _CARD_DIGITS and set(sizes) == {1}:  # spelled out digit by digit
        if _is_card("".join(text[start] for start, _ in groups)):
            yield groups[0][0], groups[-1][1]
        return
    for i, (start, _) in enumerate(groups):
        if text[max(0, start - 2) : start] == "0.":  # a fraction
            continue
        digits = ""
        for j in range(i, len(groups)):
            if sizes[j] > _CARD_DIGITS[-1] - len(digits):
                break
            digits += text[slice(*groups[j])]
            if len(digits) in _CARD_DIGITS and _is_card(digits):
                yield start, groups[j][1]
            if sizes[j] < 4:  # only a card's last group is shorter: dates and amounts are no cards
                break


def _is_card(digits: str) -> bool:
    from stdnum import luhn

    return _CARD.fullmatch(digits) is not None and luhn.is_valid(digits)


def _phones(text: str) -> list[tuple[int, int]]:
    if sum(map(text.count, "0123456789")) < _PHONE_DIGITS[0]:
        return []
    found: list[tuple[int, int]] = []

    def take(spans: Iterable[tuple[int, int]]) -> None:
        nonlocal text
        spans = list(spans)
        text = _without(text, spans)
        found.extend(spans)

    if "+" in text:
        take(_abroad(text))
    text = _without(text, [match.span() for match in _NO_PHONE.finditer(text)])
    take(match.span() for match in _AMERICAN.finditer(text) if _is_american(text, match))
    # The library takes a tenth of a millisecond for each number, so it sees only what may be one.
    text = _without(text, [run.span() for run in _DIGITS.finditer(text) if not _may_be_phone(text, run)])
    if not text.strip():
        return sorted(found)
    from phonenumbers import PhoneNumberMatcher

    for region in _REGIONS:
        if text.strip():
            take((m.start, m.end) for m in PhoneNumberMatcher(text, region, max_tries=len(text)))
    return sorted(found)


def _is_american(text: str, match: re.Match[str]) -> bool:
    from phonenumbers import is_valid_number, parse

    if _says_phone(text, match.start()):
        return True
    if _ROUND_LIST.fullmatch(match[0]) or _IN_LIST.match(text, match.start()) or _says_other(text, match.start()):
        return False
    return _MADE_UP.match(match[0].removeprefix("1").lstrip(" .-(")) is not None or is_valid_number(
        parse(match[0], "US")
    )


def _says_phone(text: str, start: int) -> bool:
    """Whether a word such as "phone" stands right before."""
    return _PHONE_WORD.search(text[max(0, start - 40) : start]) is not None


def _says_other(text: str, start: int) -> bool:
    """Whether right before stands a word such as "ticket", whose numbers are no phone's."""
    return _OTHER_WORD.search(text[max(0, start - 40) : start]) is not None


def _abroad(text: str) -> Iterator[tuple[int, int]]:
    """Numbers with a country code, also those that are possible but given to nobody: they are what people make up."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    for match in PhoneNumberMatcher(text, None, Leniency.POSSIBLE, max_tries=len(text)):
        if len(_DIGIT.findall(match.raw_string)) >= _LEAST_ABROAD and not _ROUND.search(match.raw_string):
            yield match.start, match.end


def _may_be_phone(text: str, run: re.Match[str]) -> bool:
    if len(run[0]) > _LONGEST_RUN:
        return False
    digits = len(_DIGIT.findall(run[0]))
    if digits < _PHONE_DIGITS[0] or (digits == len(run[0]) and digits not in _PHONE_DIGITS):
        return False
    if _says_phone(text, run.start()):
        return True
    return _PHONE_LIKE.search(run[0]) is not None and not _says_other(text, run.start())
