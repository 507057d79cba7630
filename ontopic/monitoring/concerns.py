"""What a closed window raises alerts for, and what it shows to be over."""

from __future__ import annotations

import math
from pathlib import Path

from ontopic.config.alert_settings import AlertEvent
from ontopic.monitoring.held_shares import HeldShare
from ontopic.monitoring.window import LOW, Drift, Window, WindowResult


def concerns(window: Window) -> dict[AlertEvent, str]:
    """The events that a closed window is, each with a sentence that says why."""
    result = window.result
    if result is None:
        return {}
    page = Path(result.report).name  # its folder is this machine's, and the alert may be read on another
    said = _of_the_score(result)
    if result.thumbs and result.thumbs.disliked:
        said["disliked"] = result.thumbs.in_words
    if result.drift and result.drift.detected:
        said["drift"] = _drift_in_words(result.drift)
    for event, share in _shares(result).items():
        if share.over:
            said[event] = f"{_NAMES[event]} {share.in_words}"
    if result.judge_cost and result.judge_cost.over:
        said["judge_cost"] = result.judge_cost.in_words
    return {event: f"{text}; {page}" for event, text in said.items()}


def over(window: Window) -> set[AlertEvent]:
    """The events that a closed window shows to be over, as far as it says anything of them: a score is back where the
    window is ``ok``, a share where it is no longer over its limit."""
    result = window.result
    if result is None:
        return set()
    raised = concerns(window)
    found: set[AlertEvent] = {"suspected", "detected", "misfit"} if result.status == "ok" else set()
    if result.sampled:
        found |= {"unjudged", "unjudged_language", "disliked"}
    if result.drift and not math.isnan(result.drift.score):
        found.add("drift")
    found |= {event for event, share in _shares(result).items() if share.is_back}
    if result.judge_cost:
        found.add("judge_cost")
    return found - set(raised)


_NAMES: dict[AlertEvent, str] = {
    "over_refusal": "over-refusal, as judged,",
    "leak": "leak, as judged,",
    "slow": "the share of answers slower than the limit is",
}


def _shares(result: WindowResult) -> dict[AlertEvent, HeldShare]:
    shares: dict[AlertEvent, HeldShare | None] = {
        "over_refusal": result.over_refusal,
        "leak": result.leak,
        "slow": result.slow,
    }
    return {event: share for event, share in shares.items() if share is not None}


def _of_the_score(result: WindowResult) -> dict[AlertEvent, str]:
    score = f"{result.named_score}, the threshold {result.threshold:g}"
    found: dict[AlertEvent, str] = {}
    if result.status == "detected" and result.chart:
        score += f"; {result.chart.in_words}"
    if result.status in LOW:
        found["suspected"] = score
    if result.status == "detected":
        found["detected"] = score
    if result.unjudged_share > result.most_unjudged:
        found["unjudged"] = f"{result.unjudged_share:.0%} of the records are unjudged"
    # For certain, as a language of few records has a wide interval.
    too_much = {name: share for name, share in result.unjudged_languages.items() if share.low > result.most_unjudged}
    if too_much:
        shares = ", ".join(f"{name} {share.value:.0%} of {share.n:,}" for name, share in too_much.items())
        found["unjudged_language"] = f"unjudged by the language of the question: {shares}"
    if result.is_misfit:
        found["misfit"] = result.unknown_because
    return found


def _drift_in_words(drift: Drift) -> str:
    grown = ", ".join(f"{topic!r} {before:.0%} to {after:.0%}" for topic, before, after in drift.grown)
    return (
        f"other things are asked than in the first healthy windows: distance {drift.distance:.3f} of {drift.n:,} "
        f"questions, the limit {drift.least:g} (p = {drift.score:.2g}, level {drift.level:.2g}); grew most: {grown}"
    )
