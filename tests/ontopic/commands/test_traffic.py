"""`python run.py traffic`: what is stored, import, export, prune and send."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loopback import ChatServer, Reply
from typer.testing import CliRunner, Result

import run
from ontopic.commands import labels
from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.state.workspace import open_workspace
from ontopic.traffic.store import TrafficStore

NOW = datetime.now(UTC)
MODEL = "ontopic-banking"


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Result]:
    """``run.py traffic`` on a state folder of its own."""

    (tmp_path / "state" / "models").mkdir(parents=True)

    def called(*arguments: str) -> Result:
        return CliRunner().invoke(run.app, ["traffic", *arguments, "--state", str(tmp_path / "state")])

    return called


def rows(path: Path, n: int) -> Path:
    asked = [(NOW - timedelta(days=i)).isoformat() for i in range(n)]
    lines = [
        {"question": f"q{i}, a@b.de", "answer": "a", "model_version": "7", "asked_at": t} for i, t in enumerate(asked)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_records_go_in_are_counted_go_out_and_are_pruned(command: Callable[..., Result], tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", 30)
    done = command("import", str(source))
    assert done.exit_code == 0, done.output
    assert "30 records were stored, 0 were there already" in done.output
    assert "0 records were stored, 30 were there already" in command("import", str(source)).output
    said = command().output
    assert "30 records in" in said
    assert f"{NOW:%Y-%m-%d %H:%M:%S}" in said
    assert "Personal data taken out: 30 of kind email" in said
    assert "30 records are in" in command("export", str(tmp_path / "out.parquet")).output
    done = command("export", str(tmp_path / "out.jsonl"), "--format", "openai")
    assert done.exit_code == 0, done.output
    assert "[email]" in json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["messages"][0]["content"]
    assert "10 records were deleted, 20 are left" in command("prune", "--older-than", "468h").output
    assert "15 records were deleted, 5 are left" in command("prune", "--older-than", "90d", "--keep", "5").output


def test_malformed_rows_are_named_or_left_out(command: Callable[..., Result], tmp_path: Path) -> None:
    source = rows(tmp_path / "rows.jsonl", 2)
    source.write_text(source.read_text() + '{"question": "q"}\n')
    done = command("import", str(source))
    assert isinstance(done.exception, UserError)
    assert "rows.jsonl:3: field 'answer': field required" in str(done.exception)
    assert "1 malformed rows were left out" in command("import", str(source), "--skip-bad").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "there is no traffic yet"),
        (("export", "out.jsonl"), "there is no traffic yet"),
        (("prune", "--keep", "1"), "there is no traffic yet"),
        (("prune",), "--older-than, --keep or both"),
        (("import", "none.jsonl"), "none.jsonl"),
        (("send", "--questions", "none.jsonl", "--rate", "0"), "--rate 0.0 is not a rate"),
        (("send", "--questions", "none.jsonl", "--rate", "nan"), "--rate nan is not a rate"),
        (("send", "--questions", "none.jsonl", "--rate", "1"), "none.jsonl: no such file"),
        (
            ("send", "--questions", "x.jsonl", "--rate", "1", "--api-key-variable", "NO_SUCH_KEY"),
            "NO_SUCH_KEY is not set",
        ),
    ],
)
def test_mistakes_are_the_users_to_mend(command: Callable[..., Result], arguments: tuple[str, ...], said: str) -> None:
    done = command(*arguments)
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)


@pytest.mark.parametrize("age", ["90", "-1d", "1.5d", "9999999d", "d", "３d"])
def test_an_age_must_be_one(command: Callable[..., Result], tmp_path: Path, age: str) -> None:
    command("import", str(rows(tmp_path / "rows.jsonl", 2)))
    done = command("prune", f"--older-than={age}")
    assert isinstance(done.exception, UserError)
    assert "is not a length of time; give days" in str(done.exception)


def test_options_stand_behind_the_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(run.app, ["traffic", "--state", str(tmp_path), "prune", "--keep", "1"])
    assert isinstance(done.exception, UserError)
    assert "put it behind prune" in str(done.exception)


def test_the_store_can_be_a_server(
    command: Callable[..., Result], tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", postgres_database)
    assert "3 records were stored" in command("import", str(rows(tmp_path / "rows.jsonl", 3))).output
    said = command().output
    assert "3 records in postgresql://127.0.0.1" in said
    assert "postgres@" not in said
    assert not (tmp_path / "state" / "traffic.db").exists()
    with TrafficStore(postgres_database, MODEL) as store:
        store.add(Record(question="newest", answer="a", model_version="8", asked_at=NOW + timedelta(hours=1)))
    monkeypatch.chdir(tmp_path)
    workspace = open_workspace(tmp_path / "state")
    assert [record.question for record in labels.newest_traffic(workspace, MODEL)] == ["newest"]


def test_questions_are_sent(
    command: Callable[..., Result], tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_server.reply = lambda request: Reply(status=500) if request["messages"][0]["content"] == "in1" else Reply("a")
    questions = tmp_path / "questions.jsonl"
    lines = [{"question": f"{name}{i}", "in_scope": name == "in"} for name in ("in", "out") for i in range(4)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setenv("SOME_KEY", "secret")
    sent = ("send", "--questions", str(questions), "--rate", "200", "--url", chat_server.url)
    done = command(*sent, "--count", "20", "--in-scope-share", "0.8", "--api-key-variable", "SOME_KEY", "--model", "m")
    assert done.exit_code == 0, done.output
    assert "16 answered, 4 failed, latency p50 0." in done.output
    assert "the first failure: request failed: InternalServerError 500: refused" in done.output
    asked = chat_server.prompts()
    assert (len(asked), sum(question.startswith("in") for question in asked)) == (20, 16)
    assert {request["model"] for request in chat_server.requests} == {"m"}
    shown = json.loads(command(*sent, "--json").stdout)
    assert (shown["answered"], shown["failed"], shown["refusal"]) == (7, 1, None)
    assert 0 < shown["latency_p50_s"] <= shown["latency_p95_s"] and "InternalServerError" in shown["error"]
    chat_server.reply = lambda request: Reply(status=500)
    done = command(*sent)
    assert isinstance(done.exception, UserError)
    assert (
        str(done.exception)
        == f"no question was answered at {chat_server.url} (request failed: InternalServerError 500: refused (test))"
    )


@pytest.mark.parametrize(
    ("status", "key", "option", "said"),
    [
        (
            401,
            "wrong",
            (),
            "401: no, no (test)); put a valid one there, or name",
        ),
        (
            401,
            "",
            (),
            "401: no, no (test)), and OPENAI_API_KEY is not set; put a key there",
        ),
        (
            403,
            "wrong",
            ("--api-key-variable", "SOME_KEY"),
            "403: no, no (test)); see to the key in SOME_KEY",
        ),
        (
            404,
            "right",
            (),
            "has no such model or no such path (request failed: NotFoundError 404: no, no (test)); see --model",
        ),
        (402, "right", (), "is spent (request failed: APIStatusError 402: no, no (test)); raise it"),
    ],
)
def test_what_the_server_refuses_is_said_with_the_variable(
    command: Callable[..., Result],
    tmp_path: Path,
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    key: str,
    option: tuple[str, ...],
    said: str,
) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "q", "in_scope": true}\n' * 60)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("SOME_KEY", "another")
    chat_server.reply = lambda request: Reply("no, no", status=status)
    done = command("send", "--questions", str(tmp_path / "q.jsonl"), "--rate", "20", "--url", chat_server.url, *option)
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
    assert len(chat_server.requests) < 5
    sent = "another" if option else key or "none"
    assert set(chat_server.authorizations) == {f"Bearer {sent}"}


def test_the_hint_about_the_server_is_for_one_that_does_not_run(command: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "q", "in_scope": true}\n')
    send = ("send", "--questions", str(tmp_path / "q.jsonl"), "--rate", "20", "--url")
    done = command(*send, "http://127.0.0.1:9/v1")
    assert "); check that a server runs there: python run.py serve" in str(done.exception)
    for address in ("127.0.0.1:3210/v1", "http://[::1", "http://h:port"):
        done = command(*send, address)
        assert isinstance(done.exception, UserError)
        assert "is not the address of a server" in str(done.exception)
