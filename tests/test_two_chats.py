"""Chats that end in the same words, through the whole system: each is judged, labelled, taught, trained on, held out,
asked by the gate and replayed in its own context, and in no other's."""

from __future__ import annotations

from pathlib import Path

import pytest
from chats import LAST, chat, judges_by_transcript, llm_judge
from loopback import ChatServer
from served import openai_client, smol

from ontopic.config.model_settings import ModelSettings
from ontopic.config.policy import Policy
from ontopic.config.settings import TeacherSettings
from ontopic.data.held_out import is_held_out
from ontopic.data.labeller import label_records
from ontopic.data.labels import LabelStore, load_labels
from ontopic.evaluation.answers import evaluate
from ontopic.judges.judge import Judge
from ontopic.judges.opening import open_judge
from ontopic.models.generation import generate
from ontopic.models.loading import LanguageModel, load
from ontopic.monitoring.asked_traffic import judge_asked
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.traffic.store import TrafficStore
from ontopic.training import teacher
from ontopic.training.best_of_n import best_answers
from ontopic.training.preferences import PairSettings, WrittenAnswers, build_preferences, unwritten
from ontopic.watch.replays import answered_by
from ontopic.watch.retraining import split
from serving.process import ServedModel

pytestmark = pytest.mark.slow

_BANK = [
    "send a bank transfer abroad",
    "open a bank account",
    "close my bank account",
    "get a bank card",
    "call my bank",
]
_ELSE = ["bake a chocolate cake", "paint a wooden fence", "train for a marathon", "knit a warm scarf"]
_NEW_TOKENS = 6
_MODEL = ModelSettings(name="embedded", max_new_tokens=_NEW_TOKENS, batch_size=4)


def subject(subjects: list[str], *, held_out: bool) -> str:
    return next(each for each in subjects if is_held_out(chat(each, answer="")) is held_out)


SUBJECTS = [subject(kind, held_out=held_out) for kind in (_BANK, _ELSE) for held_out in (False, True)]
TRAINED, HELD_OUT = SUBJECTS[::2], SUBJECTS[1::2]


def subject_of(texts: list[dict[str, str]]) -> str:
    """The one subject of these messages."""
    (found,) = [each for each in SUBJECTS if any(each in message["content"] for message in texts)]
    return found


def test_chats_that_end_in_the_same_words_keep_their_contexts(
    model_folder: Path, tmp_path: Path, chat_server: ChatServer, banking: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    judges_by_transcript(chat_server)
    workspace, name = open_workspace(tmp_path / "state"), banking.registered_model
    records = served(model_folder, workspace, name)
    judge = open_judge(llm_judge(chat_server), banking, workspace=workspace)
    with WindowStore(workspace.windows, name) as windows:
        judged = judge_asked(windows, records, judge=judge, window_records=10)
    in_scope = {subject_of(r.request): v.in_scope for r, v in zip(judged.records, judged.verdicts, strict=True)}
    assert in_scope == {each: each in _BANK for each in SUBJECTS}

    labelled_in_context(records, workspace)
    train, held_out = split(judged, 100)
    assert {subject_of(record.request) for record in train.records} == set(TRAINED)
    assert {subject_of(question.messages): question.in_scope for question in held_out} == {
        each: each in _BANK for each in HELD_OUT
    }
    model = load(model_folder, "float32")
    trained_in_context(train, model, judge=judge, policy=banking, server=chat_server)

    chat_server.requests.clear()
    options = {"judge": judge, "max_new_tokens": _NEW_TOKENS, "batch_size": 4}
    evaluated = evaluate(model, "2", questions=held_out, **options)  # type: ignore[arg-type]
    assert [record.request for record in evaluated.records] == [question.messages for question in held_out]
    assert {v.explanation.removeprefix("How do I ").rstrip("?") for v in evaluated.verdicts} == set(HELD_OUT)

    replayed = answered_by(model, records, settings=_MODEL)
    own = generate(model, [record.request for record in records], max_new_tokens=_NEW_TOKENS, slots=4)
    assert [record.request for record in replayed] == [record.request for record in records]
    assert [record.answer for record in replayed] == [answer.text for answer in own]


def served(model_folder: Path, workspace: Workspace, name: str) -> list[Record]:
    """What a service keeps of the chats."""
    with ServedModel(smol(model_folder, workspace.root, model_name=name, traffic=workspace.traffic)) as model:
        client = openai_client(model.base_url, model.api_key)
        for each in SUBJECTS:
            asked = chat(each, answer="").request
            client.chat.completions.create(model=name, messages=asked, max_tokens=_NEW_TOKENS)  # type: ignore[arg-type]
    with TrafficStore(workspace.traffic, name) as traffic:
        records = list(traffic.records())
    assert {record.question for record in records} == {LAST}
    assert len({record.conversation for record in records}) == len(SUBJECTS)
    return records


def labelled_in_context(records: list[Record], workspace: Workspace) -> None:
    """Each chat is shown to the labeller, and its label is its own."""
    store, shown = LabelStore(workspace.labels / "mine.jsonl"), list[str]()

    def answer(prompt: str) -> str:
        on_bank = any(each in "\n".join(shown).rpartition("\nQuestion\n")[0].rpartition("of 4")[2] for each in _BANK)
        return ("y" if on_bank else "n") if "in scope" in prompt else "p"

    label_records(records, store, by="uncertainty", definition="", ask=answer, say=lambda text: shown.append(str(text)))
    assert store.unlabelled(records) == []
    labels = load_labels(store.kept.path, "train")
    assert {subject_of(label.request): label.in_scope for label in labels} == {each: each in _BANK for each in SUBJECTS}


def trained_in_context(
    train: Judged, model: LanguageModel, *, judge: Judge, policy: Policy, server: ChatServer
) -> None:
    """Teacher, best of n and pairs have the conversation of their own record."""
    settings = TeacherSettings(model="teacher", base_url=server.url)
    taught = teacher.answers(train.records, train.verdicts, policy=policy, settings=settings)
    own = best_answers(
        model,
        judge,
        records=unwritten(train, labelled=[], taught={}),
        n=2,
        max_new_tokens=_NEW_TOKENS,
        batch_size=4,
        seed=0,
    )
    assert len(taught) == 1
    assert set(own) <= set(taught)
    pairs = build_preferences(
        train, labelled=[], policy=policy, settings=PairSettings(), written=WrittenAnswers(taught=taught)
    )
    bank, other = sorted(pairs, key=lambda pair: not pair.in_scope)
    assert (subject_of(bank.messages), bank.chosen) == (TRAINED[0], f"Taught of: How do I {TRAINED[0]}?")
    assert (subject_of(other.messages), other.chosen) == (TRAINED[1], policy.refusal)
    requests = {record.id: record.request for record in train.records}
    assert all(pair.messages == requests[pair.record_id] for pair in pairs)
