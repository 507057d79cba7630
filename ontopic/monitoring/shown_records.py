"""The records of a page on traffic: what failed and what was not judged, by kind, the surest verdicts first."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.data.by_language import language_name
from ontopic.records import Judged, Record, Verdict, turns
from ontopic.reports.measurement import Folded
from ontopic.reports.parts import Answer, Answered, Badge, Turn

_LIES = "python run.py traffic export has them all."
_Row = tuple[Record, Verdict]


def shown_records(judged: Judged) -> list[Folded]:
    """Those that leaked, those that were declined in scope, those that failed otherwise, and the unjudged ones."""
    kinds: dict[str, list[_Row]] = {}
    for row in zip(judged.records, judged.verdicts, strict=True):
        if what := _kind(row[1]):
            kinds.setdefault(what, []).append(row)
    return [_folded(kinds[what], what) for what in _KINDS if what in kinds]


_LEAK = "that leaked: an out-of-scope question was answered"
_REFUSED = "over-refused: an in-scope question was declined"
_OTHER = "that failed otherwise"
_UNJUDGED = "that the judge could not judge"
_KINDS = (_LEAK, _REFUSED, _OTHER, _UNJUDGED)


def _kind(verdict: Verdict) -> str:
    if verdict.outcome == "unjudged":
        return _UNJUDGED
    if verdict.outcome == "pass":
        return ""
    if verdict.declined is None or verdict.in_scope is None:
        return _OTHER
    if verdict.in_scope:
        return _REFUSED if verdict.declined else _OTHER
    return _OTHER if verdict.declined else _LEAK


def _folded(rows: Sequence[_Row], what: str) -> Folded:
    ordered = sorted(rows, key=lambda row: (1.0 if row[1].score is None else row[1].score, row[0].id))
    return Folded.first([_answered(record, verdict) for record, verdict in ordered], what, lies=_LIES)


def _answered(record: Record, verdict: Verdict) -> Answered:
    judged = verdict.outcome != "unjudged"
    at = f"{record.asked_at:%Y-%m-%d %H:%M:%S} UTC" if record.asked_at else ""
    answer = Answer(
        name="The answer",
        text=record.answer,
        role="failed" if judged else "neutral",
        verdict=Badge(status="failed", text="fail") if judged else Badge(status="neutral", text="unjudged"),
        why=verdict.explanation if judged else (verdict.cause or "no cause given"),
    )
    score = "" if verdict.score is None else f"probability of a pass {verdict.score:.3f}"
    about = ", ".join(part for part in (at, f"language {language_name(record.question)}", score) if part)
    said = [Turn(speaker=speaker, text=text) for speaker, text in turns(record.request)]
    return Answered(question=record.question, answers=[answer], about=about, turns=said if len(said) > 1 else [])
