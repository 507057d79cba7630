"""Judges in Evidently reports of a user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from chats import bank_chat
from loopback import ROOT, ChatServer, Reply

from ontopic.config.settings import EndpointSettings
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.bridges.evidently import JudgeDescriptor, register_provider
from ontopic.progress import Advance
from ontopic.records import Record, Verdict

# isort: split
from evidently import DataDefinition, Dataset, Report
from evidently.descriptors import LLMEval
from evidently.llm.templates import BinaryClassificationPromptTemplate
from evidently.llm.utils.errors import LLMRequestError
from evidently.llm.utils.wrapper import _wrappers
from evidently.presets import TextEvals

ROWS = pd.DataFrame(
    {"question": ["q1", "q2", "q3"], "answer": ["a card", "a <b>loan</b>", None]}, index=["first", "second", "third"]
)
COLUMNS = DataDefinition(text_columns=["question", "answer"])


@dataclass
class WordJudge:
    """Passes an answer that says "card"; cannot judge an empty one."""

    id: str = "local-word"
    account: Account = field(default_factory=Account)

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        return [self.verdict(record) for record in records]

    def verdict(self, record: Record) -> Verdict:
        if not record.answer:
            return Verdict(
                outcome="unjudged", score=None, explanation="", judge_id=self.id, cause="the answer is empty"
            )
        passes = "card" in record.answer
        return Verdict(
            outcome="pass" if passes else "fail",
            score=float(passes),
            explanation="A word.",
            judge_id=self.id,
            in_scope=True,
            declined=not passes,
        )


@pytest.fixture
def settings(chat_server: ChatServer) -> Iterator[EndpointSettings]:
    """Of an endpoint that Evidently knows for the length of a test."""
    made = EndpointSettings(model="judge-model", base_url=chat_server.url, max_retries=1, concurrency=2)
    register_provider(made)
    yield made
    _wrappers.pop(("ontopic", "judge-model"))


def llm_eval() -> LLMEval:
    template = BinaryClassificationPromptTemplate(
        criteria="The text is about bank cards.",
        target_category="ON",
        non_target_category="OFF",
        include_reasoning=True,
    )
    return LLMEval("answer", template=template, provider="ontopic", model="judge-model", alias="on cards")


def test_a_judge_is_a_descriptor_of_a_report(tmp_path: Path) -> None:
    dataset = Dataset.from_pandas(ROWS, COLUMNS, descriptors=[JudgeDescriptor(WordJudge())])
    frame = dataset.as_dataframe()
    assert list(frame.index) == ["first", "second", "third"]
    assert frame["verdict"].tolist() == ["pass", "fail", "unjudged"]
    assert frame["score"].fillna(-1).tolist() == [1.0, 0.0, -1.0]
    assert frame["in_scope"].tolist() == ["yes", "yes", "unknown"]
    assert frame["declined"].tolist() == ["no", "yes", "unknown"]
    assert frame["cause"].tolist() == [None, None, "the answer is empty"]
    Report([TextEvals()]).run(dataset, None).save_html(str(page := tmp_path / "report.html"))
    html = page.read_text()
    assert "verdict" in html
    assert "unjudged" in html


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS.rename(columns={"answer": "response"}), "no column 'answer'"),
        (ROWS.assign(score=1.0), "a column 'score' already"),
    ],
)
def test_a_data_set_that_does_not_fit_is_a_user_error(rows: pd.DataFrame, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Dataset.from_pandas(rows, descriptors=[JudgeDescriptor(WordJudge())])


def test_an_endpoint_is_a_provider_for_evidentlys_own_llm_judges(
    chat_server: ChatServer, settings: EndpointSettings, tmp_path: Path
) -> None:
    def reply(request: dict[str, list[dict[str, str]]]) -> Reply:
        if len(chat_server.requests) == 1:
            return Reply(status=429, headers={"Retry-After": "0.01"})
        about_cards = re.search(r"starts_here___\s*a card", request["messages"][-1]["content"])
        return Reply(json.dumps({"category": "ON" if about_cards else "OFF", "reasoning": "A word."}))

    chat_server.reply = reply  # type: ignore[assignment]
    dataset = Dataset.from_pandas(ROWS.head(2), COLUMNS, descriptors=[llm_eval()])
    assert dataset.as_dataframe()["on cards"].tolist() == ["ON", "OFF"]
    assert dataset.as_dataframe()["on cards reasoning"].tolist() == ["A word.", "A word."]
    assert len(chat_server.requests) == 3
    assert all(request["model"] == "judge-model" and request["temperature"] == 0 for request in chat_server.requests)
    Report([TextEvals()]).run(dataset, None).save_html(str(page := tmp_path / "report.html"))
    assert "on cards" in page.read_text()


def test_a_judge_and_an_llm_eval_stand_in_one_report(chat_server: ChatServer, settings: EndpointSettings) -> None:
    chat_server.reply = lambda request: Reply(json.dumps({"category": "ON", "reasoning": "A word."}))
    dataset = Dataset.from_pandas(ROWS, COLUMNS, descriptors=[JudgeDescriptor(WordJudge()), llm_eval()])
    assert {"verdict", "on cards"} <= set(dataset.as_dataframe().columns)


def test_the_documentations_snippet_runs(
    chat_server: ChatServer, settings: EndpointSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chat_server.reply = lambda request: Reply(json.dumps({"category": "POLITE"}))
    snippet = re.search(
        r"## In Evidently\n.*?```python\n(.*?)```", (ROOT / "docs" / "reference" / "judges.md").read_text(), re.DOTALL
    )
    assert snippet
    exec(snippet[1], {"judge": WordJudge(), "settings": settings, "frame": ROWS})  # noqa: S102
    page = (tmp_path / "report.html").read_text()
    assert "verdict" in page
    assert "politeness" in page


def test_a_request_that_fails_for_good_is_evidentlys_error(chat_server: ChatServer, settings: EndpointSettings) -> None:
    chat_server.reply = lambda request: Reply(status=500, headers={"Retry-After": "0.01"})
    with pytest.raises(LLMRequestError, match="request failed: InternalServerError 500"):
        Dataset.from_pandas(ROWS.head(1), COLUMNS, descriptors=[llm_eval()])


def test_without_an_api_key_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        register_provider(EndpointSettings(model="no-key"))
    assert ("ontopic", "no-key") not in _wrappers


def test_a_row_may_hold_the_whole_conversation() -> None:
    seen = list[Record]()

    class Noting(WordJudge):
        def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
            seen.extend(records)
            return super().judge(records)

    record = bank_chat(answer="a card")
    sent = [record.request, json.dumps(record.request), None]
    rows = pd.DataFrame({"question": [record.question] * 3, "answer": ["a card"] * 3, "messages": sent})
    Dataset.from_pandas(rows, COLUMNS, descriptors=[JudgeDescriptor(Noting())])
    assert seen == [record, record, Record(question=record.question, answer="a card")]
    for wrong in ("[", 7, [{"role": "bot", "content": "a"}], ["a"]):
        with pytest.raises(UserError, match="row 1 of the data set: 'messages' is no list of messages"):
            Dataset.from_pandas(
                pd.DataFrame({"question": ["q"], "answer": ["a"], "messages": [wrong]}),
                COLUMNS,
                descriptors=[JudgeDescriptor(Noting())],
            )
