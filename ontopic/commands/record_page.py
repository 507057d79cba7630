"""An entry of the promotion record on a screen that an auditor can read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from ontopic.registry.promotion_record import Entry
from ontopic.statistics.rates import Rate
from ontopic.visible import visible

_SCORES = {"guardrail_score": "guardrail score", "over_refusal": "over-refusal", "leak": "leak"}
_CARD = ("accuracy", "kappa", "sensitivity", "specificity")
_MOST_INTENTS = 10
_MOST_ON_A_LINE = 4
_NAME_WIDTH = 22
_TOLD_APART = ("decision", "segments", "files", "code", "card", "questions", "settings")  # each has a part of its own


def entry_in_words(entry: Entry) -> str:
    """What was done, in a few words."""
    gate = entry.facts.get("gate")
    if entry.kind == "gate":
        return f"gate {gate}"
    if entry.kind == "promotion" and entry.facts.get("override"):
        return f"promotion by hand, an override (its gate: {gate})"
    if entry.kind == "rollout":
        return f"rollout {visible(str(entry.facts.get('outcome')))}"
    if entry.kind == "erasure":
        return "erasure of traffic"
    if entry.kind == "edit":
        return f"training pair: {entry.facts.get('what')}"
    by_hand = " by hand" if entry.facts.get("by_hand") else ""
    return f"{entry.kind}{by_hand}"


def page_of(entry: Entry) -> Iterator[Text | Table]:
    """An entry's parts: what and who, then its evidence, then what makes it tamper-evident."""
    override = bool(entry.facts.get("override"))
    of = f"version {entry.version} of {entry.registered_model}" if entry.version else entry.registered_model
    title = f"Entry {entry.number}: {entry_in_words(entry)}, {of}"
    yield Text(visible(title), style="bold red" if override else "bold")
    yield Text(visible(f"{entry.at:%Y-%m-%d %H:%M:%S} UTC, by {entry.by}: {entry.why}"))
    facts = entry.facts
    if isinstance(decision := facts.get("decision"), dict):
        yield from _decision(decision)
    if isinstance(segments := facts.get("segments"), list) and segments:
        yield _segments(segments)
    yield from _lines("Evidence", _evidence(facts))
    chain = [("follows", entry.previous), ("sha256", entry.sha256), ("signature", entry.signature or "none")]
    yield from _lines("In the chain", chain)


def _decision(decision: Mapping[str, Any]) -> Iterator[Text | Table]:
    for test in decision.get("tests", []):
        passed = bool(test.get("passed"))
        line = f"  {'passed' if passed else 'FAILED'}: {test.get('description')}"
        yield Text(visible(line), style="" if passed else "red")
    table = Table(box=box.SIMPLE, padding=0, title="Counts, with 95 % intervals")
    for column in ("", "champion", "challenger"):
        table.add_column(column, justify="left" if not column else "right")
    sides = [decision.get(side) or {} for side in ("champion", "challenger")]
    for name, label in _SCORES.items():
        table.add_row(label, *(_rate(side.get(name)) for side in sides))
    table.add_row("unjudged answers", *(_value(side.get("unjudged")) for side in sides))
    yield table
    known = ("champion", "challenger", "tests", "passed")
    yield from _lines("What the gate read", _rows(decision, known))


def _segments(segments: Sequence[Any]) -> Table:
    """All kinds and languages, and the largest intents."""
    table = Table(box=box.SIMPLE, padding=0, title="Guardrail score by segment")
    for column in ("", "segment", "n", "champion", "challenger", "unjudged"):
        named = column in ("", "segment")
        table.add_column(column, justify="left" if named else "right", overflow="fold", no_wrap=not named)
    intents = 0
    for each in (each for each in segments if isinstance(each, dict)):
        intents += each.get("by") == "intent"
        if each.get("by") == "intent" and intents > _MOST_INTENTS:
            continue
        sides = [each.get(side) or {} for side in ("champion", "challenger")]
        scores = [_rate(side.get("guardrail_score")).partition(" (n=")[0] for side in sides]
        unjudged = " | ".join(_value(side.get("unjudged")) for side in sides)
        table.add_row(_value(each.get("by")), _value(each.get("name")), _value(each.get("n")), *scores, unjudged)
    if intents > _MOST_INTENTS:
        table.caption = f"The {_MOST_INTENTS} largest of {intents} intents; --json has all"
    return table


def _evidence(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _rows(facts, _TOLD_APART)
    if isinstance(questions := facts.get("questions"), dict):
        yield "questions asked", _value({name: of for name, of in questions.items() if name != "ids"})
    if isinstance(card := facts.get("card"), dict):
        yield "judge", _value({name: of for name, of in card.items() if name not in _CARD})
        yield from ((f"judge's {name}", _rate(card.get(name))) for name in _CARD)
    if isinstance(code := facts.get("code"), dict):
        yield "code", _value({name: of for name, of in code.items() if name != "packages"})
        yield "packages", _value(code.get("packages"))
    for part in ("settings", "files"):
        if isinstance(of := facts.get(part), dict):
            yield from ((name if part == "files" else f"settings of {name}", _value(each)) for name, each in of.items())


def _rows(of: Mapping[str, Any], left_out: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values; a value of many parts is a row each."""
    for name, value in of.items():
        if name in left_out:
            continue
        if isinstance(value, dict) and len(value) > _MOST_ON_A_LINE:
            yield from ((f"{name}: {part}", _value(each)) for part, each in value.items())
        else:
            yield name, _value(value)


def _lines(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[Text]:
    """A line each, which is not broken here, so that a hash can be copied from it."""
    yield Text(title, style="bold")
    for name, value in rows:
        yield Text(f"  {visible(name):<{_NAME_WIDTH}} {value}")


def _rate(value: Any) -> str:
    """A share with its interval, however an older release wrote it."""
    try:
        return str(Rate.model_validate(value))
    except ValidationError:
        return _value(value)


def _value(value: Any) -> str:
    """Any JSON on as few lines as it needs, without quotes and braces."""
    if isinstance(value, dict):
        if {"value", "low", "high", "n"} <= set(value):
            return _rate(value) if not isinstance(value.get("value"), dict) else ""
        return ", ".join(f"{visible(str(name))} {_value(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_value, value)) or "none"
    if value in (None, ""):
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return visible(str(value))
