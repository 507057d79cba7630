"""Whom a client asks for, as it is stored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from loopback import ROOT

from ontopic.errors import UserError
from ontopic.state.workspace import Workspace
from ontopic.traffic.identity import conversation_id, names_key, user_hash


def test_a_name_is_hashed_with_a_key_of_the_state_folder(tmp_path: Path) -> None:
    key = tmp_path / "a folder" / "user.key"
    first = user_hash("ann@example.com", key)
    assert len(first) == 32
    assert int(first, 16)
    assert (user_hash("ann@example.com", key), user_hash("", key)) == (first, "")
    assert user_hash("bob", key) != first != user_hash("ann@example.com", tmp_path / "other.key")
    assert user_hash("\ud800", key)  # JSON can hold it
    assert key.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["user.key"]


def test_processes_that_begin_at_once_make_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ontopic.traffic.identity import user_hash; sys.stdin.read(1);"
        "print(user_hash('ann', Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "user.key")]
    others = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert len({other.communicate("x")[0] for other in others}) == 1


@pytest.mark.parametrize("content", [b"", b"abcd", b"no key", b"\xff"])
def test_a_key_that_is_none_is_the_users_to_mend(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "user.key").write_bytes(content)
    with pytest.raises(UserError, match=r"user\.key"):
        user_hash("ann", tmp_path / "user.key")


def test_a_conversations_name_is_kept_where_it_gives_nobody_away(tmp_path: Path) -> None:
    key = tmp_path / "user.key"
    for name in ("chat-7", "0b6f3f4e-2d1c-4f8e-9c57-1d2e3f4a5b6c", "x" * 64):
        assert conversation_id(name, key) == name
    for name in ("ann@example.com", "x" * 65, "a\nb", "\ud800", "a\0b"):
        assert len(conversation_id(name, key)) == 32


def test_machines_that_share_the_state_hash_with_one_key(
    tmp_path: Path, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Workspace(root=tmp_path)
    before = user_hash("ann", names_key(alone))
    assert names_key(alone) == alone.user_key
    monkeypatch.setenv("ONTOPIC_STATE_URL", postgres_database)
    # A service that had a file brings its key along.
    first = names_key(Workspace(root=tmp_path / "a"), own=alone.user_key)
    assert user_hash("ann", first) == user_hash("ann", names_key(Workspace(root=tmp_path / "b"))) == before
    assert not (tmp_path / "b").exists()
    (tmp_path / "other.key").write_text("ab" * 32)
    with pytest.raises(UserError, match=r"other\.key: is another key than that in postgresql://"):
        names_key(alone, own=tmp_path / "other.key")
