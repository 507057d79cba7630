"""Progress and signs of life, on a terminal and piped."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from ontopic import progress as shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("_BEAT_S", "_SILENCE_S", "_SILENCE_PIPED_S"):
        monkeypatch.setattr(shown, name, 0.02)
    yield
    shown.be_quiet(quiet=False)


def soon_true(said: Callable[[], bool]) -> bool:
    """Whether it comes true while a busy machine may take seconds for it."""
    until = time.monotonic() + 10
    while not said() and time.monotonic() < until:
        time.sleep(0.01)
    return said()


def test_long_silence_is_broken_by_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with shown.working(lambda: "train challenger"):
        assert soon_true(lambda: re.match(r"  … 0:0\d train challenger\n", log.getvalue()) is not None)


def test_on_a_terminal_a_sign_of_life_takes_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with shown.working():
        assert soon_true(lambda: screen.getvalue().count("\r") > 1)
    assert re.fullmatch(r"(  … 0:0\d\r)+", screen.getvalue())


def test_a_bar_that_stands_still_goes_on_counting_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with shown.working(), shown.progress("ORPO", 3, unit="steps") as advance:
        advance(1)
        before = screen.getvalue()
        assert soon_true(lambda: screen.getvalue().count("ORPO") > before.count("ORPO"))
        assert "…" not in screen.getvalue().partition("ORPO")[2]


def test_lines_tell_the_rate_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "_SECONDS_BETWEEN_LINES", 0.0)
    with shown.progress("verdicts", 2, unit="records", status=lambda: "1 unjudged") as advance:
        time.sleep(0.01)
        advance(1)
        advance(1)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"  verdicts: 1/2 records, [\d.]+ a second, \d+ s left; 1 unjudged", first)
    assert re.fullmatch(r"  verdicts: 2 records in \d+\.\d s; 1 unjudged", last)


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shown.be_quiet(quiet=True)
    with shown.working(), shown.progress("verdicts", 1, unit="records") as advance:
        advance(1)
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
