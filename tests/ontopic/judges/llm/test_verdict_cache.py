"""The cache of an LLM's grades."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from graders import PASS, RECORD, grader_of, says
from loopback import ChatServer

from ontopic.config.policy import Policy
from ontopic.errors import UserError
from ontopic.judges.llm.grading import (
    grade_single,
)
from ontopic.judges.llm.verdict_cache import VerdictCache, content_key


@pytest.fixture
def kept_at(tables_at: Path | str) -> Path | str:
    """In a folder that is not there yet, and in a database."""
    return tables_at.parent / "folder" / "verdicts.db" if isinstance(tables_at, Path) else tables_at


def test_grades_are_on_disk_within_moments_without_being_asked(kept_at: Path | str) -> None:
    cache = VerdictCache(kept_at)
    cache.put(b"key", {"verdict": "pass"})
    assert cache.get(b"key") == {"verdict": "pass"}
    other = VerdictCache(kept_at)
    for _ in range(200):
        if other.get(b"key"):
            break
        time.sleep(0.05)
    assert other.get(b"key") == {"verdict": "pass"}


def test_two_caches_of_one_place_write_at_once(kept_at: Path | str) -> None:
    caches = [VerdictCache(kept_at) for _ in range(2)]

    def write(cache: VerdictCache, start: int) -> None:
        for i in range(start, start + 50):
            cache.put(str(i).encode(), {"i": i})
            cache.flush()

    threads = [threading.Thread(target=write, args=(cache, n * 50)) for n, cache in enumerate(caches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [caches[0].get(str(i).encode()) for i in range(100)] == [{"i": i} for i in range(100)]


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_broken_cache_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "verdicts.db"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"verdicts\.db: the verdict cache cannot be used \(.*remove the file"):
        VerdictCache(path)


def test_a_database_of_something_else_or_a_folder_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE grades (other TEXT)")
    for place in (path, tmp_path):
        with pytest.raises(UserError, match="the verdict cache cannot be used"):
            VerdictCache(place)


def test_a_cache_that_breaks_while_judging_is_a_user_error(
    chat_server: ChatServer, banking: Policy, tmp_path: Path
) -> None:
    says(chat_server, PASS)
    cache = VerdictCache(tmp_path / "verdicts.db")
    with sqlite3.connect(tmp_path / "verdicts.db") as connection:
        connection.execute("DROP TABLE grades")
    with pytest.raises(UserError, match="the verdict cache cannot be used"):
        list(grade_single(grader_of(chat_server, banking, cache=cache), [RECORD]))


def test_a_verdict_that_one_machine_paid_for_is_asked_for_by_no_other(
    chat_server: ChatServer, banking: Policy, kept_at: Path | str
) -> None:
    says(chat_server, PASS)
    for _ in range(2):
        cache = VerdictCache(kept_at)
        assert next(grade_single(grader_of(chat_server, banking, cache=cache), [RECORD])).outcome == "pass"
        cache.flush()
    assert len(chat_server.requests) == 1


def test_a_grade_of_another_version_is_asked_again(chat_server: ChatServer, banking: Policy) -> None:
    says(chat_server, PASS)
    cache = VerdictCache()
    grader = grader_of(chat_server, banking, cache=cache)
    content = {"question": RECORD.question, "answer": RECORD.answer, "in_scope": None}
    cache.put(content_key(grader.id, content), {"old": 1})
    assert next(grade_single(grader, [RECORD])).outcome == "pass"
    assert len(chat_server.requests) == 1


def test_a_questions_grades_are_erased_and_what_an_older_release_kept(kept_at: Path | str) -> None:
    mine, others = (content_key("a judge", {"question": q, "answer": "a"}) for q in ("kanarie?", "robin?"))
    cache = VerdictCache(kept_at)
    for key in (mine, content_key("another", {"question": "kanarie?", "answer": "b"})):
        cache.put(key, {"explanation": "asks for a kanarie"})
    cache.put(others, {"explanation": "robin"})
    older = content_key("a judge", {"question": "wren?", "answer": "a"})
    cache.put(older[8:], {"explanation": "wren"})  # under the key of a release that knew no question
    cache.flush()
    assert cache.get(older) == {"explanation": "wren"}
    assert cache.erase(["kanarie?", "never asked"]) == 3
    assert (cache.get(mine), cache.get(older), cache.get(others)) == (None, None, {"explanation": "robin"})
    if not isinstance(kept_at, Path):
        return
    files = [each.read_bytes() for each in kept_at.parent.iterdir()]
    assert not any(b"kanarie" in content or b"wren" in content for content in files)
