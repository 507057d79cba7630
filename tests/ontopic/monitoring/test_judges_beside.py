"""Judges beside the one that gates: measured on the same windows, deciding nothing and holding nothing up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loopback import ROOT, ChatServer, Reply
from word_judge import CARD, WordJudge

from ontopic.config.policy import Policy
from ontopic.config.settings import SideJudgeSettings
from ontopic.monitoring import closing, judges_beside
from ontopic.monitoring.alerts import Alerts
from ontopic.monitoring.asked_traffic import close_asked, judge_asked
from ontopic.monitoring.closing import Closer, judge_records
from ontopic.monitoring.judges_beside import JudgesBeside
from ontopic.monitoring.members import is_sampled
from ontopic.monitoring.window import Cut, Window
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore

MODEL = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
N = 40


class OneTopic:
    """Knows no topic but one, in place of the sentence encoder's."""

    id = "one"

    def of(self, questions: list[str]) -> list[str]:
        return ["cards" for _ in questions]


@pytest.fixture
def windows(tmp_path: Path) -> Iterator[WindowStore]:
    with WindowStore(tmp_path / "windows.db", MODEL) as store:
        yield store


@pytest.fixture
def judged(tmp_path: Path, windows: WindowStore) -> Judged:
    """Traffic in one window that is due, which the judge that gates passes."""
    records = [
        Record(question=f"q{i}?", answer="good", id=f"r{i}", model_version="2", asked_at=NOON + i * HOUR / N)
        for i in range(N)
    ]
    cut = Cut(length=HOUR, records=10, lateness=timedelta(0))
    with TrafficStore(tmp_path / "traffic.db", MODEL) as traffic:
        traffic.add_many(records)
        windows.take_in(traffic, cut, now=NOON + HOUR)
        windows.due(cut, NOON + HOUR)
        return judge_records(windows, traffic.records(ids=[r.id for r in records]), judge=WordJudge(), what="w")


@pytest.fixture
def closed(
    banking: Policy, tmp_path: Path, windows: WindowStore, judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Closer, Window]]:
    """That window, closed."""
    monkeypatch.setattr(Closer, "_topics", OneTopic())
    monkeypatch.setattr(closing, "open_registry", lambda *_: SimpleNamespace(promotions=list))
    policy = banking.model_copy(update={"least_records": 1})
    with Alerts(tmp_path / "alerts.db", [], policy="banking") as alerts:
        closer = Closer(policy, Workspace(root=tmp_path), windows=windows, alerts=alerts)
        (window,) = windows.holding([record.id for record in judged.records])
        yield closer, closer.close(window, judged, card=CARD, now=NOON + HOUR).window


Beside = Callable[..., JudgesBeside]


@pytest.fixture
def beside(banking: Policy, tmp_path: Path, windows: WindowStore, chat_server: ChatServer) -> Beside:
    def named(sampling_rate: float = 1.0, **judges: dict[str, Any]) -> JudgesBeside:
        llm = {"kind": "openai", "model": "m", "base_url": chat_server.url, "max_retries": 0}
        sides = []
        for name, changes in judges.items():
            values = {"name": name, "sampling_rate": changes.pop("rate", 1.0), "judge": llm | changes}
            sides.append(SideJudgeSettings.model_validate(values))
        prompts, workspace = ROOT / "configs" / "judge_prompts", Workspace(root=tmp_path)
        return JudgesBeside(
            sides, banking, prompts=prompts, workspace=workspace, windows=windows, sampling_rate=sampling_rate
        )

    return named


def says(server: ChatServer, verdict: str) -> None:
    said = {"explanation": "", "in_scope": True, "declined": False, "verdict": verdict}
    server.reply = lambda _: Reply(json.dumps(said))


def test_each_is_a_column_of_the_window_and_decides_nothing(
    closed: tuple[Closer, Window], judged: Judged, beside: Beside, chat_server: ChatServer, windows: WindowStore
) -> None:
    closer, window = closed
    says(chat_server, "fail")
    measured = beside(rubric={}, naive={"template": "naive"}).add_to(window, judged, closer=closer)
    assert windows.closed(-1) == [measured]
    assert measured.result is not None
    assert window.result is not None
    rubric, naive = measured.result.beside
    assert (rubric.name, rubric.score.value, rubric.score.n, rubric.unjudged) == ("rubric", 0.0, N, 0)
    assert naive.judge_id != rubric.judge_id
    assert measured.result.model_copy(update={"beside": []}) == window.result
    assert rubric.metrics() == {
        "beside_rubric": 0.0,
        "beside_rubric_low": 0.0,
        "beside_rubric_high": rubric.score.high,
        "beside_rubric_n": N,
        "beside_rubric_unjudged": 0,
    }
    page = Path(measured.result.report).read_text()
    assert "Judges beside the one that gates" in page
    assert rubric.judge_id in page


def test_nothing_is_judged_twice(
    closed: tuple[Closer, Window], judged: Judged, beside: Beside, chat_server: ChatServer
) -> None:
    closer, window = closed
    says(chat_server, "pass")
    first = beside(rubric={}).add_to(window, judged, closer=closer)
    assert len(chat_server.requests) == N
    assert beside(rubric={}).add_to(first, judged, closer=closer) == first
    assert len(chat_server.requests) == N


def test_a_judge_that_costs_gets_a_sample_of_the_sample(
    judged: Judged, beside: Beside, chat_server: ChatServer, windows: WindowStore
) -> None:
    says(chat_server, "pass")
    (score,) = beside(0.8, rubric={"rate": 0.5}).measure(judged.records, "w")
    assert score.sampled == sum(is_sampled(r.id, 0.4) for r in judged.records) == len(chat_server.requests) < N / 2 + 5


@pytest.mark.parametrize(
    ("changes", "reply", "cause"),
    [
        ({}, Reply("Incorrect API key", status=401), "asks for a key and OPENAI_API_KEY is not set"),
        ({}, Reply("boom", status=500), "request failed: InternalServerError 500: boom"),
        ({"template": "nowhere"}, Reply(), "nowhere.txt"),
        ({"base_url": "nowhere"}, Reply(), "is not the address of a server"),
    ],
    ids=["no key", "broken", "no prompt", "no address"],
)
def test_one_that_fails_leaves_its_records_unjudged_and_the_others_alone(
    judged: Judged,
    beside: Beside,
    chat_server: ChatServer,
    changes: dict[str, Any],
    reply: Reply,
    cause: str,
) -> None:
    said = json.dumps({"explanation": "", "in_scope": True, "declined": False, "verdict": "pass"})
    chat_server.reply = lambda request: Reply(said) if request["model"] == "other" else reply
    both = beside(rubric=changes, other={"model": "other"})
    failed, other = both.measure(judged.records, "w")
    assert (failed.unjudged, failed.score.n) == (N, 0)
    assert cause in failed.cause
    assert f"no record was judged; {N} unjudged: " in failed.in_words
    assert (other.unjudged, other.score.value) == (0, 1.0)
    assert "beside_rubric" not in failed.metrics()
    assert failed.metrics()["beside_rubric_unjudged"] == N


def test_one_that_judged_nothing_rests_before_it_is_asked_again(
    judged: Judged,
    beside: Beside,
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat_server.reply = lambda _: Reply("boom", status=500)
    judges = beside(rubric={})
    judges.measure(judged.records, "w")
    asked = len(chat_server.requests)
    (resting,) = judges.measure(judged.records, "w")
    assert (len(chat_server.requests), resting.unjudged) == (asked, N)
    assert "boom" in resting.cause
    says(chat_server, "pass")
    now = judges_beside.time.monotonic()
    monkeypatch.setattr(judges_beside.time, "monotonic", lambda: now + 601)
    assert judges.measure(judged.records, "w")[0].unjudged == 0


def test_the_loops_report_has_a_column_for_each(
    closed: tuple[Closer, Window], judged: Judged, beside: Beside, chat_server: ChatServer, tmp_path: Path
) -> None:
    closer, _ = closed
    says(chat_server, "fail")
    asked = [
        Record(
            question=f"q{i}?",
            answer="good",
            id=f"asked{i}",
            registered_model=MODEL,
            model_version="2",
            asked_at=NOON + 5 * HOUR + i * HOUR / N,
        )
        for i in range(12)
    ]
    judged = judge_asked(closer.windows, asked, judge=WordJudge(), window_records=6)
    monitored = close_asked(
        judged,
        CARD,
        closer=closer,
        window_records=6,
        reports=tmp_path / "reports",
        now=NOON + 9 * HOUR,
        beside=beside(rubric={}),
    )
    assert [(side.name, side.score.n, side.score.value) for side in monitored.beside] == [("rubric", 12, 0.0)]
    assert [[side.score.n for side in w.result.beside] for w in monitored.windows if w.result] == [[6], [6]]
    assert len(chat_server.requests) == 12
    heads = re.findall(r"<th [^>]*>([^<]*)</th>", monitored.report.read_text())
    assert heads[(at := heads.index("Window")) : at + 2] == ["Window", "Status"] and "rubric" in heads[at:]


def test_old_verdicts_are_forgotten_with_the_windows(
    judged: Judged, beside: Beside, chat_server: ChatServer, windows: WindowStore
) -> None:
    says(chat_server, "pass")
    (score,) = beside(rubric={}).measure(judged.records, "w")
    windows.forget([f"r{i}" for i in range(N // 2)])
    left = windows.beside.verdicts([record.id for record in judged.records], score.judge_id)
    assert sorted(left) == sorted(f"r{i}" for i in range(N // 2, N))
