"""Progress of long work: a bar with rate and time left on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_STATUS = 0.5


class Advance(Protocol):
    """Called with how many units were done since the last call."""

    def __call__(self, done: int, /) -> object: ...


@contextmanager
def progress(label: str, total: int, *, unit: str, status: Callable[[], str] = str) -> Iterator[Advance]:
    """Show the progress of ``total`` units of work on standard error.

    Args:
        status: called now and then for what else to say, such as how many have failed.

    Yields:
        A function to call with how many more units are done.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=label, unit=f" {unit}", leave=False, disable=False) as bar:
            shown = 0.0

            def advance_bar(more: int, /) -> None:
                nonlocal shown
                if time.monotonic() - shown > _SECONDS_BETWEEN_STATUS:
                    shown = time.monotonic()
                    bar.set_postfix_str(status(), refresh=False)
                bar.update(more)

            yield advance_bar
        return
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
            print(f"  {label}: {done}/{total} {unit}, {left:.0f} s left{behind()}", file=sys.stderr, flush=True)

    yield advance
    seconds = time.monotonic() - start
    print(f"  {label}: {done} {unit} in {seconds:.1f} s{behind()}", file=sys.stderr, flush=True)
