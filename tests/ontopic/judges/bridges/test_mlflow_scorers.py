"""LLM judges as scorers that MLflow keeps, in a real tracking database, asked of a real server on loopback."""

from __future__ import annotations

import json

import pytest
from graders import PROMPTS
from loopback import ChatServer, Reply
from mlflow.genai.scorers import get_scorer, list_scorers

from ontopic.config.policy import Policy
from ontopic.config.settings import LLMJudgeSettings
from ontopic.judges.bridges.mlflow_scorers import register_scorers
from ontopic.judges.cards.card import JudgeCard, judge_card
from ontopic.judges.llm.judge import LLMJudge
from ontopic.judges.llm.templates import load_template
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> str:
    return open_tracking(open_workspace(tmp_path_factory.mktemp("state")), "ontopic-banking")


def asked(judge: LLMJudge) -> tuple[LLMJudge, JudgeCard]:
    return judge, judge_card(judge.id, [], verdicts=[])


def judge_of(server: ChatServer, policy: Policy, model: str = "org/judge,1") -> LLMJudge:
    settings = LLMJudgeSettings(kind="openai", model=model, base_url=server.url)
    return LLMJudge(settings, load_template(PROMPTS / "rubric.txt", "single"), policy=policy)


def test_a_judge_is_registered_once_and_again_where_it_changes(
    tracked: str, chat_server: ChatServer, banking: Policy
) -> None:
    judge = judge_of(chat_server, banking)
    for _ in range(2):
        assert register_scorers([asked(judge)]) == ["rubric by org/judge-1"]
    assert get_scorer(name="rubric by org/judge-1")._scorer_version == 1
    register_scorers([asked(judge_of(chat_server, banking.model_copy(update={"definition": "Only {{ cards }}."})))])
    (newest,) = list_scorers()
    assert newest._scorer_version == 2
    assert banking.subject in newest.instructions and "Only { { cards }}." in newest.instructions
    assert judge.id not in newest.description and "there is no card" in newest.description


def test_mlflow_asks_the_same_model_and_takes_its_verdict(
    tracked: str, chat_server: ChatServer, banking: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")  # which is opened for a server without TLS too
    monkeypatch.setenv("OPENAI_API_KEY", "key of the test")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    register_scorers([asked(judge_of(chat_server, banking, "used"))])
    chat_server.reply = lambda request: Reply(json.dumps({"rationale": "Because.", "result": "no"}))
    kept = get_scorer(name="rubric by used")
    said = kept(inputs={"question": "Who won?"}, outputs="Nobody.")
    assert (said.value, said.rationale) == ("no", "Because.")
    (request,) = chat_server.requests
    sent = json.dumps(request)
    assert request["model"] == "used" and banking.subject in sent and "Who won?" in sent and "Nobody." in sent
