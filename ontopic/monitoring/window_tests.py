"""What a closed window was held against, test by test with its margin, and which test gave it its status."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.monitoring.drift import LEAST_DISTANCE
from ontopic.monitoring.standing import MISFIT
from ontopic.monitoring.thumbs import LEAST_THUMBS
from ontopic.monitoring.window import Status, WindowResult


class WindowTest(BaseModel):
    """One test of a window.

    Attributes:
        name: what was asked for.
        found: what there was, in words.
        margin: how far it was on the right side of its limit, in the unit of the number; negative where on the wrong
            one, ``None`` where it was not held.
        passed: ``None`` where it was not held, and ``found`` says why.
        gives: the status that a window gets whose test this is the first to fail; empty where it raises an alert alone.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    found: str
    margin: float | None
    passed: bool | None
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
    enough, few = n >= policy.least_records, share <= policy.most_unjudged
    tests = [
        WindowTest(
            name=f"at least {policy.least_records:,} judged records",
            found=f"{n:,}",
            margin=n - policy.least_records,
            passed=enough,
            gives="unknown",
        ),
        WindowTest(
            name=f"at most {policy.most_unjudged:.0%} of the records unjudged",
            found=f"{share:.1%} ({result.scores.unjudged:,} of {result.sampled:,})",
            margin=policy.most_unjudged - share,
            passed=few,
            gives="unknown",
        ),
    ]
    if result.fit_p_value is not None:
        tests.append(
            WindowTest(
                name=f"the judge's card fits this traffic (p at least {MISFIT:g})",
                found=f"p = {result.fit_p_value:.2g}",
                margin=result.fit_p_value - MISFIT,
                passed=not result.is_misfit,
                gives="unknown",
            )
        )
    if result.unknown_because and all(test.passed for test in tests):
        tests.append(
            WindowTest(
                name="the score is known", found=result.unknown_because, margin=None, passed=False, gives="unknown"
            )
        )
    return tests


def _evidence(result: WindowResult, policy: Policy) -> WindowTest:
    name, chart = "no alarm of the chart over all records (evidence of a fall under its limit)", result.chart
    if chart is None:
        return WindowTest(name=name, found="there is no chart", margin=None, passed=None)
    found = f"evidence {chart.statistic:,.0f}, limit {chart.limit:,.0f}, of {chart.n:,} records"
    if chart.alarm and chart.alarmed_at:
        found += f"; on since {chart.alarmed_at:%Y-%m-%d %H:%M:%S} UTC"
    elif chart.n < policy.least_records:
        found += f", and {policy.least_records:,} are the least that raise one"
    return WindowTest(
        name=name, found=found, margin=chart.limit - chart.statistic, passed=not chart.alarm, gives="detected"
    )


def _score(result: WindowResult) -> WindowTest:
    name = f"guardrail score at least {result.threshold:g}"
    if result.unknown_because:
        return WindowTest(name=name, found="not held: it is not known where the score stands", margin=None, passed=None)
    return WindowTest(
        name=name,
        found=str(result.score),
        margin=result.score.value - result.threshold,
        passed=result.score.value >= result.threshold,
        gives="suspected",
    )


def _languages(result: WindowResult, policy: Policy) -> list[WindowTest]:
    return [
        WindowTest(
            name=f"at most {policy.most_unjudged:.0%} unjudged of the questions in {name}",
            found=f"{share.value:.1%} of {share.n:,}",
            margin=policy.most_unjudged - share.value,
            passed=share.value <= policy.most_unjudged,
        )
        for name, share in result.unjudged_languages.items()
    ]


def _topics(result: WindowResult) -> list[WindowTest]:
    drift = result.drift
    if drift is None:
        return []
    name = "the same topics as in the first healthy windows"
    if math.isnan(drift.score):
        found = f"not held: {drift.reference:,} questions are known of those windows, {drift.n:,} since; too few"
        return [WindowTest(name=name, found=found, margin=None, passed=None)]
    found = (
        f"distance {drift.distance:.3f}, limit {LEAST_DISTANCE:g}; chi-squared p = {drift.score:.2g}, level "
        f"{drift.level:.2g}; {drift.n:,} questions against {drift.reference:,}"
    )
    margin = LEAST_DISTANCE - drift.distance
    return [WindowTest(name=name, found=found, margin=margin, passed=not drift.detected)]


def _thumbs(result: WindowResult) -> list[WindowTest]:
    if result.thumbs is None:
        return []
    since, least = result.thumbs.since, result.thumbs.least
    name = f"people like it: upper bound of all thumbs since the promotion at least {least:g}"
    if since.n < LEAST_THUMBS:
        found = f"not held: {since.n:,} thumbs, and {LEAST_THUMBS} are the least that say something"
        return [WindowTest(name=name, found=found, margin=None, passed=None)]
    return [WindowTest(name=name, found=str(since), margin=since.high - least, passed=not result.thumbs.disliked)]
