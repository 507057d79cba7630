"""What an LLM wrote, shown to a person page by page: questions of one intent, records of one kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ontopic.data.synthetic import Marked, MarkedQuestion, MarkedRecord
from ontopic.drafting.draft import Draft
from ontopic.drafting.terminal import Terminal
from ontopic.visible import visible

_KEYS = (
    "Enter: all right; d 2 5: drop these, or take them back; f 3: the other label, which is a question's scope; "
    "e 3 TEXT: another wording, of a record its answer; u: back to the page before; a: keep all that is left unseen, "
    "marked so; q: quit; ?: what the policy covers. A page may be changed several times before Enter."
)
_QUESTIONS, _RECORDS = 10, 5  # a page
_CHANGE = re.compile(r"([df])((?:\s+\d+)+)|(e)\s+(\d+)\s+(\S.*)", re.I | re.S)


def reviewed(draft: Draft, terminal: Terminal, *, keep: Callable[[Draft], object]) -> Draft:
    """Show all rows that nobody has seen, and keep the draft after each page.

    Records of a question that was dropped, or that got the other scope, are dropped too.

    Returns:
        The draft without what was dropped. Rows that were left unseen on purpose stay marked so.

    Raises:
        LeaveError: the person leaves, or the input ends; what was reviewed is kept.
    """
    rows: list[Marked] = [*draft.questions, *draft.records]
    pages, decided = _pages(rows), dict[int, Marked | None]()
    if pages:
        terminal.say(f"\n{sum(map(len, pages))} rows to review, on {len(pages)} pages.\n{_KEYS}")
    place, result = 0, draft
    while place < len(pages):
        gone = _gone(rows, decided)
        shown = [i for i in pages[place] if not (isinstance(rows[i], MarkedRecord) and rows[i].spoken in gone)]
        action, seen = "", list[Marked | None]()
        if shown:
            terminal.say(f"\n{place + 1} of {len(pages)}")
            action, seen = _page([rows[i] for i in shown], terminal, definition=draft.definition)
        if action == "a":
            break
        if action == "u":
            place = max(0, place - 1)
            decided = {i: row for i, row in decided.items() if i not in pages[place]}
        else:
            decided |= dict(zip(shown, seen, strict=True))
            place += 1
        result = _with(draft, rows, decided=decided)
        keep(result)
    return result


def _pages(rows: Sequence[Marked]) -> list[list[int]]:
    """The indices of the rows of each page, of those that nobody has seen."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if not row.reviewed:
            of_kind = row.kind if isinstance(row, MarkedRecord) else row.intent
            groups.setdefault((type(row), row.in_scope, of_kind), []).append(i)
    pages = []
    for indices in groups.values():
        size = _RECORDS if isinstance(rows[indices[0]], MarkedRecord) else _QUESTIONS
        pages += [indices[start : start + size] for start in range(0, len(indices), size)]
    return pages


def _gone(rows: Sequence[Marked], decided: dict[int, Marked | None]) -> set[str]:
    """What is asked in questions that were dropped or have another scope now."""
    return {
        rows[i].spoken
        for i, row in decided.items()
        if isinstance(rows[i], MarkedQuestion) and (row is None or row.in_scope != rows[i].in_scope)
    }


def _with(draft: Draft, rows: Sequence[Marked], *, decided: dict[int, Marked | None]) -> Draft:
    gone = _gone(rows, decided)
    left = [row for i, old in enumerate(rows) if (row := decided.get(i, old)) is not None]
    return draft.model_copy(
        update={
            "questions": tuple(row for row in left if isinstance(row, MarkedQuestion)),
            "records": tuple(
                row
                for row in left
                if isinstance(row, MarkedRecord) and not (row.origin == "synthetic" and row.spoken in gone)
            ),
        }
    )


def _page(shown: Sequence[Marked], terminal: Terminal, *, definition: str) -> tuple[str, list[Marked | None]]:
    """Ask for the changes of one page; what ended it (``u``, ``a`` or nothing), and its rows, ``None`` for a dropped
    one."""
    rows = [row.model_copy(update={"reviewed": True}) for row in shown]
    dropped: set[int] = set()
    terminal.say(_title(shown[0]))
    _show(rows, terminal, dropped=dropped)
    while True:
        typed = terminal.line("all right? ")
        if typed.lower() in ("", "u", "a"):
            return typed.lower(), [None if i in dropped else row for i, row in enumerate(rows)]
        if typed == "?":
            terminal.say(f"{definition}\n{_KEYS}")
            continue
        if not _changed(typed, rows, dropped=dropped):
            terminal.say("Give Enter, d NUMBERS, f NUMBERS, e NUMBER TEXT, u, a, q or ?, with numbers of this page.")
            continue
        _show(rows, terminal, dropped=dropped)


def _changed(typed: str, rows: list[Marked], *, dropped: set[int]) -> bool:
    """Carry out a change on the page; whether it was one."""
    match = _CHANGE.fullmatch(typed)
    if match is None:
        return False
    places = [int(number) - 1 for number in (match[2] or match[4]).split()]
    if not all(0 <= place < len(rows) for place in places):
        return False
    key = (match[1] or match[3]).lower()
    for place in places:
        if key == "d":
            dropped ^= {place}
        else:
            rows[place] = _other_label(rows[place]) if key == "f" else _worded(rows[place], match[5].strip())
    return True


def _other_label(row: Marked) -> Marked:
    if isinstance(row, MarkedQuestion):
        return row.model_copy(update={"in_scope": not row.in_scope, "reference": None})
    # What it was written as no longer holds.
    return row.model_copy(update={"label": "fail" if row.label == "pass" else "pass", "kind": "", "why": ""})


def _worded(row: Marked, text: str) -> Marked:
    return row.model_copy(update={"question" if isinstance(row, MarkedQuestion) else "answer": text})


def _title(row: Marked) -> str:
    scope = "in scope" if row.in_scope else "out of scope"
    if isinstance(row, MarkedQuestion):
        return f"Questions {scope}, {visible(row.intent)}"
    return f"Answers to questions {scope}, {row.kind.replace('_', ' ')}"


def _show(rows: Sequence[Marked], terminal: Terminal, *, dropped: set[int]) -> None:
    for i, row in enumerate(rows):
        mark = "dropped" if i in dropped else _label(row)
        terminal.say(f"{i + 1:>2} {mark:<7} | {visible(row.question)}")
        answer = row.reference if isinstance(row, MarkedQuestion) else row.answer
        if answer:
            terminal.say(f"           |   {visible(answer)}")


def _label(row: Marked) -> str:
    if isinstance(row, MarkedQuestion):
        return "in" if row.in_scope else "out"
    return str(row.label)
