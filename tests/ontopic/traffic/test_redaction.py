"""Redaction: what personal data is found, what is left alone, and how long hostile texts take."""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta
from itertools import cycle, islice
from types import FrameType

import phonenumbers
import pytest

from ontopic.traffic.redaction import Redacted, redact


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111.1111.1111.1111",
        "4111 - 1111 - 1111 - 1111",
        "4111\u00a01111\u20111111\u202f1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "٤١١١١١١١١١١١١١١١",
        "４１１１ １１１１ １１１１ １１１１",
        "4222222222222",
        "5555 5555 5555 4444",
        "2223 0031 2200 3222",
        "3782 822463 10005",
        "3056 930902 5904",
        "6011111111111117",
        "3530111333300000",
        "6304000000000000",
        "4111/1111/1111/1111",
        "4111_1111_1111_1111",
        "4111,1111,1111,1111",
        "4111|1111|1111|1111",
        "4111:1111:1111:1111",
        "4111\n1111\n1111\n1111",
        "4111 1111\r\n1111 1111",
        "3782/822463/10005",
    ],
)
def test_cards_are_found_however_they_are_written(text: str) -> None:
    assert redact(text) == Redacted("[card]", {"card": 1})
    assert redact(f"Pay 50.00 from {text}, expiry 12/27!") == Redacted(
        "Pay 50.00 from [card], expiry 12/27!", {"card": 1}
    )


def test_cards_are_found_among_other_numbers() -> None:
    assert redact("4111 1111 1111 1111 4012 8888 8888 1881") == Redacted("[card] [card]", {"card": 2})
    assert redact("12 4111 1111 1111 1111 123") == Redacted("12 [card] 123", {"card": 1})
    # Two ways to read it as a card: whichever is the right one, nothing of it is left.
    assert redact("4000 4111 1111 1111 1111") == Redacted("4000 [card]", {"card": 1})


@pytest.mark.parametrize(
    "text",
    [
        "DE89370400440532013000",
        "DE89 3704 0044 0532 0130 00",
        "de89-3704-0044-0532-0130-00",
        "GB82 WEST 1234 5698 7654 32",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO93 8601 1117 947",
        "MT84MALT011000012345MTLCAST001S",
        "ＤＥ８９３７０４００４４０５３２０１３０００",
    ],
)
def test_ibans_are_found(text: str) -> None:
    assert redact(f"IBAN {text} please") == Redacted("IBAN [iban] please", {"iban": 1})
    assert redact(f"IBAN{text}.") == Redacted("IBAN[iban].", {"iban": 1})


@pytest.mark.parametrize(
    "text",
    ["jane@example.com", "jane.o'doe+x@mail.example.co.uk", "JANE_1@EXAMPLE.ORG", "jörg@bücher.de", "a@b-c.museum"],
)
def test_email_addresses_are_found(text: str) -> None:
    assert redact(f"Write <{text}>, or else.") == Redacted("Write <[email]>, or else.", {"email": 1})
    assert redact(f"to {text}.") == Redacted("to [email].", {"email": 1})


@pytest.mark.parametrize(
    "text",
    [
        "+1 415 555 2671",
        "+14155552671",
        "+1 (415) 555-2671",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "555-123-4567",
        "1-800-555-1234",
        "+44 20 7946 0958",
        "+44 7700 900123",
        "020 7946 0958",
        "+49 (0)171 2345678",
        "0049 171 2345678",
        "0171 2345678",
        "06 12 34 56 78",
        "06.12.34.56.78",
        "0171/2345678",
        "030/12345678",
        "(020) 7946 0958",
        "0412 345 678",
        "+91 98765 43210",
        "+٤٤ ٢٠ ٧٩٤٦ ٠٩٥٨",
    ],
)
def test_phone_numbers_are_found(text: str) -> None:
    assert redact(f"I am at {text}, thanks") == Redacted("I am at [phone], thanks", {"phone": 1})


def test_a_bare_number_is_a_phones_where_a_word_says_so() -> None:
    assert redact("call me on 07700900123") == Redacted("call me on [phone]", {"phone": 1})
    assert redact("Mobile: 4155552671") == Redacted("Mobile: [phone]", {"phone": 1})
    assert redact("account 4155552671") == Redacted("account 4155552671", {})
    assert redact("call 402-118-2260") == Redacted("call [phone]", {"phone": 1})
    assert redact("call me: 250 300 1000") == Redacted("call me: [phone]", {"phone": 1})


@pytest.mark.parametrize("region", ["US", "GB", "DE", "FR", "IN", "AU"])
def test_numbers_of_the_known_plans_are_found(region: str) -> None:
    chance, n = random.Random(0), 0
    while n < 100:
        example = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        digits = phonenumbers.national_significant_number(example)
        drawn = digits[:3] + "".join(str(chance.randrange(10)) for _ in digits[3:])
        number = phonenumbers.parse(drawn, region)
        if not phonenumbers.is_valid_number(number):
            continue
        n += 1
        for form in (phonenumbers.PhoneNumberFormat.NATIONAL, phonenumbers.PhoneNumberFormat.INTERNATIONAL):
            written = phonenumbers.format_number(number, form)
            assert redact(f"at {written} on 05.10.2026 08:09").text == "at [phone] on 05.10.2026 08:09"


@pytest.mark.parametrize(
    "form",
    [
        *("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S+02:00"),
        *(
            "%Y-%m-%d %H:%M:%S,%f",
            "%Y-%m-%d %H:%M:%S -0500",
            "%Y/%m/%d %H:%M",
            "%Y.%m.%d-%H:%M:%S",
            "%Y %m %d %H %M %S",
        ),
        *("%d.%m.%Y %H:%M", "%d.%m.%Y, %H:%M Uhr", "%d.%m.%Y", "%d.%m.%y %H:%M", "%d/%m/%Y %H:%M:%S", "%d-%m-%Y %H.%M"),
        *("%m/%d/%Y %I:%M %p", "%m-%d-%Y", "%d-%m-%y %H:%M:%S", "%H.%M.%S %d.%m.%Y", "%I:%M %p on %d/%m/%y"),
        *("%d %b %Y %H %M %S", "%d %B %Y, %H:%M", "%d/%b/%Y:%H:%M:%S +0000", "%b %d %H:%M:%S %Y", "T%H:%M:%S.%f"),
        *("%Y-%m-%d_%H-%M-%S", "%Y-%m-%d %H:%M:%S to %Y-%m-%d %H:%M:%S", "%Y%m%d%H%M%S", "%Y%m%dT%H%M%S"),
    ],
)
def test_dates_and_times_stay(form: str) -> None:
    chance = random.Random(form)
    for _ in range(300):
        time = datetime(1990, 1, 1) + timedelta(seconds=chance.randrange(45 * 365 * 86400), microseconds=678901)
        text = f"on {time.strftime(form)} I paid"
        assert redact(text) == Redacted(text, {})


def test_lists_of_numbers_stay() -> None:
    chance = random.Random(0)
    for _ in range(300):
        text = " ".join(f"{chance.random():.{chance.randrange(1, 7)}f}" for _ in range(4))
        ticket = "-".join(str(chance.randrange(10 ** (n - 1), 10**n)) for n in (3, 3, 4))
        for each in (f"scores {text}", f"ticket {ticket}", f"order no. {ticket}", f"case number is {ticket}"):
            assert redact(each) == Redacted(each, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I paid 1,234,567.89 EUR and 1.234.567,89 more, 10 000 000 000 in all",
        "12.50, $4,000.00, 4000.00 EUR, 250000, +20 000 000, +1 500 000 000, up +12.5%",
        "on 2026-11-25, 25.11.2026 12:30:45, 11/25/2026, 2026-11-25T12:30:45Z, from 2019-2024 to 2025-2030",
        "2026-11-25 2026-11-26 20261125123456 1764073845000",
        "order 1234567890123456, 4111111111111112, 9876543210, ORD-2024-0001-2345, 123-1234567-1234567",
        "PIN 1234, code 123456, account 12345678, sort code 12-34-56, part 415-2671",
        "order 0012345678, case 012-345-678",
        "DE89 3704 0044 0532 0130 01, GB00 WEST 1234, AB12 3456 7890 1234 5678",
        "402-118-2260, latencies 250 300 1000, 250 301 1003 1204 980 ms",
        "at 1772366400.5 s, 1772366400.123456, 1772366400123, took 00:01:02.345, 1 day, 02:03:04, PT01H02M03S",
        "$0.000123, 48.858844, -0.127758, 0.5 0.25 0.125 0.0625, 3.141592653589793, 1'234'567.89",
        "version 10.0.19045.3803, 10.0.0.1:8080, 2001:0db8:85a3:0000:0000:8a2e:0370:7334, 00:14:22:01:23:45",
        "INV-2024-001234, ISBN 978-0-306-40615-7, 10:00-12:30, 09:00 - 17:30, 2024-01-01/2024-12-31",
        "git clone git@github.com:org/repo.git, ssh://git@gitlab.example.com/group",
        "4111,1111,1111,1111,1111, 4111\n1111\n1111\n1111\n1111",
        "SWIFT DEUTDEFF500, version 1.2.3.4, host 192.168.100.200",
        "id 550e8400-e29b-41d4-a716-446655440000, 0.4111111111111111",
        "@user, x @ y, me@localhost, a@@b.de@, 3@5",
        "[card] [iban] [email] [phone]",
        "3.5 % for 4 years on 100 200 3000 400 500",
    ],
)
def test_what_is_not_personal_data_stays(text: str) -> None:
    assert redact(text) == Redacted(text, {})


def test_all_kinds_are_counted_and_the_rest_of_the_text_is_kept() -> None:
    text = "a@b.de\0 'DROP TABLE <b>  4111111111111111\n\u200b+44 20 7946 0958; c@d.de \ud800 DE89370400440532013000 €"
    redacted = redact(text)
    assert redacted.text == "[email]\0 'DROP TABLE <b>  [card]\n\u200b[phone]; [email] \ud800 [iban] €"
    assert redacted.counts == {"card": 1, "iban": 1, "email": 2, "phone": 1}
    assert redact(redacted.text) == Redacted(redacted.text, {})


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "7",
            "4",
            "٤",
            "1 ",
            "0-",
            "4111.",
            "4111 ",
            "1234567 ",
            "12345678\n",
            "+1 ",
            "(0",
            "+",
            "a",
            "a@",
            "a@b.",
            "b-",
        ),
        *("a.", "DE89 ", "DE89", "4111 1111 1111 1111, ", "a@b.de ", "+1 415 555 2671, ", "00 12 ", "tel 0123 "),
        *(
            "2024-01-15 ",
            "05.10.26 ",
            "12:30:45",
            "0.5 ",
            "0/",
            "4111\n",
            "402-118-2260 ",
            "ticket 402-118-2260 ",
            "git@",
        ),
        *("05 May ", "1 ticket ", "call "),
    ],
)
def test_calls_are_in_proportion_to_the_text(piece: str) -> None:
    """What a regular expression does inside is not counted; one that is not linear takes minutes here."""
    text, calls = "a@" + "".join(islice(cycle(piece), 300_000)), 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        redact(text)
    finally:
        sys.setprofile(None)
    assert calls < 60 * len(text), calls / len(text)
