"""Lines and whole files: the same in a state folder and in the database that machines share."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import sqlalchemy as sql

from ontopic.errors import UserError
from ontopic.state.workspace import Workspace

BIG = os.urandom(5_000_000)  # more than a part


def another(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Another machine, whose folder is another, where the state is shared; else another process in the same folder."""
    return Workspace(root=workspace.root if workspace.state_url is None else tmp_path / "another machine")


def lines_of(workspace: Workspace) -> bytes:
    return workspace.lines(workspace.labels / "a policy.jsonl").read()


def test_lines_are_appended_after_the_last_one_whoever_wrote_it(anywhere: Workspace, tmp_path: Path) -> None:
    told = []

    def make(n: int, last: bytes) -> bytes:
        told.append((n, last))
        return b'{"n": %d, "text": "\\r\\u2028"}' % n

    other = another(anywhere, tmp_path)
    for workspace in (anywhere, other, anywhere):
        workspace.lines(workspace.labels / "a policy.jsonl").append(make)
    assert told == [(0, b""), (1, b'{"n": 0, "text": "\\r\\u2028"}'), (2, b'{"n": 1, "text": "\\r\\u2028"}')]
    assert lines_of(anywhere) == lines_of(other) == b"".join(b'{"n": %d, "text": "\\r\\u2028"}\n' % n for n in range(3))
    assert other.lines_in(other.labels) == [other.labels / "a policy.jsonl"]
    assert other.lines_in(other.preference_edits) == []
    assert other.lines(other.labels / "another.jsonl").read() == b""


def test_a_line_that_cannot_be_made_leaves_all_as_it_was(anywhere: Workspace) -> None:
    lines = anywhere.lines(anywhere.promotion_record)
    lines.append(lambda *_: b"{}")

    def fail(*_: object) -> bytes:
        raise ValueError("no line")

    with pytest.raises(ValueError, match="no line"):
        lines.append(fail)
    assert lines.read() == b"{}\n"
    lines.append(lambda n, last: b"[%d]" % n)  # nobody holds it any more
    assert lines.read() == b"{}\n[1]\n"


def test_lines_are_rewritten_and_appended_to_after_that(anywhere: Workspace) -> None:
    lines = anywhere.lines(anywhere.labels / "a policy.jsonl")
    lines.rewrite(lambda _: b"never called: there are none\n")
    assert lines.read() == b""
    for i in range(4):
        lines.append(lambda *_, i=i: b'{"n": %d}' % i)
    lines.rewrite(lambda before: b"".join(before.splitlines(keepends=True)[1::2]))
    assert lines.read() == b'{"n": 1}\n{"n": 3}\n'
    lines.append(lambda n, last: b'{"n": %d, "after": %s}' % (n, last))
    assert lines.read().splitlines()[-1] == b'{"n": 2, "after": {"n": 3}}'
    lines.rewrite(lambda _: b"")
    assert lines.read() == b""


def test_one_at_a_time_holds_a_lock(anywhere: Workspace, tmp_path: Path) -> None:
    held, order = threading.Event(), []
    other = another(anywhere, tmp_path)

    def wait() -> None:
        held.wait()
        with other.lines(other.promotion_record).lock("moving"):
            order.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    with anywhere.lines(anywhere.promotion_record).lock("moving"):
        held.set()
        thread.join(timeout=0.5)
        assert thread.is_alive()
        with anywhere.lines(anywhere.promotion_record).lock("deciding"):  # another one
            order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_files_are_read_where_another_machine_wrote_them(anywhere: Workspace, tmp_path: Path) -> None:
    other = another(anywhere, tmp_path)
    for name, content in {"a.html": BIG, "b.html": b"", "deeper/c%_.json": b"\0\xff"}.items():
        anywhere.files.write(anywhere.evidence / name, content)
        assert other.files.read(other.evidence / name) == content
    anywhere.files.write(anywhere.evidence / "a.html", b"shorter")
    assert other.files.read(other.evidence / "a.html") == b"shorter"
    assert other.files.within(other.evidence) == [other.evidence / n for n in ("a.html", "b.html", "deeper/c%_.json")]
    assert other.files.within(other.evidence / "deepe") == []
    anywhere.files.delete(anywhere.evidence / "a.html")
    with pytest.raises(FileNotFoundError, match=r"No such file.*evidence/a\.html"):
        other.files.read(other.evidence / "a.html")
    assert anywhere.files.where(anywhere.evidence / "a.html").endswith("evidence/a.html")


def test_a_folder_is_there_as_a_whole_and_stays(anywhere: Workspace, tmp_path: Path) -> None:
    folder, other = anywhere.evidence / "of a gate", another(anywhere, tmp_path)

    def broken() -> object:
        yield "decision.json", b"{}"
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="full"):
        anywhere.files.write_folder(folder, broken())
    assert anywhere.files.within(anywhere.evidence) == []
    anywhere.files.write_folder(folder, {"decision.json": b"{}", "gate.html": b"page"}.items())
    other.files.write_folder(other.evidence / "of a gate", {"decision.json": b"changed"}.items())
    assert [anywhere.files.read(path) for path in anywhere.files.within(folder)] == [b"{}", b"page"]


def test_of_two_who_make_a_file_the_first_one_counts(anywhere: Workspace, tmp_path: Path) -> None:
    other = another(anywhere, tmp_path)
    assert anywhere.files.make(anywhere.user_key, b"first") == b"first"
    assert other.files.make(other.user_key, b"second") == b"first"


def test_what_was_changed_in_the_database_is_told(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ontopic.state.database import open_state
    from ontopic.state.shared import PARTS

    monkeypatch.setenv("ONTOPIC_STATE_URL", postgres_database)
    workspace = Workspace(root=Path("/nowhere"))
    workspace.files.write(workspace.judges / "judge.joblib", BIG)
    with open_state(postgres_database).begin() as connection:
        connection.execute(sql.delete(PARTS).where(PARTS.c.number == 1))
    with pytest.raises(UserError, match=r"judges/judge\.joblib: was changed after it was stored"):
        workspace.files.read(workspace.judges / "judge.joblib")
