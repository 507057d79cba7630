"""What a closed window was held against, test by test with its margin, and which test gave it its status."""

from __future__ import annotations

import math

from ontopic.config.policy import Policy
from ontopic.monitoring.chart import Chart
from ontopic.monitoring.standing import MISFIT, Standing, WindowLimits, limits_of
from ontopic.monitoring.thumbs import LEAST_THUMBS
from ontopic.monitoring.window import Status, WindowResult
from ontopic.reports.parts import TestRow
from ontopic.statistics.scores import Scores


class WindowTest(TestRow):
    """One test of a window; ``passed`` is ``None`` where it was not held, and the sentence says why.

    Attributes:
        gives: the status that a window gets where it fails; ``None`` where it raises an alert alone.
    """

    measured: int | float | None = None
    limit: int | float | None = None
    gives: Status | None = None


def window_tests(result: WindowResult, policy: Policy) -> list[WindowTest]:
    """The tests of a window, those first that give a status."""
    limits = limits_of(policy).model_copy(update={"threshold": result.threshold})
    return [
        *stretch_tests(result, result.scores, limits=limits, chart=result.chart),
        *_languages(result, policy),
        *_topics(result),
        *_thumbs(result),
    ]


def stretch_tests(of: Standing, scores: Scores, *, limits: WindowLimits, chart: Chart | None) -> list[WindowTest]:
    """The tests of a stretch of traffic that give it a status.

    Args:
        of: what is known of its guardrail score.
        chart: after its last window.
    """
    return [*_known(of, scores, limits=limits), _evidence(chart, limits), _score(of, limits)]


def status_by(tests: list[WindowTest], *, allows_alarm: bool) -> Status:
    """The status that these tests give: what ``status_of`` gives, read off the page.

    Args:
        allows_alarm: of the window's ``Standing``.
    """
    failed = {test.gives for test in tests if test.passed is False}
    if "unknown" in failed and not (allows_alarm and "detected" in failed):
        return "unknown"
    return next((status for status in ("detected", "suspected") if status in failed), "ok")


def _known(of: Standing, scores: Scores, *, limits: WindowLimits) -> list[WindowTest]:
    """Whether it is known where the score stands."""
    n, unjudged = of.score.n, scores.unjudged
    share = unjudged / (n + unjudged) if unjudged else 0.0
    tests = [
        WindowTest(
            name="Judged records",
            passed=n >= limits.least_records,
            sentence=f"{n:,} records were judged, and {limits.least_records:,} are the least that say something.",
            measured=n,
            bound="value",
            relation="at least",
            limit=limits.least_records,
            gives="unknown",
        ),
        WindowTest(
            name="Share of the records that is unjudged",
            passed=share <= limits.most_unjudged,
            sentence=f"{unjudged:,} of {n + unjudged:,} ({share:.1%}): what the judge cannot judge may be what fails.",
            measured=share,
            bound="value",
            relation="at most",
            limit=limits.most_unjudged,
            gives="unknown",
        ),
    ]
    if of.fit_p_value is not None:
        tests.append(
            WindowTest(
                name="The judge's card fits this traffic (p-value)",
                passed=of.fit_p_value >= MISFIT,
                sentence=f"p = {of.fit_p_value:.2g} of a share of passes so extreme, whatever the true score.",
                measured=of.fit_p_value,
                bound="value",
                relation="at least",
                limit=MISFIT,
                gives="unknown",
            )
        )
    if of.unknown_because and all(test.passed for test in tests):
        because = f"Unknown: {of.unknown_because}."
        tests.append(WindowTest(name="The score is known", passed=False, sentence=because, gives="unknown"))
    return tests


def _evidence(chart: Chart | None, limits: WindowLimits) -> WindowTest:
    name = "Evidence of a fall over all records, in limits of the alarm"
    if chart is None:
        return WindowTest(name=name, passed=None, sentence="Not held: there is no chart.")
    sentence = f"{chart.in_words}."
    if chart.alarm and chart.alarmed_at:
        sentence += (
            f" The alarm is on since {chart.alarmed_at:%Y-%m-%d %H:%M:%S} UTC, until something is done about it or the "
            "evidence falls to a hundredth of the limit."
        )
    elif chart.n < limits.least_records:
        sentence += f" Before {limits.least_records:,} records no alarm is raised."
    share = chart.statistic / chart.limit if chart.limit else 0.0
    test = WindowTest(name=name, passed=not chart.alarm, sentence=sentence, gives="detected")
    if chart.alarm != (share >= 1):  # on from before, or too early for one: the evidence alone does not decide
        return test
    return test.model_copy(update={"measured": share, "bound": "value", "relation": "at most", "limit": 1.0})


def _score(of: Standing, limits: WindowLimits) -> WindowTest:
    if of.unknown_because:
        sentence = "Not held: it is not known where the score stands."
        return WindowTest(name="Guardrail score", passed=None, sentence=sentence)
    kind = "corrected" if of.is_corrected else "uncorrected"
    return WindowTest(
        name="Guardrail score",
        passed=of.score.value >= limits.threshold,
        sentence=f"{of.score}, {kind}; under the threshold a window is suspected.",
        measured=of.score.value,
        bound="value",
        relation="at least",
        limit=limits.threshold,
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
    if drift.detected != (drift.distance >= drift.least):  # far, and yet no more than chance makes of so few
        return [WindowTest(name=name, passed=not drift.detected, sentence=sentence)]
    return [
        WindowTest(
            name=name,
            passed=not drift.detected,
            sentence=sentence,
            measured=drift.distance,
            bound="value",
            relation="at most",
            limit=drift.least,
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
