"""Judging a file: a stream in and out, taken up again where it was stopped."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from loopback import ROOT, ChatServer, Reply

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeSettings, LLMJudgeSettings, LocalJudgeSettings
from ontopic.data.labelled import LabelledRecord
from ontopic.data.rows import RowStream, stream_rows
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.judged_file import by_grading, by_judge, card_of_file, causes, winners, write_judged
from ontopic.progress import Advance
from ontopic.records import Record, Verdict

PROMPTS = ROOT / "configs/judge_prompts"


class Polite:
    """Passes an answer that says please; counts the records, and breaks down at one."""

    id = "polite"

    def __init__(self, breaks_at: int = -1) -> None:
        self.account, self.seen, self.breaks_at = Account(), 0, breaks_at

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        verdicts = []
        for record in records:
            if self.seen == self.breaks_at:
                raise KeyboardInterrupt
            self.seen += 1
            passed = "please" in record.answer
            verdicts.append(
                Verdict(
                    outcome="pass" if passed else "fail", score=float(passed), explanation="Because.", judge_id=self.id
                )
            )
        return verdicts


def write(folder: Path, n: int, **fields: Any) -> Path:
    path = folder / "records.jsonl"
    with path.open("w") as file:
        for i in range(n):
            answer = f"answer {i}, please" if i % 2 else f"answer {i}"
            file.write(json.dumps({"question": f"question {i}", "answer": answer} | fields) + "\n")
    return path


def rows_of(path: Path) -> RowStream[LabelledRecord]:
    return stream_rows(path, LabelledRecord)


def nothing(done: int) -> None:
    pass


def test_a_line_a_row_in_order_and_the_card_of_the_labels(tmp_path: Path) -> None:
    rows, out = rows_of(write(tmp_path, 2500, label="pass")), tmp_path / "out.jsonl"
    done: list[int] = []
    assert write_judged(rows, by_judge(Polite()), out=out, advance=done.append) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["question"] for line in lines] == [f"question {i}" for i in range(2500)]
    assert [line["verdict"] for line in lines[:3]] == ["fail", "pass", "fail"]
    assert lines[1] | {"label": "pass", "judge_id": "polite", "explanation": "Because.", "score": 1.0} == lines[1]
    assert sum(done) == 2500
    card = card_of_file("polite", rows, out=out)
    assert card is not None
    assert (card.accuracy.value, card.accuracy.n) == (0.5, 2500)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_rows_without_a_label_have_no_card(tmp_path: Path) -> None:
    rows, out = rows_of(write(tmp_path, 3)), tmp_path / "out.jsonl"
    write_judged(rows, by_judge(Polite()), out=out, advance=nothing)
    assert card_of_file("polite", rows, out=out) is None


def test_a_stopped_call_is_taken_up_where_it_was(tmp_path: Path) -> None:
    rows, out = rows_of(write(tmp_path, 5000)), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_judged(rows, by_judge(Polite(breaks_at=4000)), out=out, advance=nothing)
    assert not out.exists()
    (part,) = tmp_path.glob(".out.jsonl.*.part")
    with part.open("a") as file:
        file.write('{"question": "half a li')
    again = Polite()
    kept = write_judged(rows, by_judge(again), out=out, advance=nothing)
    assert kept == 3072  # whole chunks
    assert again.seen == 5000 - kept
    whole = tmp_path / "whole.jsonl"
    write_judged(rows, by_judge(Polite()), out=whole, advance=nothing)
    assert out.read_text() == whole.read_text()


def test_lines_of_another_judge_or_of_other_rows_are_not_taken(tmp_path: Path) -> None:
    rows, out = rows_of(write(tmp_path, 2000)), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_judged(rows, by_judge(Polite(breaks_at=1500)), out=out, advance=nothing)
    other = Polite()
    other.id = "another"  # type: ignore[misc]
    assert write_judged(rows, by_judge(other), out=out, advance=nothing) == 0
    out.unlink()
    assert write_judged(rows_of(write(tmp_path, 1999)), by_judge(Polite()), out=out, advance=nothing) == 0


@pytest.mark.slow
def test_a_hundred_thousand_records_fit_into_little_memory(tmp_path: Path) -> None:
    rows, out = rows_of(write(tmp_path, 100_000)), tmp_path / "out.jsonl"
    tracemalloc.start()
    try:
        write_judged(rows, by_judge(Polite()), out=out, advance=nothing)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20  # bytes; the file is 20 MB of verdicts
    with out.open() as file:
        assert sum(1 for _ in file) == 100_000


def llm(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> JudgeSettings:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return LLMJudgeSettings(kind="openai", model="judge-1", base_url=server.url, concurrency=4)


def test_answers_are_compared_with_another_models(
    chat_server: ChatServer, banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prefers_please(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][0]["content"]
        a, b = prompt.find("please"), prompt.find("worse")
        return Reply(
            json.dumps({"explanation": "It asks.", "verdict": "a" if -1 < a < b else "b" if a > -1 else "tie"})
        )

    chat_server.reply = prefers_please
    settings, out = llm(chat_server, monkeypatch), tmp_path / "out.jsonl"
    rows = rows_of(write(tmp_path, 4, benchmark_answer="worse"))
    by = by_grading("pairwise", settings, policy=banking, prompts=PROMPTS, cache=tmp_path / "verdicts.db")
    write_judged(rows, by, out=out, advance=nothing)
    assert winners(out) == {"a": 2, "tie": 2}
    assert json.loads(out.read_text().splitlines()[1])["benchmark_answer"] == "worse"


def test_answers_are_compared_with_the_truth(
    chat_server: ChatServer, banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_server.reply = lambda request: Reply(
        json.dumps(
            {"explanation": "So.", "verdict": "pass" if "please" in request["messages"][0]["content"] else "fail"}
        )
    )
    settings, out = llm(chat_server, monkeypatch), tmp_path / "out.jsonl"
    rows = rows_of(write(tmp_path, 4, reference="the truth", label="pass"))
    write_judged(
        rows,
        by_grading("reference", settings, policy=banking, prompts=PROMPTS, cache=tmp_path / "verdicts.db"),
        out=out,
        advance=nothing,
    )
    assert [json.loads(line)["verdict"] for line in out.read_text().splitlines()] == ["fail", "pass"] * 2
    assert "the truth" in chat_server.prompts()[0]


def test_a_row_that_lacks_what_its_grading_needs_is_named(
    chat_server: ChatServer, banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = by_grading(
        "reference", llm(chat_server, monkeypatch), policy=banking, prompts=PROMPTS, cache=tmp_path / "verdicts.db"
    )
    with pytest.raises(UserError, match=r"records\.jsonl: row 1 has no 'reference'"):
        write_judged(rows_of(write(tmp_path, 2)), by, out=tmp_path / "out.jsonl", advance=nothing)
    assert not chat_server.requests


@pytest.mark.parametrize("grading", ["pairwise", "reference"])
def test_where_the_server_refuses_the_file_is_whole_and_says_so(
    chat_server: ChatServer, banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grading: Any
) -> None:
    verdict = "tie" if grading == "pairwise" else "pass"

    def reply(request: dict[str, Any]) -> Reply:
        if any(f"question {i}." in request["messages"][0]["content"] for i in range(10)):
            return Reply(json.dumps({"explanation": "So.", "verdict": verdict}))
        return Reply(status=429, body=b'{"error": {"code": "insufficient_quota", "message": "Pay first."}}')

    chat_server.reply = reply
    settings = llm(chat_server, monkeypatch).model_copy(update={"concurrency": 1})
    by = by_grading(grading, settings, policy=banking, prompts=PROMPTS, cache=tmp_path / "verdicts.db")
    path = tmp_path / "records.jsonl"
    numbers = [*range(10), *range(100, 400)]
    rows = [{"question": f"question {i}.", "answer": "a", "reference": "b", "benchmark_answer": "c"} for i in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    done: list[int] = []
    with pytest.raises(UserError) as raised:
        write_judged(rows_of(path), by, out=out, advance=done.append)
    told = f"the quota at {chat_server.url} is used up (429: Pay first. (insufficient_quota))"
    assert str(raised.value).startswith(told)
    assert str(raised.value).endswith(f"; 300 of the 310 records are unjudged for that in {out}")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["question"] for line in lines] == [row["question"] for row in rows]
    said = [line.get("winner") or line.get("verdict") for line in lines]
    assert said == [verdict] * 10 + ["unjudged"] * 300
    assert told in lines[-1]["cause"]
    assert causes(out).total() == 300
    assert sum(done) == 310
    assert len(chat_server.requests) <= 22
    assert not list(tmp_path.glob(".out*"))


def test_only_an_llm_compares_answers(banking: Policy, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pairwise grading needs an LLM, and the configured judge is 'local'"):
        by_grading(
            "pairwise",
            LocalJudgeSettings(kind="local"),
            policy=banking,
            prompts=PROMPTS,
            cache=tmp_path / "verdicts.db",
        )
