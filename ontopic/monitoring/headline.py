"""The one number of a page on traffic, in a sentence: where it stands, and why it is not what the judge counted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

from ontopic.monitoring.standing import Standing, uncorrected_in_words
from ontopic.monitoring.window import Status
from ontopic.statistics.rates import Rate
from ontopic.visible import visible

_ALL, _NONE = 0.9995, 0.0005  # what is written 1.000 and 0.000


def headline(status: Status, of: Standing, *, version: str, threshold: float) -> str:
    """Where a version stands on the traffic of a page, in a sentence or two."""
    who = f"Version {visible(version) or 'unknown'}"
    if math.isnan(of.score.value):
        return f"It is not known where {who.lower()} stands: {of.unknown_because or 'no record could be judged'}."
    share = f"keeps to the subject in {_percent(of.score.value)} of its answers"
    asked = f"at least {_percent(threshold)} are asked for"
    if status == "detected":
        return f"{who} has drifted: it {share}, and {asked}."
    if status == "suspected":
        return f"{who} may have drifted: it {share}, and {asked}; it is not certain yet."
    if status == "unknown":
        return f"It is not known where {who.lower()} stands: {of.unknown_because}."
    return f"{who} {share}; {asked}."


def number_in_words(of: Standing, raw: Rate) -> str:
    """The score with its interval, what it was made of, and why it is not the share that the judge passes.

    Args:
        raw: that share, of the same records.
    """
    if not of.score.n:
        return "No record could be judged."
    if not of.is_corrected:
        return f"Guardrail score {of.score}, {uncorrected_in_words(of.labels)}"
    said = f"Guardrail score {of.score}, with the judge's own error taken out: the judge itself passes {raw}."
    if of.sensitivity and of.specificity:
        said += (
            f" By {of.labels:,} labels of this traffic it passes {of.sensitivity.value:.1%} of the good answers and "
            f"fails {of.specificity.value:.1%} of the bad ones, so some of its verdicts are wrong both ways."
        )
    else:
        said += f" How it errs is known from {of.labels:,} labels of this traffic."
    return said + _at_an_end(of, raw)


def _at_an_end(of: Standing, raw: Rate) -> str:
    """Why a score of 1 stands beside answers that fail, or one of 0 beside answers that pass."""
    passes = round(raw.value * raw.n) if raw.n else 0
    fails = raw.n - passes
    if of.score.value >= _ALL and fails:
        as_many = (
            f"as many as it fails of good answers alone ({1 - of.sensitivity.value:.1%})"
            if of.sensitivity
            else ("no more than it is known to fail of good answers alone")
        )
        return (
            f" It comes to {of.score.value:.3f} although {fails:,} of {raw.n:,} answers fail below: these are about "
            f"{as_many}. That clears none of them: the score may be as low as {of.score.low:.3f}."
        )
    if of.score.value <= _NONE and passes:
        return (
            f" It comes to {of.score.value:.3f} although {passes:,} of {raw.n:,} answers pass: the judge is known to "
            f"pass so many bad ones. The score may be as high as {of.score.high:.3f}."
        )
    return ""


def period_in_words(asked: Iterable[datetime | None]) -> str:
    """From when to when records were asked, in UTC: by the second where that is within the hour; empty if unknown."""
    known = sorted(at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC) for at in asked if at is not None)
    if not known:
        return ""
    first, last = known[0], known[-1]
    exact = (last - first).total_seconds() < 3600
    clock = "%H:%M:%S" if exact else "%H:%M"
    begun = f"{first:%Y-%m-%d} {first:{clock}}"
    if begun == f"{last:%Y-%m-%d} {last:{clock}}":
        return f"asked at {begun} UTC"
    ended = f"{last:{clock}}" if first.date() == last.date() else f"{last:%Y-%m-%d} {last:{clock}}"
    return f"asked {begun} to {ended} UTC"


def _percent(share: float) -> str:
    """With a decimal, where there is one: nothing is rounded to all, to none or over a limit."""
    text = f"{share:.1%}"
    if text in ("100.0%", "0.0%") and 0 < share < 1:
        text = f"{share:.3%}"
    return text.replace(".0%", "%").replace("%", "\u00a0%")  # never at a line's end without it
