"""What the service writes down of a request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import smol
from transformers import AutoTokenizer

from ontopic.models.loading import LanguageModel, open_model
from ontopic.records import Record
from ontopic.traffic.identity import user_hash
from ontopic.traffic.store import TrafficStore
from serving.errors import RequestError
from serving.keys import KeyStore
from serving.process import ServedModel
from serving.prompts import Prompts

QUESTION = {"role": "user", "content": "How do I open a savings account?"}


@dataclass(frozen=True)
class Served:
    url: str
    key: str
    state: Path

    def ask(self, messages: list[dict[str, Any]], headers: dict[str, str] | None = None, **more: Any) -> Record:
        body = {"model": "smol", "messages": messages} | more
        headers = {"authorization": f"Bearer {self.key}"} | (headers or {})
        answer = httpx.post(f"{self.url}/chat/completions", json=body, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        with TrafficStore(self.state / "traffic.db") as store:
            return store.records([answer.headers["x-ontopic-record-id"]])[0]


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("recorded")
    with KeyStore(state / "keys.db") as keys:
        key = keys.make("website")
    with ServedModel(smol(model_folder, state, max_new_tokens=4, keys=state / "keys.db")) as model:
        yield Served(model.base_url, key, state)


def test_a_record_says_who_asked_and_what_they_said_of_it(served: Served) -> None:
    said = {"channel": "app", "mail": "ann@example.com", "conversation_id": "chat-7"}
    record = served.ask([QUESTION], user="ann", metadata=said, max_tokens=2)
    assert record.metadata == said | {"mail": "[email]"}
    assert (record.key, record.conversation) == ("website", "chat-7")
    assert record.user == user_hash("ann", served.state / "user.key")
    assert (record.parameters and record.parameters.max_tokens, record.finish_reason) == (2, "length")
    for path in served.state.glob("traffic.db*"):
        assert b"ann@example.com" not in path.read_bytes()


def test_a_conversation_is_named_by_a_header_or_known_by_its_beginning(served: Served) -> None:
    named = served.ask([QUESTION], headers={"x-conversation-id": "chat-8"})
    first = served.ask([QUESTION], user="ann")
    answered = [QUESTION, {"role": "assistant", "content": first.answer}, {"role": "user", "content": "And then?"}]
    second, others = served.ask(answered, user="ann"), served.ask(answered, user="bob")
    assert named.conversation == "chat-8"
    assert first.conversation == second.conversation != others.conversation
    assert [message.content for message in second.messages] == [QUESTION["content"], first.answer, "And then?"]
    with TrafficStore(served.state / "traffic.db") as store:
        assert store.ids(conversation=first.conversation) == [first.id, second.id]
        assert store.ids(user=others.user) == [others.id]


def test_what_a_tool_gave_is_answered_and_kept(served: Served) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "balance", "arguments": "{}"}}
    turns = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "It holds 4111 1111 1111 1111."},
    ]
    record = served.ask(turns)
    assert [message.role for message in record.messages] == ["user", "assistant", "tool"]
    assert [message.content for message in record.messages[1:]] == ["balance({})", "It holds [card]."]


REFUSES = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"
LEAVES_OUT = "{% for m in messages %}{% if m.role != 'tool' %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
TAKES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (REFUSES + LEAVES_OUT, "<user>q<assistant>c()<user>Result of a tool:\n42\n\nand?"),
        (LEAVES_OUT, "<user>q<assistant>c()<user>Result of a tool:\n42\n\nand?"),
        (TAKES, "<user>q<assistant>c()<tool>42<user>and?"),
    ],
    ids=["refuses", "leaves out", "takes"],
)
def test_a_template_without_tools_gets_their_turns_as_the_users(model_folder: Path, template: str, said: str) -> None:
    loaded = open_model(model_folder)

    def prompts(chat_template: str) -> Prompts:
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        tokenizer.chat_template = chat_template
        return Prompts(LanguageModel(None, tokenizer, folder=model_folder))

    turns = [("user", "q"), ("assistant", "c()"), ("tool", "42"), ("user", "and?")]
    ids = prompts(template).ids([{"role": role, "content": content} for role, content in turns], 4)
    assert loaded.tokenizer.decode(ids) == said
    with pytest.raises(RequestError, match="refuses these messages: nothing"):
        prompts("{{ raise_exception('nothing') }}").ids([QUESTION], 4)
