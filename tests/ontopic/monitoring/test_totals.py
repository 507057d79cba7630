"""What a window adds up to by the page: the same as at once, and of bounded memory where it is large."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from word_judge import CARD, LIMITS, WordJudge, labelled_traffic

from ontopic.monitoring import members
from ontopic.monitoring.chart import carried, levels_of, outcomes_of
from ontopic.monitoring.closing import judge_pages
from ontopic.monitoring.held_shares import held, shares_of
from ontopic.monitoring.standing import standing
from ontopic.monitoring.totals import add_up
from ontopic.monitoring.window import Counts, Cut, window_result
from ontopic.monitoring.windows import WindowStore
from ontopic.records import EARLIEST, Judged, Record, Verdict
from ontopic.statistics.scores import score
from ontopic.traffic.store import TrafficStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def judged(n: int, of_one_chat: int = 4) -> Judged:
    """Records in conversations that fail together, some out of scope, some unjudged, some slow."""
    records, verdicts = [], []
    for i in range(n):
        chat = i // of_one_chat
        fails, inside = chat % 5 == 0, chat % 3 > 0
        records.append(
            Record(
                question="How do I pay?" if chat % 2 else "Wie zahle ich?",
                answer="a",
                id=f"r{i}",
                model_version="1",
                asked_at=NOON + timedelta(seconds=i),
                conversation=f"chat {chat}" if of_one_chat > 1 else "",
                latency_s=9.0 if i % 7 == 0 else 1.0,
                prompt_tokens=i % 11,
                completion_tokens=3,
            )
        )
        verdicts.append(
            Verdict(
                outcome="unjudged" if i % 50 == 0 else "fail" if fails else "pass",
                score=None,
                explanation="",
                judge_id="words",
                in_scope=inside,
                declined=fails == inside,
            )
        )
    return Judged(records=records, verdicts=verdicts)


def pages_of(whole: Judged, size: int) -> Iterator[Judged]:
    for start in range(0, len(whole.records), size):
        part = slice(start, start + size)
        yield Judged(records=whole.records[part], verdicts=whole.verdicts[part])


def test_by_the_page_it_is_the_same_as_at_once() -> None:
    whole = judged(1000)
    labels = labelled_traffic()
    known = [label.model_copy(update={"record_id": f"r{i}"}) for i, label in enumerate(labels.records[:40])]
    labels = labels.model_copy(update={"records": [*known, *labels.records[40:]]})
    ids = {label.record_id for label in labels.records}
    totals = add_up(pages_of(whole, 7), labelled=ids, slow_after_s=5.0)
    assert totals.scores == score(whole.verdicts)
    assert (totals.kept, totals.n, totals.slow) == (whole, 1000, 143)
    results = [
        window_result(each, CARD, limits=LIMITS, counts=Counts(n=1000), labels=labels) for each in (whole, totals)
    ]
    assert results[0] == results[1]
    assert results[0].described == results[0].sampled == 1000
    levels = levels_of(0.9, None)
    by_page = carried(None, (), since=EARLIEST, levels=levels)
    for page in pages_of(whole, 7):
        by_page = carried(by_page, outcomes_of(page), since=EARLIEST, levels=levels)
    assert by_page == carried(None, outcomes_of(whole), since=EARLIEST, levels=levels)


@pytest.mark.parametrize("of_one_chat", [1, 4])
def test_of_a_large_one_all_is_counted_and_whole_conversations_are_kept(of_one_chat: int) -> None:
    whole = judged(4000, of_one_chat)
    totals, exact = add_up(pages_of(whole, 100), most=800), add_up([whole], most=4000)
    assert 300 <= len(totals.kept.records) <= 800
    assert totals.model_dump(exclude={"kept"}) == exact.model_dump(exclude={"kept"})
    kept = {record.id for record in totals.kept.records}
    chats = {record.conversation or record.id for record in totals.kept.records}
    assert kept == {record.id for record in whole.records if (record.conversation or record.id) in chats}
    assert [r.asked_at for r in totals.kept.records] == sorted(r.asked_at for r in totals.kept.records if r.asked_at)
    for labels in (None, labelled_traffic()):
        few, all_ = (standing(each, CARD, limits=LIMITS, labels=labels, version="1").score for each in (totals, exact))
        assert (few.value, few.n) == pytest.approx((all_.value, all_.n))
        assert few.high - few.low == pytest.approx(all_.high - all_.low, rel=0.3)  # the design effect is an estimate
    for name, share in totals.shares.items():
        few, all_ = (
            held(*shares_of(of.kept, slow_after_s=None)[name], most=0.1, level=0.01, of_all=share).share
            for of in (totals, exact)
        )
        assert few.value == pytest.approx(all_.value, abs=0.02)
        assert few.n == pytest.approx(all_.n, rel=0.4)
    result = window_result(totals, CARD, limits=LIMITS, counts=Counts(n=5000))
    assert (result.sampled, result.described) == (4000, len(kept))


def test_one_conversation_of_all_records_is_bounded_too() -> None:
    assert len(add_up([judged(500, 500)], most=100).kept.records) <= 100


def test_pages_of_members_leave_nothing_out_and_repeat_nothing(
    tables_at: Path | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "PAGE", 7)
    beside = tables_at.with_name("traffic.db") if isinstance(tables_at, Path) else tables_at
    cut = Cut(length=timedelta(hours=1), records=0, lateness=timedelta(0))
    with TrafficStore(beside, "m") as traffic, WindowStore(tables_at, "m") as windows:
        traffic.add_many(
            Record(question="q?", answer="good" if i % 3 else "bad", id=f"r{i:03}", model_version="1", asked_at=at)
            for i in range(98)
            for at in [NOON + timedelta(seconds=i // 10)]  # ten of one time
        )
        windows.take_in(traffic, cut, now=NOON + timedelta(hours=2))
        (window,) = windows.due(cut, NOON + timedelta(hours=2))
        ids = [f"r{i:03}" for i in range(98)]
        assert windows.ids(window) == ids
        assert [len(page) for page in windows.id_pages(window)] == [7] * 14
        judge = WordJudge()
        pages = map(traffic.records, windows.id_pages(window))
        totals = add_up(judge_pages(windows, pages, judge=judge, what="a window", n=98))
        assert (judge.asked, totals.n, totals.passes) == (ids, 98, 65)
        again = add_up(
            judge_pages(windows, map(traffic.records, windows.id_pages(window)), judge=judge, what="w", n=98)
        )
        assert (len(judge.asked), again) == (98, totals)
        closed = windows.close_window(
            window, window_result(totals, CARD, limits=LIMITS, counts=windows.counts(window)), now=NOON
        )
        assert [passed for _, passed in windows.outcomes(closed) or ()] == [i % 3 > 0 for i in range(98)]
        monkeypatch.setattr("ontopic.monitoring.windows.MOST_KEPT", 20)
        some = windows.judged([closed], traffic)
        assert len(some.records) == 20
        assert some == windows.judged([closed], traffic)
