"""The LLM judge, asked over real HTTP on the loopback interface."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from loopback import ROOT, ChatServer, Reply
from values import replace

from ontopic.config.policy import Policy
from ontopic.config.settings import LLMJudgeSettings
from ontopic.errors import UserError
from ontopic.judges.llm.judge import LLMJudge
from ontopic.judges.llm.templates import Template, load_template
from ontopic.judges.llm.verdict_cache import VerdictCache, content_key
from ontopic.records import Record, Verdict

PROMPTS = ROOT / "configs" / "judge_prompts"
RUBRIC = load_template(PROMPTS / "rubric.txt", "single")
SETTINGS = LLMJudgeSettings(kind="openai", model="judge-model", concurrency=4)
RECORD = Record(question="Can I freeze my card?", answer="Yes, in the app.")
GRADE: dict[str, Any] = {"explanation": "Because.", "in_scope": True, "declined": False, "verdict": "pass"}
PASS = json.dumps(GRADE)
FAIL = json.dumps(GRADE | {"declined": True, "verdict": "fail"})


def ask(
    server: ChatServer, banking: Policy, *records: Record, template: Template = RUBRIC, **settings: Any
) -> list[Verdict]:
    return judge_of(server, banking, template, **settings).judge(records or [RECORD])


def judge_of(
    server: ChatServer,
    banking: Policy,
    template: Template = RUBRIC,
    cache: VerdictCache | None = None,
    **settings: Any,
) -> LLMJudge:
    changed = {"base_url": server.url, "max_retries": 1, "grading": template.grading, **settings}
    return LLMJudge(SETTINGS.model_copy(update=changed), template, policy=banking, cache=cache)


def says(server: ChatServer, text: str | None) -> None:
    server.reply = lambda request: Reply(text)


def test_a_verdict_is_read_and_the_schema_is_sent(chat_server: ChatServer, banking: Policy) -> None:
    says(chat_server, PASS)
    (verdict,) = ask(chat_server, banking)
    assert (verdict.outcome, verdict.score, verdict.explanation) == ("pass", 1.0, "Because.")
    assert (verdict.in_scope, verdict.declined, verdict.cause) == (True, False, None)
    assert verdict.judge_id.startswith("openai-judge-model-rubric-")
    (request,) = chat_server.requests
    assert request["model"] == "judge-model"
    assert request["temperature"] == 0
    assert request["response_format"]["json_schema"]["schema"]["required"] == list(GRADE)


def test_the_prompt_holds_policy_and_record_and_no_open_placeholder(chat_server: ChatServer, banking: Policy) -> None:
    says(chat_server, PASS)
    ask(chat_server, banking)
    (prompt,) = chat_server.prompts()
    for text in (banking.definition, *banking.rubric.fails, *banking.border.out_of_scope, RECORD.question):
        assert text in prompt
    assert "{{" not in prompt


def test_verdicts_come_in_the_order_of_the_records(chat_server: ChatServer, banking: Policy) -> None:
    chat_server.reply = lambda request: Reply(FAIL if "answer 3" in request["messages"][0]["content"] else PASS)
    done: list[int] = []
    judge = judge_of(chat_server, banking)
    verdicts = judge.judge([Record(question="q", answer=f"answer {i}") for i in range(8)], done.append)
    assert [i for i, verdict in enumerate(verdicts) if verdict.outcome == "fail"] == [3]
    assert sum(done) == 8


@pytest.mark.parametrize(
    "text",
    [
        f"Let me think {{it over}}.\n```json\n{PASS}\n```\nI hope this helps {{you}}.",
        f"{PASS} {PASS}",
        f'{{"result": {PASS}}}',
        f'{{"explanation": {"1" * 5000}}} {PASS}',
        '{"verdict": "pass"}',
        json.dumps(GRADE | {"explanation": 'It says {"verdict": "fail"} itself.'}),
    ],
    ids=["text around", "said twice", "nested", "endless number", "verdict alone", "quoted"],
)
def test_a_verdict_is_found_in_what_stands_around_it(chat_server: ChatServer, banking: Policy, text: str) -> None:
    says(chat_server, text)
    assert ask(chat_server, banking)[0].outcome == "pass"


@pytest.mark.parametrize(
    "text",
    [
        f"{PASS}\n{FAIL}",
        "pass",
        "",
        None,
        '{"verdict": "maybe"}',
        '{"verdict": true}',
        '{"verdict": "pass"',
        '{"score": 1}',
        json.dumps(GRADE | {"in_scope": "true"}),
        '{"a":' * 3000,
        '{"verdict": "fail", "verdict": "pass"}',
    ],
    ids=[
        "contradicting",
        "bare",
        "empty",
        "null",
        "maybe",
        "boolean",
        "cut",
        "no verdict",
        "mistyped",
        "nesting",
        "said twice",
    ],
)
def test_a_reply_without_one_clear_verdict_is_unjudged(
    chat_server: ChatServer, banking: Policy, text: str | None
) -> None:
    says(chat_server, text)
    (verdict,) = ask(chat_server, banking)
    assert (verdict.outcome, verdict.score) == ("unjudged", None)
    assert verdict.cause == "the judge's reply holds no verdict"


def test_a_record_that_cannot_be_sent_is_unjudged(chat_server: ChatServer, banking: Policy) -> None:
    says(chat_server, PASS)
    broken, whole = ask(chat_server, banking, Record(question="half a character \ud83d", answer="a"), RECORD)
    assert (broken.outcome, broken.cause) == ("unjudged", "the record cannot be sent: it is not valid Unicode")
    assert whole.outcome == "pass"


@pytest.mark.parametrize(
    ("label", "said_in_scope", "declined", "said", "right"),
    [
        # where the judge errs on the scope, the label and whether the answer declines decide
        (True, False, True, "pass", "fail"),
        (True, False, False, "fail", "pass"),
        (False, True, False, "pass", "fail"),
        (False, True, True, "fail", "pass"),
        # where it has the scope right, its verdict stands
        (True, True, False, "fail", "fail"),
        (False, False, True, "fail", "fail"),
        (None, True, False, "pass", "pass"),
    ],
)
def test_a_scope_label_goes_before_the_judges_opinion(
    chat_server: ChatServer,
    banking: Policy,
    label: bool | None,
    said_in_scope: bool,
    declined: bool,
    said: str,
    right: str,
) -> None:
    says(chat_server, json.dumps({"in_scope": said_in_scope, "declined": declined, "verdict": said}))
    (verdict,) = ask(chat_server, banking, Record(question="q", answer="a", in_scope=label))
    assert (verdict.outcome, verdict.score) == (right, float(right == "pass"))
    assert verdict.in_scope is (said_in_scope if label is None else label)
    assert verdict.declined is declined


@pytest.mark.parametrize("label", [True, False])
def test_where_the_judge_errs_on_the_scope_an_empty_answer_fails_still(
    chat_server: ChatServer, banking: Policy, label: bool
) -> None:
    says(chat_server, json.dumps({"in_scope": not label, "declined": False, "verdict": "fail"}))
    (verdict,) = ask(chat_server, banking, Record(question="q", answer=" ", in_scope=label))
    assert (verdict.outcome, verdict.in_scope) == ("fail", label)


@pytest.mark.parametrize(
    ("label", "said", "declined"),
    [(True, "pass", False), (True, "fail", True), (False, "pass", True), (False, "fail", False), (None, "pass", None)],
)
def test_a_bare_verdict_tells_with_the_label_whether_the_answer_declines(
    chat_server: ChatServer, banking: Policy, label: bool | None, said: str, declined: bool | None
) -> None:
    says(chat_server, json.dumps({"verdict": said}))
    (verdict,) = ask(
        chat_server,
        banking,
        Record(question="q", answer="a", in_scope=label),
        template=load_template(PROMPTS / "naive.txt", "single"),
    )
    assert (verdict.outcome, verdict.in_scope, verdict.declined) == (said, label, declined)


def test_without_an_api_key_nothing_is_asked(banking: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        LLMJudge(SETTINGS, RUBRIC, policy=banking).judge([RECORD])


def test_the_environment_names_server_and_key(
    chat_server: ChatServer, banking: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    says(chat_server, PASS)
    judge = LLMJudge(SETTINGS, RUBRIC, policy=banking)
    assert judge.judge([RECORD])[0].outcome == "pass"
    assert judge.judge([RECORD])[0].outcome == "pass"


def test_the_id_changes_with_all_that_changes_the_judge(banking: Policy) -> None:
    def judge_id(template: Template = RUBRIC, policy: Policy = banking, **settings: Any) -> str:
        return LLMJudge(SETTINGS.model_copy(update=settings), template, policy=policy).id

    other_policy = banking.model_copy(update={"definition": "Something else."})
    ids = {
        judge_id(),
        judge_id(template=replace(RUBRIC, digest="another")),
        judge_id(policy=other_policy),
        judge_id(model="another"),
        judge_id(base_url="http://127.0.0.1:9/v1"),
        judge_id(weighted=True),
        judge_id(template=replace(RUBRIC, grading="custom"), grading="custom"),
    }
    assert len(ids) == 7
    assert judge_id(concurrency=9, max_retries=0, timeout_s=1.0, budget_tokens=5) == judge_id()


def test_a_rerun_asks_nothing_twice_and_asks_again_what_was_unjudged(
    chat_server: ChatServer, banking: Policy, tmp_path: Path
) -> None:
    records = [Record(question=f"question {i}", answer="answer") for i in range(6)]
    chat_server.reply = lambda request: Reply("?" if "question 3" in request["messages"][0]["content"] else PASS)
    first = judge_of(chat_server, banking, cache=VerdictCache(tmp_path / "verdicts.db"))
    assert [v.outcome for v in first.judge(records)] == ["pass"] * 3 + ["unjudged"] + ["pass"] * 2
    assert first.account.cached == 0
    chat_server.requests.clear()
    says(chat_server, PASS)
    again = judge_of(chat_server, banking, cache=VerdictCache(tmp_path / "verdicts.db"))
    verdicts = again.judge(records)
    assert [v.outcome for v in verdicts] == ["pass"] * 6
    assert (again.account.requests, again.account.cached) == (1, 5)
    assert verdicts[0] == replace(first.judge(records)[0], judge_id=again.id)
    assert len(chat_server.requests) == 1


def test_what_changes_the_verdict_is_asked_anew(chat_server: ChatServer, banking: Policy, tmp_path: Path) -> None:
    says(chat_server, PASS)
    cache = VerdictCache(tmp_path / "verdicts.db")
    records = [RECORD, replace(RECORD, in_scope=True), replace(RECORD, in_scope=False), replace(RECORD, answer="No.")]
    judge_of(chat_server, banking, cache=cache).judge([*records, replace(RECORD, id="another", latency_s=9.0)])
    assert len(chat_server.requests) == 4
    judge_of(chat_server, banking, cache=cache, model="another").judge([RECORD])
    assert len(chat_server.requests) == 5


def test_records_of_one_content_are_asked_once_a_call_also_where_unjudged(
    chat_server: ChatServer, banking: Policy
) -> None:
    chat_server.reply = lambda request: Reply("?" if "odd" in request["messages"][0]["content"] else PASS)
    odd = Record(question="odd", answer="a")
    judge = judge_of(chat_server, banking, concurrency=1)
    records = [RECORD, odd] * 50  # more than are taken ahead
    assert [v.outcome for v in judge.judge(records)] == ["pass", "unjudged"] * 50
    assert len(chat_server.requests) == 2
    assert judge.account.requests == 2
    judge.judge([odd])
    assert len(chat_server.requests) == 3


def test_records_that_the_budget_does_not_cover_are_unjudged_and_judged_by_the_next_run(
    chat_server: ChatServer, banking: Policy, tmp_path: Path
) -> None:
    chat_server.reply = lambda request: Reply(PASS, parts={"usage": {"prompt_tokens": 90, "completion_tokens": 10}})
    records = [Record(question=f"question {i}", answer="answer") for i in range(10)]
    judge = judge_of(chat_server, banking, cache=VerdictCache(tmp_path / "v.db"), concurrency=1, budget_tokens=400)
    verdicts = judge.judge(records)
    assert [v.outcome for v in verdicts] == ["pass"] * 4 + ["unjudged"] * 6
    assert {v.cause for v in verdicts[4:]} == {"not asked: the budget of 400 tokens is spent"}
    again = judge_of(chat_server, banking, cache=VerdictCache(tmp_path / "v.db"))
    assert [v.outcome for v in again.judge(records)] == ["pass"] * 10
    assert len(chat_server.requests) == 10


def test_what_was_judged_before_a_stream_breaks_is_kept(
    chat_server: ChatServer, banking: Policy, tmp_path: Path
) -> None:
    says(chat_server, PASS)

    def broken() -> Iterator[Record]:
        yield RECORD
        wait_until(lambda: rows(tmp_path / "v.db") == 1)  # it is judged while its successor is awaited
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(judge_of(chat_server, banking, cache=VerdictCache(tmp_path / "v.db")).judge_stream(broken()))
    assert judge_of(chat_server, banking, cache=VerdictCache(tmp_path / "v.db")).judge([RECORD])[0].outcome == "pass"
    assert len(chat_server.requests) == 1


_JUDGES = """
import sys
from pathlib import Path
from ontopic.judges.llm.judge import LLMJudge
from ontopic.judges.llm.templates import load_template
from ontopic.judges.llm.verdict_cache import VerdictCache
from ontopic.config.policy import load_policy
from ontopic.records import Record
from ontopic.config.settings import LLMJudgeSettings
url, root, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
settings = LLMJudgeSettings(kind="openai", model="judge-model", base_url=url, concurrency=4)
template = load_template(root / "configs/judge_prompts/rubric.txt", "single")
policy = load_policy(root / "configs/policies/banking.yaml")
judge = LLMJudge(settings, template, policy=policy, cache=VerdictCache(cache))
print(len(judge.judge([Record(question=f"question {i:03}", answer="answer") for i in range(60)])))
"""


def test_a_process_that_is_killed_loses_no_verdict_that_was_on_disk(
    chat_server: ChatServer, banking: Policy, tmp_path: Path
) -> None:
    cache = tmp_path / "verdicts.db"
    # The first 20 records are answered at once, the others not while the process lives.
    chat_server.reply = lambda request: Reply(PASS, delay_s=0 if number_of(request) < 20 else 30)
    arguments = [sys.executable, "-c", _JUDGES, chat_server.url, str(ROOT), str(cache)]
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: cache.is_file() and rows(cache) == 20)
    finally:
        process.kill()
        process.communicate()
    chat_server.requests.clear()
    says(chat_server, PASS)
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "60\n", done.stderr
    assert sorted(number_of(request) for request in chat_server.requests) == list(range(20, 60))


def number_of(request: dict[str, Any]) -> int:
    match = re.search(r"question (\d{3})", request["messages"][0]["content"])
    assert match
    return int(match.group(1))


def rows(cache: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM grades").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass in 30 s")


def test_a_long_stream_is_judged_in_bounded_memory(chat_server: ChatServer, banking: Policy, tmp_path: Path) -> None:
    cache = VerdictCache(tmp_path / "verdicts.db")
    judge = judge_of(chat_server, banking, cache=cache)
    for record in long_stream(100_000):  # as an earlier run would have left them
        content = {"question": record.question, "answer": record.answer, "in_scope": None}
        cache.put(content_key(judge.id, content), GRADE | {"score": None})
    cache.flush()
    process = psutil.Process()
    before, most, count = process.memory_info().rss, 0, 0
    for verdict in judge.judge_stream(long_stream(100_000)):
        count += verdict.outcome == "pass"
        if count % 1000 == 0:
            most = max(most, process.memory_info().rss - before)
    assert (count, judge.account.cached, len(chat_server.requests)) == (100_000, 100_000, 0)
    assert most < 48 * 2**20  # the texts alone are over 100 MB


def long_stream(count: int) -> Iterator[Record]:
    return (Record(question=f"question {i}", answer=f"answer {i} " * 90) for i in range(count))
