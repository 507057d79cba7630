"""What a person types on the terminal."""

from __future__ import annotations

import sys


def read_any_bytes() -> None:
    """Take what is typed as it comes, and show whatever a text holds."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # typed in another encoding
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a text's characters


def line(prompt: str) -> str:
    """A line that a person types.

    Raises:
        EOFError: the input ends, or the terminal is gone.
    """
    try:
        return input(prompt)
    except OSError:
        raise EOFError from None
