"""A person at the terminal: what is shown, and what is typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ontopic.data.labeller import terminal_safe


class LeaveError(Exception):
    """The person leaves; all that was said is kept."""


@dataclass(frozen=True)
class Terminal:
    """Where a person is asked.

    Attributes:
        ask: shows a prompt and returns a line; raises ``EOFError`` at the end.
        say: shows a text.
    """

    ask: Callable[[str], str]
    say: Callable[[str], object]

    def show(self, **texts: str) -> None:
        """Texts under their names, each line behind a bar."""
        for name, text in texts.items():
            self.say(f"{name}\n{terminal_safe(text)}")

    def line(self, prompt: str) -> str:
        """What was typed, without blanks around it.

        Raises:
            LeaveError: it was ``q``, or the input ended.
        """
        try:
            typed = self.ask(prompt).strip()
        except EOFError:
            self.say("")
            raise LeaveError from None
        if typed.lower() in ("q", "quit"):
            raise LeaveError
        return typed

    def text(self, prompt: str, *, proposed: str = "") -> str:
        """A text that is not blank: what was typed, or what is proposed. Raises what ``line`` raises."""
        if proposed:
            self.say(terminal_safe(proposed))
        while True:
            if typed := self.line(f"{prompt}{' (Enter keeps this)' if proposed else ''}: ") or proposed:
                return typed

    def lines(self, prompt: str, *, proposed: list[str]) -> list[str]:
        """Texts, one a line up to an empty one, or what is proposed where the first is empty. Raises what ``line``
        raises."""
        for each in proposed:
            self.say(terminal_safe(each))
        keeps = "Enter keeps these" if proposed else "Enter where there is none"
        typed = [self.line(f"{prompt}, one a line ({keeps}): ")]
        while typed[-1]:
            typed.append(self.line("one more (Enter ends): "))
        return typed[:-1] or proposed

    def choice(self, prompt: str, *, keys: str, default: str) -> str:
        """One of ``keys``; ``default`` for an empty line. Raises what ``line`` raises."""
        while True:
            key = self.line(prompt).lower()[:1] or default
            if key in keys:
                return key
            self.say(f"Give one of {', '.join(keys)}.")
