"""Asking a person for labels on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ontopic.data.labelled import MOST_CHARACTERS
from ontopic.data.labels import Draw, LabelStore
from ontopic.records import THE_QUESTION, Record, turns
from ontopic.visible import visible


def label_records(
    records: Sequence[Record],
    store: LabelStore,
    *,
    by: Draw,
    definition: str,
    ask: Callable[[str], str] = input,
    say: Callable[[str], object] = print,
    notes: Sequence[str] | None = None,
    proposed: Sequence[str] | None = None,
) -> int:
    """Ask a human for the label of one record after the other, and keep each in ``store`` at once.

    The judge's verdict isn't shown: it would sway the label. Where the scope isn't known, a second question asks for
    it. A label that was given is kept, whatever ends the second question, but for an undo.

    Args:
        definition: the policy's, shown on ``?``.
        ask: shows a prompt and returns a line; raises ``EOFError`` at the end, which is taken as ``q``.
        say: shows a text.
        notes: what else to show of each record, one a record.
        proposed: a right answer to each, which somebody else wrote and the notes show; empty where there is none.

    Returns:
        How many records were labelled.
    """
    terminal = _Terminal(ask, say, definition)
    say(_KEYS)
    labelled: list[int] = []
    position = 0
    try:
        while position < len(records):
            record = records[position]
            terminal.show(record, place=f"{position + 1} of {len(records)}", note=notes[position] if notes else None)
            given = terminal.verdict(proposed[position] if proposed else "")
            if given == "q":
                break
            if given == "u":
                position = _last_taken_back(labelled, records, store=store, by=by, say=say, otherwise=position)
                continue
            if not isinstance(given, str):
                scope, then = record.in_scope, ""
                try:
                    if scope is None:
                        then = terminal.choice(_SCOPE, keys="ynsuq")[0]
                        scope = {"y": True, "n": False}.get(then)
                finally:  # also where the input ends here
                    if then != "u":
                        known = record.model_copy(update={"in_scope": scope})
                        store.add(known, given.label, by=by, why=given.why, correction=given.correction)
                        labelled.append(position)
                if then == "q":
                    break
                if then == "u":
                    say(f"Taken back: record {position + 1}.")
                    continue
            position += 1
    except EOFError:
        say("")
    return len(labelled)


def _last_taken_back(
    labelled: list[int],
    records: Sequence[Record],
    *,
    store: LabelStore,
    by: Draw,
    say: Callable[[str], object],
    otherwise: int,
) -> int:
    """Take back the label that was given last; the record's position, or ``otherwise`` where there is none."""
    if not labelled:
        say("There is nothing to undo.")
        return otherwise
    position = labelled.pop()
    store.remove(records[position], by=by)
    say(f"Taken back: record {position + 1}.")
    return position


_KEYS = (
    "p: pass, f: fail (a reason may follow: f gives the recipe), c: fail, and the right answer follows (c Lock it in "
    "the app.; c alone asks for it), t: fail, and take the right answer that is proposed, s: skip, u: undo, q: quit, "
    "?: what the policy covers. Enter ends a line.\nAfter p, f, c or t, where it isn't known whether the question is "
    "in scope, that is asked: y: yes, n: no, s: leave it open, u: back to pass or fail, q: keep the label and quit."
)
_SCOPE = "is the question in scope? (y/n, or s, u, q) "


def terminal_safe(text: str) -> str:
    """A text that is safe to show on a terminal, each line behind a bar.

    Characters that could move the cursor, change colours, hide or reorder text are shown as escapes; the bar tells
    a record's lines from ours.
    """
    lines = text.split("\n") if text.strip() else ["(empty)"]
    return "\n".join(f"  | {visible(line)}" for line in lines)


class _Given(NamedTuple):
    """What a person says of a record."""

    label: Literal["pass", "fail"]
    why: str = ""
    correction: str = ""


@dataclass(frozen=True)
class _Terminal:
    """Where a person is asked.

    Attributes:
        ask, say, definition: see ``label_records``.
    """

    ask: Callable[[str], str]
    say: Callable[[str], object]
    definition: str

    def show(self, record: Record, *, place: str, note: str | None) -> None:
        """A record with its whole conversation, its place among all, and what else is to be said of it."""
        self.say(f"\n{place}")
        for speaker, said in turns(record.request):
            self.say(f"{'Question' if speaker == THE_QUESTION else speaker}\n{terminal_safe(said)}")
        self.say(f"Answer\n{terminal_safe(record.answer)}")
        if note is not None:
            self.say(terminal_safe(note))

    def verdict(self, proposed: str) -> _Given | Literal["s", "u", "q"]:
        """A verdict, with its reason or the right answer; or a key that gives none."""
        keys = "pfctsuq" if proposed.strip() else "pfcsuq"
        while True:
            key, _, said = self.choice("pass or fail? ", keys=keys).partition(" ")
            said = said.strip()
            if key == "c" and not (said := said or self._lines()):
                continue
            if len(said) > MOST_CHARACTERS:
                self.say(f"That is too long: give at most {MOST_CHARACTERS:,} characters.")
                continue
            if key in _NO_VERDICT:
                return _NO_VERDICT[key]
            if key in "ct":
                return _Given("fail", correction=said if key == "c" else proposed)
            return _Given("pass" if key == "p" else "fail", why=said)

    def _lines(self) -> str:
        """An answer of several lines, which an empty one ends; empty where that is the first."""
        lines: list[str] = []
        while line := self.ask("the right answer (an empty line ends it) ").rstrip():
            lines.append(line)
        if not lines:
            self.say("No right answer was given.")
        return "\n".join(lines)

    def choice(self, prompt: str, *, keys: str) -> str:
        """A line that starts with one of ``keys``, alone or before a space; asked for again until there is one."""
        while True:
            line = self.ask(prompt).strip()
            word = line.split(" ", 1)[0].lower()
            key = _WORDS.get(word, word)
            if key == "?":
                self.say(f"{self.definition}\n{_KEYS}")
            elif len(key) == 1 and key in keys:
                return key + line[len(word) :]
            else:
                self.say(f"Give one of {', '.join(keys)}.")


_WORDS = {"pass": "p", "fail": "f", "correct": "c", "take": "t", "skip": "s", "undo": "u", "quit": "q"}
_NO_VERDICT: dict[str, Literal["s", "u", "q"]] = {"s": "s", "u": "u", "q": "q"}
_WORDS |= {"yes": "y", "no": "n"}
