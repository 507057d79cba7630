"""The group ``policy``: a cold start, with an LLM and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from drafting_llm import DEFINITION, drafting
from loopback import ROOT, ChatServer, Reply
from typer.testing import CliRunner, Result

from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.data.labelled import load_questions, load_records
from ontopic.data.same_question import near_duplicates
from ontopic.drafting.draft import DraftFile
from ontopic.errors import UserError

LIBRARY = ROOT / "docs" / "library"
OWN = ("--questions", str(LIBRARY / "questions.csv"), "--records", str(LIBRARY / "records.csv"))
SAID = """What people ask at a library's desk.
books on any subject

homework

\nlost my card
Tell the desk.
It helps.
what is 12 squared
144
A sum.
n
"""
NAME = "library-desk"


@pytest.fixture
def new(tmp_path: Path) -> Callable[..., Result]:
    """``run.py policy new`` with lines typed into it, into a folder of its own."""
    import run

    def typed(lines: str, *arguments: str, name: str = NAME, subject: str = "library desk") -> Result:
        command = ["policy", "new", name, "--subject", subject, "--into", str(tmp_path / "configs"), *arguments]
        return CliRunner().invoke(run.app, command, input=lines)

    return typed


@pytest.fixture
def teacher(tmp_path: Path, chat_server: ChatServer) -> Path:
    """A configuration whose teacher is the loopback server, where an LLM drafts."""
    chat_server.reply = drafting
    settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text(encoding="utf-8"))
    settings |= {"policy": str(ROOT / "configs/policies/gardening.yaml")}
    settings |= {"judge_prompts": str(ROOT / "configs/judge_prompts")}
    settings |= {"teacher": {"model": "drafter", "base_url": chat_server.url, "max_retries": 0}}
    (tmp_path / "teacher.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "teacher.yaml"


def test_without_an_llm_a_person_says_what_the_policy_covers(new: Callable[..., Result], tmp_path: Path) -> None:
    done = new(SAID, *OWN)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "configs"
    settings = load_settings(folder / f"{NAME}.yaml")
    policy = load_policy(settings.policy)
    assert (policy.name, policy.subject, policy.definition) == (NAME, "library desk", SAID.split("\n")[0])
    assert (policy.border.in_scope, policy.border.out_of_scope) == (["books on any subject"], ["homework"])
    assert policy.refusal == "I'm sorry, I can only help with library desk questions."
    assert [example.verdict for example in policy.examples] == ["pass", "fail"]
    questions, records = load_questions(policy.questions), load_records(policy.records)
    assert (len(questions), len(records)) == (60, 30)
    assert {question.split for question in questions} == {"train", "calibration", "evaluation"}
    assert (settings.traffic.questions, settings.evaluation.questions, settings.traffic.fresh_questions) == (30, 14, 4)
    assert not (folder / "policies" / NAME / "draft.json").exists()
    assert "the gate: too thin (7 questions in scope, 7 out of it" in done.output
    assert "synthetic" not in done.output
    assert not any(str(tmp_path) in path.read_text() for path in folder.rglob("*.yaml"))


@pytest.mark.parametrize("lines", range(10))
def test_a_person_who_leaves_goes_on_from_there(new: Callable[..., Result], tmp_path: Path, lines: int) -> None:
    """Whatever was said last; nothing but the draft is there until then."""
    said = SAID.split("\n")
    # An example is kept once it is whole, and a list once it has ended.
    first = new("\n".join(said[:lines]) + ("\n" if lines else ""), *OWN)
    assert first.exit_code == 0, first.output
    assert "The draft is kept in " in first.output
    folder = tmp_path / "configs"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["draft.json"]
    draft = DraftFile(path=folder / "policies" / NAME / "draft.json").read()
    assert draft is not None and len(draft.questions) == 60
    definition = "" if draft.definition else SAID.split("\n")[0]
    again = new(f"{definition}\n\n\n\n" + "k\n" * len(draft.examples) + "q\n", *OWN)
    assert again.exit_code == 0, again.output
    kept = DraftFile(path=folder / "policies" / NAME / "draft.json").read()
    assert kept is not None and kept.definition == said[0]
    assert kept.examples == draft.examples


def test_an_llm_drafts_and_a_person_reviews(
    new: Callable[..., Result], teacher: Path, tmp_path: Path, chat_server: ChatServer
) -> None:
    told = "Travellers ask us about their cover.\n"
    (tmp_path / "terms.md").write_text("Delays over four hours are paid.", encoding="utf-8")
    arguments = ("--config", str(teacher), "-n", "96", "--document", str(tmp_path / "terms.md"))
    # All that is drafted is agreed to; of the first page two rows are dropped, one gets the other scope; then leave.
    first = new(told + "\n" * 7 + "d 1 2\nf 3\ne 4 is a lost phone covered?\n\nq\n", *arguments, subject="insurance")
    assert first.exit_code == 0, first.output
    assert "\x1b" not in first.output and "\u202e" not in first.output
    assert "The draft is kept" in first.output
    asked = len(chat_server.requests)
    assert any("Delays over four hours" in request["messages"][0]["content"] for request in chat_server.requests)
    second = new("a\n", *arguments, subject="insurance")
    assert second.exit_code == 0, second.output
    assert len(chat_server.requests) == asked  # nothing is asked for twice
    policy = load_policy(tmp_path / "configs" / "policies" / f"{NAME}.yaml")
    assert policy.definition == DEFINITION
    questions, records = load_questions(policy.questions), load_records(policy.records, questions=policy.questions)
    assert len(questions) == 94
    assert any(question.question == "is a lost phone covered?" for question in questions)
    counts = Counter(question.intent for question in questions)
    assert len(counts) == 24 and max(counts.values()) - min(counts.values()) <= 2
    assert {question.split for question in questions} == {"train", "calibration", "evaluation"}
    texts = [question.question for question in questions]
    assert all(i == j for i, j in near_duplicates(texts, texts))
    in_scope = [question for question in questions if question.in_scope]
    assert sum(question.reference is not None for question in in_scope) >= len(in_scope) - 1
    assert {record.kind for record in records} >= {"in_scope_answer", "over_refusal", "leak", "comply_after_refusal"}
    held_out = {question.question for question in questions if question.split == "evaluation"}
    assert not held_out & {record.question for record in records}
    rows = [json.loads(line) for line in Path(policy.questions).read_text(encoding="utf-8").splitlines()]
    assert {row["origin"] for row in rows} == {"synthetic"}
    assert 0 < sum(row.get("reviewed", True) for row in rows) < 12
    assert "labelled rows are synthetic, " in second.output and "of which nobody has reviewed" in second.output


def test_rows_of_ones_own_stay_and_none_that_is_nearly_the_same_comes_beside_them(
    new: Callable[..., Result], teacher: Path, tmp_path: Path
) -> None:
    done = new("A library.\n" + "\n" * 7 + "a\n", "--config", str(teacher), "-n", "80", *OWN)
    assert done.exit_code == 0, done.output
    policy = load_policy(tmp_path / "configs" / "policies" / f"{NAME}.yaml")
    own = {question.question for question in load_questions(str(LIBRARY / "questions.csv"))}
    questions = load_questions(policy.questions)
    assert own <= {question.question for question in questions}
    assert Counter(question.in_scope for question in questions) == {True: 40, False: 40}


@pytest.mark.parametrize("answered", [1, 2, 20])
def test_a_server_that_fails_in_the_middle_loses_nothing(
    new: Callable[..., Result], teacher: Path, chat_server: ChatServer, tmp_path: Path, answered: int
) -> None:
    def reply(request: dict[str, object]) -> Reply:
        return drafting(request) if len(chat_server.requests) <= answered else Reply("no such key", status=401)

    chat_server.reply = reply
    arguments = ("--config", str(teacher), "-n", "48")
    broken = new("A library.\n" + "\n" * 7, *arguments)
    assert isinstance(broken.exception, UserError), broken.output
    draft = DraftFile(path=tmp_path / "configs" / "policies" / NAME / "draft.json").read()
    assert draft is not None and draft.agreed and bool(draft.intents) is (answered > 3)
    done_before, chat_server.reply = len(draft.asked), drafting
    asked = len(chat_server.requests)
    done = new("a\n", *arguments)
    assert done.exit_code == 0, done.output
    questions = [prompt for prompt in chat_server.prompts()[asked:] if prompt.startswith("Write ")]
    # a set: a request that was under way at the failure may reach the server late, and its prompt comes again
    assert len({p for p in questions if " questions that " in p}) == 24 * 4 - done_before


@pytest.mark.parametrize(
    "text",
    ["I would rather not.", '{"definition": "x"}', "[1, 2]", '{"examples": ', '{"definition": {"a": 1}}', ""],
    ids=["prose", "part", "list", "cut", "nested", "empty"],
)
def test_an_llm_that_drafts_nothing_is_named(
    new: Callable[..., Result], teacher: Path, chat_server: ChatServer, text: str
) -> None:
    chat_server.reply = lambda request: Reply(text)
    done = new("A library.\n", "--config", str(teacher))
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith("drafter wrote no policy (")


def test_nothing_is_written_over_and_names_are_checked(new: Callable[..., Result], tmp_path: Path) -> None:
    assert new(SAID, *OWN).exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "configs").rglob("*") if path.is_file()}
    assert "is there already" in str(new(SAID, *OWN).exception)
    assert {path: path.read_bytes() for path in (tmp_path / "configs").rglob("*") if path.is_file()} == before
    (tmp_path / "configs" / f"{NAME}.yaml").unlink()
    (tmp_path / "configs" / "policies" / f"{NAME}.yaml").unlink()
    assert "questions.jsonl: is there already" in str(new(SAID, *OWN).exception)  # it may be the only copy
    for name in ("../escape", "Upper", "", "a b", "name\n"):
        assert "is no name of a policy" in str(new("", name=name).exception)
    assert "--subject is empty" in str(new("", name="other", subject=" ").exception)
    assert "has no `teacher`" in str(new("", "--document", "x.md", name="other").exception)
    (tmp_path / "configs" / "policies" / "other").mkdir()
    (tmp_path / "configs" / "policies" / "other" / "draft.json").write_text('{"name": 3')
    assert "is no draft that this release can go on with" in str(new("", name="other").exception)


def test_before_a_proxy_the_policy_is_for_the_traffic_of_users(new: Callable[..., Result], tmp_path: Path) -> None:
    done = new(SAID, *OWN, "--config", str(ROOT / "configs" / "proxy.yaml"))
    assert done.exit_code == 0, done.output
    settings = load_settings(tmp_path / "configs" / f"{NAME}.yaml")
    assert settings.serving.backend == "openai" and load_policy(settings.policy).least_records == 50
    assert "the gate" not in done.output


def test_without_data_what_was_said_is_kept(new: Callable[..., Result], tmp_path: Path) -> None:
    done = new(SAID)
    assert "there are no labelled questions, and without an LLM" in str(done.exception)
    assert new("", *OWN).exit_code == 0
    assert load_policy(tmp_path / "configs" / "policies" / f"{NAME}.yaml").definition == SAID.split("\n")[0]


def test_ctrl_c_keeps_what_was_said(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "policy", "new", NAME, "--subject", "library desk", *OWN]
    stopped = subprocess.Popen(
        [*command, "--into", str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert stopped.stdin and stopped.stdout
    stopped.stdin.write(SAID.split("\n")[0].encode() + b"\n")
    stopped.stdin.flush()
    seen = b""
    while b"belong to it" not in seen:
        seen += os.read(stopped.stdout.fileno(), 1000)
    stopped.send_signal(signal.SIGINT)
    _, err = stopped.communicate(timeout=60)
    assert (stopped.returncode, err.strip()) == (130, b"stopped; the same command goes on from here")
    draft = DraftFile(path=tmp_path / "policies" / NAME / "draft.json").read()
    assert draft is not None and draft.definition == SAID.split("\n")[0]


def test_check_says_what_is_too_thin(new: Callable[..., Result], tmp_path: Path) -> None:
    import run

    said = new(SAID, *OWN).output
    options = ["--config", str(tmp_path / "configs" / f"{NAME}.yaml"), "--state", str(tmp_path / "state")]
    done = CliRunner().invoke(run.app, ["policy", "check", *options])
    assert done.exit_code == 0, done.output
    assert done.output.strip() in said
