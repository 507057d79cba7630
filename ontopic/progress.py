"""Progress of long work, and signs of life of any: a bar on a terminal, plain lines when piped, nothing when quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_STATUS = 0.5
_SILENCE_S = 4.0  # on a terminal
_SILENCE_PIPED_S = 30.0  # in a log, once it has been silent for the first time
_BEAT_S = 1.0


class Advance(Protocol):
    """Called with how many units were done since the last call."""

    def __call__(self, done: int, /) -> object: ...


class _Shown:
    """What of progress is on the screen: one of them a process, as there is one screen."""

    quiet = False
    bar: tqdm | None = None
    said = 0.0  # when a line of progress was last written
    doing: Callable[[], str] = str


def be_quiet(*, quiet: bool) -> None:
    """Whether progress and signs of life are left out: ``--quiet``."""
    _Shown.quiet = quiet


def is_quiet() -> bool:
    """Whether they are."""
    return _Shown.quiet


@contextmanager
def working(doing: Callable[[], str] = str) -> Iterator[None]:
    """While this lasts, something shows every few seconds that work goes on, also where it has no progress to show.

    Not for what waits for a person or for requests.

    Args:
        doing: called from another thread for what is done now, in a few words.
    """
    if _Shown.quiet:
        yield
        return
    over = threading.Event()
    _Shown.said, _Shown.doing = time.monotonic(), doing
    beats = threading.Thread(target=_beat, args=(over,), name="progress", daemon=True)
    beats.start()
    try:
        yield
    finally:
        over.set()
        beats.join()


def _beat(over: threading.Event) -> None:
    start, terminal = time.monotonic(), sys.stderr.isatty()
    silence = _SILENCE_S
    while not over.wait(_BEAT_S):
        if terminal and _Shown.bar is not None:
            _Shown.bar.refresh()  # its seconds go on, also between two units
            continue
        now = time.monotonic()
        if now - _Shown.said < silence:
            continue
        line = f"  … {f'{what}, ' if (what := _Shown.doing()) else ''}{now - start:.0f} s"
        _write(line, end="\r" if terminal else "\n")  # the next line is written over it
        silence = 0.0 if terminal else _SILENCE_PIPED_S
        if not terminal:
            _Shown.said = now


def _write(text: str, *, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)
    _Shown.said = time.monotonic()


@contextmanager
def progress(label: str, total: int, *, unit: str, status: Callable[[], str] = str) -> Iterator[Advance]:
    """Show the progress of ``total`` units of work on standard error.

    Args:
        status: called now and then for what else to say, such as how many have failed.

    Yields:
        A function to call with how many more units are done.
    """
    if _Shown.quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=f" {unit}", leave=False, disable=False) as bar:
            outer, _Shown.bar = _Shown.bar, bar
            try:
                yield _advance_bar(bar, status)
            finally:
                _Shown.bar, _Shown.said = outer, time.monotonic()
    else:
        yield from _lines(label, total, unit=unit, status=status)


def _advance_bar(bar: tqdm, status: Callable[[], str]) -> Advance:
    shown = 0.0

    def advance(more: int, /) -> None:
        nonlocal shown
        if time.monotonic() - shown > _SECONDS_BETWEEN_STATUS:
            shown = time.monotonic()
            bar.set_postfix_str(status(), refresh=False)
        bar.update(more)

    return advance


def _lines(label: str, total: int, *, unit: str, status: Callable[[], str]) -> Iterator[Advance]:
    start = last = time.monotonic()
    done = 0

    def behind() -> str:
        return f"; {said}" if (said := status()) else ""

    def advance(more: int, /) -> None:
        nonlocal done, last
        done += more
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and done < total:
            last = now
            left = (total - done) * (now - start) / done
            rate = done / (now - start)
            _write(f"  {label}: {done}/{total} {unit}, {rate:.3g} a second, {left:.0f} s left{behind()}")

    yield advance
    seconds = time.monotonic() - start
    _write(f"  {label}: {done} {unit} in {seconds:.1f} s{behind()}")
