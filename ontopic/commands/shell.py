"""What the shell hands a command: its streams, its variables, ``.env``, and signals that end it."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import suppress
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Literal, TextIO

from dotenv import load_dotenv

from ontopic.errors import UserError

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


def take_over(env_file: Path) -> None:
    """Make streams usable, warnings silent and signals orderly, and read ``.env``.

    Raises:
        UserError: ``.env`` can't be read.
    """
    _open_streams()
    warnings.filterwarnings("ignore")  # libraries warn of what is theirs to mend; ours are errors
    if os.environ.get("PYTHONWARNINGS"):
        os.environ["PYTHONWARNINGS"] = "ignore"  # of the processes that are started, too
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has the second ignored
            signal.signal(number, _interrupt)
    _read_variables(env_file)


def exit_code(code: int) -> int:
    """``code``, or 128 and the number of the signal that ended the command, as a shell has it."""
    return 128 + _received[0] if _received else code


def say_stopped(ended: BaseException) -> None:
    """Say that the command was stopped, and what ``locked`` notes on it."""
    interrupt: BaseException | None = ended
    while interrupt is not None and not isinstance(interrupt, KeyboardInterrupt):
        interrupt = interrupt.__cause__ or interrupt.__context__
    with suppress(OSError):  # the terminal may be gone
        print("; ".join(["stopped", *getattr(interrupt, "__notes__", ())]), file=sys.stderr)


def flush() -> None:
    """Write out what was printed, while an error can still be said."""
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = _nowhere("w")  # else Python tries once more at its end, and complains at length
        if not isinstance(error, BrokenPipeError):  # `| head` has seen enough
            raise


def _interrupt(number: int, _: FrameType | None) -> None:
    """End as Ctrl-C does, so that what was begun is ended too."""
    _received.append(number)
    raise KeyboardInterrupt


def _open_streams() -> None:
    for number in range(3):  # a closed one's number would be that of the next file that is opened, and printed into
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout, sys.stderr = sys.stdout or _nowhere("w"), sys.stderr or _nowhere("w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character


def _nowhere(mode: Literal["r", "w"]) -> TextIO:
    return Path(os.devnull).open(mode)


def _read_variables(path: Path) -> None:
    """Set the variables of ``.env`` that are not set yet."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it a file that you may read") from None
    # PowerShell's > writes UTF-16.
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8; save the file in UTF-8") from None
    if "\0" in text:
        line = text.partition("\0")[0].count("\n") + 1
        raise UserError(f"{path}:{line}: holds a NUL character; save the file as text in UTF-8")
    try:
        load_dotenv(stream=StringIO(text))
    except (ValueError, OSError) as error:  # a name that no variable can have, a value that the locale has no bytes for
        raise UserError(f"{path}: a line cannot be made a variable ({error}); write NAME=value") from None
