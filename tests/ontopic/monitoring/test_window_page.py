"""The page on a window: one number with its reason, tests that agree with the status, and no text as markup."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drawn_pages import assert_inert, text_of
from pages import HOSTILE
from values import replace
from word_judge import CARD, WordJudge, labelled_traffic

from ontopic.config.policy import Policy
from ontopic.monitoring.chart import carried, levels_of, outcomes_of
from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.standing import limits_of
from ontopic.monitoring.thumbs import Thumbs
from ontopic.monitoring.window import Counts, Drift, Window, window_result
from ontopic.monitoring.window_page import window_report
from ontopic.records import Judged, Record
from ontopic.statistics.rates import Rate, rate

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def judged(passes: int, fails: int, *, text: str = "", hour: int = 0, version: str = "1") -> Judged:
    records = [
        Record(
            question=f"Question {i}? {text}",
            answer=f"{answer} {text}",
            id=f"{hour}-{i}",
            model_version=version,
            asked_at=NOON + timedelta(hours=hour, seconds=i),
        )
        for i, answer in enumerate(["good"] * passes + ["bad"] * fails)
    ]
    return Judged(records=records, verdicts=WordJudge().judge(records))


def closed(policy: Policy, traffic: Judged, *, hour: int = 0, labels: bool = False) -> Window:
    """A closed window with its chart, corrected where there are labels."""
    version, n = traffic.records[0].model_version, len(traffic.records)
    result = window_result(
        traffic,
        CARD,
        limits=limits_of(policy),
        counts=Counts(n=n),
        labels=labelled_traffic((93, 100), (95, 100), version=version) if labels else None,
        chart=carried(None, outcomes_of(traffic), since=NOON, levels=levels_of(policy.alert_threshold, CARD)),
    )
    at = NOON + timedelta(hours=hour)
    return Window(
        id=hour,
        model_version=version,
        start=at,
        end=at + timedelta(hours=1),
        state="closed",
        closed_at=at,
        result=result,
    )


def page(policy: Policy, window: Window, traffic: Judged, out: Path, *, earlier: Sequence[Window] = ()) -> str:
    assert window.result
    window_report(policy, window, result=window.result, judged=traffic, earlier=earlier, out=out)
    return text_of(out)


def test_a_score_of_one_beside_failures_says_why(banking: Policy, tmp_path: Path) -> None:
    traffic = judged(72, 5)
    window = closed(banking, traffic, labels=True)
    assert window.result and window.result.score.value == 1.0
    text = page(banking, window, traffic, tmp_path / "page.html")
    assert "Version 1 keeps to the subject in 100 % of its answers" in text
    assert "It comes to 1.000 although 5 of 77 answers fail below" in text
    assert "5 that failed otherwise" in text
    assert f"the judge itself passes {rate(72, 77)}" in text and "By 200 labels of this traffic" in text


def test_the_tests_agree_with_the_status(banking: Policy, tmp_path: Path) -> None:
    bad, good = judged(20, 60), judged(78, 2)
    low = page(banking, closed(banking, bad), bad, tmp_path / "low.html")
    assert "✕ Detected Version 1 has drifted: it keeps to the subject in 25 % of its answers" in low
    tests = low.split("Tests, with their margin")[1].split("The records")[0]
    assert tests.count("✕ failed") == 2 and "-0.600" in tests and "value at least 0.85" in tests
    ok = page(banking, closed(banking, good), good, tmp_path / "ok.html")
    assert "✓ Ok" in ok and "✕ failed" not in ok
    few = judged(3, 0)
    unknown = page(banking, closed(banking, few), few, tmp_path / "few.html")
    assert "It is not known where version 1 stands: 3 judged records are fewer than 50" in unknown
    assert "– Unknown" in unknown and "Not held: it is not known where the score stands." in unknown


def test_windows_before_it_are_drawn_where_there_are_some(banking: Policy, tmp_path: Path) -> None:
    traffic = judged(60, 0, hour=2)
    window, earlier = (
        closed(banking, traffic, hour=2),
        [closed(banking, judged(20, 60, hour=h), hour=h) for h in (1, 0)],
    )
    alone = page(banking, window, traffic, tmp_path / "alone.html")
    assert "Guardrail score by window" not in alone and "after each window" not in alone
    among = tmp_path / "among.html"
    text = page(banking, window, traffic, among, earlier=earlier)
    assert "Guardrail score by window" in text and "Evidence that the score has fallen, after each window" in text
    ticks = [text.index(f"{hour}:00:00") for hour in (12, 13, 14)]
    assert ticks == sorted(ticks)
    assert "2 points of under the threshold" in among.read_text() and "1 points of ok" in among.read_text()


def test_what_else_is_known_of_a_window_stands_on_its_page(banking: Policy, tmp_path: Path) -> None:
    traffic = judged(60, 0)
    window = closed(banking, traffic)
    assert window.result
    result = replace(
        window.result,
        n=400,
        late=3,
        too_late=2,
        revision=2,
        drift=Drift(
            score=1e-9, detected=True, grown=[("cards?", 0.1, 0.4)], distance=0.3, level=0.01, n=99, reference=500
        ),
        thumbs=Thumbs(liked=rate(3, 9), since=Rate(value=0.3, low=0.2, high=0.4, n=90), least=0.5),
        beside=[SideScore(name="side", judge_id="", score=rate(0, 0), sampled=9, unjudged=9, cause="down")],
    )
    text = page(banking, replace(window, result=result), traffic, tmp_path / "page.html")
    for said in (
        "400, of which 60 were given to the judge",
        "asked 2026-03-01 12:00:00 to 12:00:59 UTC",
        "3 reopened the window, 2 came after that",
        "reopened for 3 late records",
        "Topics that grew most",
        "cards?",
        "could not be opened",
        "9: down",
        "of the thumbs on its records are up",
        "-0.200",
        "-0.100",
    ):
        assert said in text, said


def test_no_text_of_a_record_or_a_name_is_markup(banking: Policy, tmp_path: Path) -> None:
    traffic = judged(0, 450, text=HOSTILE, version=HOSTILE)
    window = closed(banking, traffic)
    assert window.result
    drift = Drift(score=0.1, detected=False, grown=[(HOSTILE, 0.1, 0.4)], distance=0.3, level=0.01, n=99, reference=500)
    side = SideScore(
        name=HOSTILE, judge_id=HOSTILE, score=rate(1, 2), sampled=9, unjudged=7, cause=HOSTILE, card=HOSTILE
    )
    result = replace(window.result, judge_id=HOSTILE, drift=drift, beside=[side], unknown_because=HOSTILE)
    out = tmp_path / "page.html"
    page(banking, replace(window, result=result), traffic, out)
    assert_inert(out, least=20)
