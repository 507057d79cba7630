"""Redaction: what personal data is found, what is left alone, and how long hostile texts take."""

from __future__ import annotations

import time
from itertools import cycle, islice

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
    ],
)
def test_a_million_characters_take_seconds(piece: str) -> None:
    text = "a@" + "".join(islice(cycle(piece), 1_000_000))
    start = time.process_time()
    redact(text[:250_000])
    quarter = time.process_time() - start
    start = time.process_time()
    redact(text)
    whole = time.process_time() - start
    assert whole < 12 * max(quarter, 0.05)  # 16 were quadratic
    assert whole < 30
