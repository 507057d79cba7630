"""What a closed window was held against, test by test with its margin, and which test gave it its status."""

from __future__ import annotations

import math

from ontopic.config.policy import Policy
from ontopic.monitoring.drift import LEAST_DISTANCE
from ontopic.monitoring.standing import MISFIT
from ontopic.monitoring.thumbs import LEAST_THUMBS
from ontopic.monitoring.window import Status, WindowResult
from ontopic.reports.parts import TestRow


class WindowTest(TestRow):
    """One test of a window; ``passed`` is ``None`` where it was not held, and the sentence says why.

    Attributes:
        gives: the status that a window gets where it fails; ``None`` where it raises an alert alone.
    """

    measured: int | float | None = None
    gives: Status | None = None


def window_tests(result: WindowResult, policy: Policy) -> list[WindowTest]:
    """The tests of a window, those first that give a status."""
    return [
        *_known(result, policy),
        _evidence(result, policy),
        _score(result),
        *_languages(result, policy),
        *_topics(result),
        *_thumbs(result),
    ]


def status_by(tests: list[WindowTest], *, allows_alarm: bool) -> Status:
    """The status that these tests give: what ``status_of`` gives, read off the page.

    Args:
        allows_alarm: of the window's ``Standing``.
    """
    failed = {test.gives for test in tests if test.passed is False}
    if "unknown" in failed and not (allows_alarm and "detected" in failed):
        return "unknown"
    return next((status for status in ("detected", "suspected") if status in failed), "ok")


def _known(result: WindowResult, policy: Policy) -> list[WindowTest]:
    """Whether it is known where the score stands."""
    n, share = result.score.n, result.unjudged_share
    tests = [
        WindowTest(
            name="Judged records",
            passed=n >= policy.least_records,
            sentence=f"{n:,} records were judged, and {policy.least_records:,} are the least that say something.",
            measured=n,
            bound="value",
            relation="at least",
            limit=policy.least_records,
            gives="unknown",
        ),
        WindowTest(
            name="Share of the records that is unjudged",
            passed=share <= policy.most_unjudged,
            sentence=f"{result.scores.unjudged:,} of {result.sampled:,} ({share:.1%}): what the judge cannot judge may "
            "be what fails.",
            measured=share,
            bound="value",
            relation="at most",
            limit=policy.most_unjudged,
            gives="unknown",
        ),
    ]
    if result.fit_p_value is not None:
        tests.append(
            WindowTest(
                name="The judge's card fits this traffic (p-value)",
                passed=not result.is_misfit,
                sentence=f"p = {result.fit_p_value:.2g} of a share of passes so extreme, whatever the true score.",
                measured=result.fit_p_value,
                bound="value",
                relation="at least",
                limit=MISFIT,
                gives="unknown",
            )
        )
    if result.unknown_because and all(test.passed for test in tests):
        because = f"Unknown: {result.unknown_because}."
        tests.append(WindowTest(name="The score is known", passed=False, sentence=because, gives="unknown"))
    return tests


def _evidence(result: WindowResult, policy: Policy) -> WindowTest:
    name, chart = "Evidence of a fall over all records, in limits of the alarm", result.chart
    if chart is None:
        return WindowTest(name=name, passed=None, sentence="Not held: there is no chart.")
    sentence = f"{chart.in_words}."
    if chart.alarm and chart.alarmed_at:
        sentence += (
            f" The alarm is on since {chart.alarmed_at:%Y-%m-%d %H:%M:%S} UTC, until something is done about it or the "
            "evidence falls to a hundredth of the limit."
        )
    elif chart.n < policy.least_records:
        sentence += f" Before {policy.least_records:,} records no alarm is raised."
    share = chart.statistic / chart.limit
    if chart.alarm == (share >= 1):
        held = {"measured": share, "bound": "value", "relation": "at most", "limit": 1.0}
    else:  # on from before, or too early for one: the evidence alone does not decide
        held = {}
    return WindowTest(name=name, passed=not chart.alarm, sentence=sentence, gives="detected", **held)


def _score(result: WindowResult) -> WindowTest:
    if result.unknown_because:
        sentence = "Not held: it is not known where the score stands."
        return WindowTest(name="Guardrail score", passed=None, sentence=sentence)
    return WindowTest(
        name="Guardrail score",
        passed=result.score.value >= result.threshold,
        sentence=f"The {result.named_score}; under the threshold a window is suspected.",
        measured=result.score.value,
        bound="value",
        relation="at least",
        limit=result.threshold,
        gives="suspected",
    )


def _languages(result: WindowResult, policy: Policy) -> list[WindowTest]:
    return [
        WindowTest(
            name=f"Share that is unjudged of the questions in {name}",
            passed=share.value <= policy.most_unjudged,
            sentence=f"{share}, with windows before this one where it has few.",
            measured=share.value,
            bound="value",
            relation="at most",
            limit=policy.most_unjudged,
        )
        for name, share in result.unjudged_languages.items()
    ]


def _topics(result: WindowResult) -> list[WindowTest]:
    drift, name = result.drift, "Distance of the topics from those of the first healthy windows"
    if drift is None:
        return []
    if math.isnan(drift.score):
        sentence = (
            f"Not held: too few questions are known, {drift.reference:,} of the first healthy windows and {drift.n:,} "
            "since."
        )
        return [WindowTest(name=name, passed=None, sentence=sentence)]
    sentence = (
        f"{drift.n:,} questions against {drift.reference:,}: chi-squared, p = {drift.score:.3g}, level "
        f"{drift.level:.2g}; distance {drift.distance:.3f}. They differ where p is under the level and the distance at "
        "least its limit."
    )
    if drift.detected != (drift.distance >= LEAST_DISTANCE):  # far, and yet no more than chance makes of so few
        return [WindowTest(name=name, passed=not drift.detected, sentence=sentence)]
    return [
        WindowTest(
            name=name,
            passed=not drift.detected,
            sentence=sentence,
            measured=drift.distance,
            bound="value",
            relation="at most",
            limit=LEAST_DISTANCE,
        )
    ]


def _thumbs(result: WindowResult) -> list[WindowTest]:
    if result.thumbs is None:
        return []
    since, least = result.thumbs.since, result.thumbs.least
    name = "Thumbs that are up, of all since the promotion"
    if since.n < LEAST_THUMBS:
        sentence = f"Not held: {since.n:,} thumbs, and {LEAST_THUMBS} are the least that say something."
        return [WindowTest(name=name, passed=None, sentence=sentence)]
    return [
        WindowTest(
            name=name,
            passed=not result.thumbs.disliked,
            sentence=f"{since}, a confidence sequence that may be read at every window.",
            measured=since.high,
            bound="high",
            relation="at least",
            limit=least,
        )
    ]
