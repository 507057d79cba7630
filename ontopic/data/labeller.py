"""Asking a person for labels on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ontopic.data.labels import Draw, LabelStore
from ontopic.data.terminal import visible
from ontopic.records import Record


def label_records(
    records: Sequence[Record],
    store: LabelStore,
    *,
    by: Draw,
    definition: str,
    ask: Callable[[str], str] = input,
    say: Callable[[str], object] = print,
    notes: Sequence[str] | None = None,
) -> int:
    """Ask a human for the label of one record after the other, and keep each in ``store`` at once.

    The judge's verdict isn't shown: it would sway the label.

    Args:
        definition: the policy's, shown on ``?``.
        ask: shows a prompt and returns a line; raises ``EOFError`` at the end, which is taken as ``q``.
        say: shows a text.
        notes: what else to show of each record, one a record.

    Returns:
        How many records were labelled.
    """
    say(_KEYS)
    labelled: list[int] = []
    position = 0
    try:
        while position < len(records):
            record = records[position]
            say(f"\n{position + 1} of {len(records)}")
            say(f"Question\n{terminal_safe(record.question)}\nAnswer\n{terminal_safe(record.answer)}")
            if notes:
                say(terminal_safe(notes[position]))
            key, _, why = _choice(ask, say, prompt="pass or fail? ", keys="pfsuq", definition=definition).partition(" ")
            if key == "q":
                break
            if key == "u":
                if labelled:
                    position = labelled.pop()
                    store.remove(records[position])
                    say(f"Taken back: record {position + 1}.")
                else:
                    say("There is nothing to undo.")
                continue
            if key != "s":
                scope = record.in_scope
                try:
                    if scope is None:
                        scope = {"y": True, "n": False}.get(
                            _choice(ask, say, prompt="in scope? (y/n) ", keys="yn", definition=definition)[:1]
                        )
                finally:
                    # An end of input here still keeps the label that was given.
                    known = Record(question=record.question, answer=record.answer, in_scope=scope, id=record.id)
                    store.add(known, "pass" if key == "p" else "fail", by=by, why=why.strip())
                    labelled.append(position)
            position += 1
    except EOFError:
        say("")
    return len(labelled)


_KEYS = (
    "p: pass, f: fail (a reason may follow: f gives the recipe), s: skip, u: undo, q: quit, ?: what the policy covers. "
    "Enter ends a line."
)


def terminal_safe(text: str) -> str:
    """A text that is safe to show on a terminal, each line behind a bar.

    Characters that could move the cursor, change colours, hide or reorder text are shown as escapes; the bar tells
    a record's lines from ours.
    """
    lines = text.split("\n") if text.strip() else ["(empty)"]
    return "\n".join(f"  | {visible(line)}" for line in lines)


def _choice(ask: Callable[[str], str], say: Callable[[str], object], *, prompt: str, keys: str, definition: str) -> str:
    """A line that starts with one of ``keys``, alone or before a space; asked for again until there is one."""
    while True:
        line = ask(prompt).strip()
        word = line.split(" ", 1)[0].lower()
        words = {"pass": "p", "fail": "f", "skip": "s", "undo": "u", "quit": "q", "yes": "y", "no": "n"}
        key = words.get(word, word)
        if key == "?":
            say(f"{definition}\n{_KEYS}")
        elif len(key) == 1 and key in keys:
            return key + line[len(word) :]
        else:
            say(f"Give one of {', '.join(keys)}.")
