"""Who asked, and in which conversation, in words that give nobody away."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from pathlib import Path

from ontopic.errors import UserError
from ontopic.state.files import DiskFiles
from ontopic.state.workspace import Workspace
from ontopic.traffic.redaction import redact

_KEY_BYTES = 32
_CHARACTERS = 32  # of a hash that is stored: 128 bits
_LONGEST = 64


NamesKey = Path | bytes
"""The key that names are hashed with, or its file."""


def names_key(workspace: Workspace, own: Path | None = None) -> NamesKey:
    """The key of a workspace: its file, or, where machines share the state, the key, which is made where missing.

    Args:
        own: a file that machines had before they shared the state: the key is taken from it, where there is none yet.

    Raises:
        UserError: what is kept is no key, or not that in the file.
    """
    if workspace.state_url is None:
        return workspace.user_key
    before = own.read_bytes().strip() if own is not None and own.is_file() else b""
    where = workspace.files.where(workspace.user_key)
    kept = workspace.files.make(workspace.user_key, before or _new())
    if before and kept.strip() != before:
        raise UserError(f"{own}: is another key than that in {where}, which users' names are hashed with; remove one")
    return _checked(kept, where)


def user_hash(name: str, key: NamesKey) -> str:
    """What is stored of whom a client said it asks for: an HMAC-SHA256 in hex, of 128 bits; empty for no name.

    Without the key nobody can try names until one gives the hash.

    Args:
        key: ``names_key``; a file is made where missing, readable by its owner alone.

    Raises:
        UserError: the file cannot be read or made, or holds no key.
    """
    if not name:
        return ""
    return hmac.digest(
        key if isinstance(key, bytes) else _key(key), name.encode("utf-8", "surrogatepass"), "sha256"
    ).hex()[:_CHARACTERS]


def conversation_id(given: str, key: NamesKey) -> str:
    """What is stored of a conversation's id that a client gave: the id, or, of one that is too long, is not printable
    or holds personal data, a hash as ``user_hash`` makes it."""
    plain = given.isprintable() and len(given) <= _LONGEST and redact(given).text == given
    return given if plain else user_hash(given, key)


def begun_alike(key: str, user: str, *, first: str) -> str:
    """A hash that is the same for the turns of one conversation, where nobody names it: of who asks, and what the user
    says first. Personal data goes first, for a hash of a card's number is soon undone.

    Args:
        key: the name of the API key.
        user: a hash (``user_hash``).
    """
    who_and_what = json.dumps([key, user, redact(first).text])
    return hashlib.sha256(who_and_what.encode()).hexdigest()[:_CHARACTERS]


def _key(path: Path) -> bytes:
    try:
        content = DiskFiles().make(path, _new())
    except OSError as error:
        raise _unreadable(str(path), error.strerror) from error
    return _checked(content, str(path))


def _new() -> bytes:
    return secrets.token_hex(_KEY_BYTES).encode()


def _checked(content: bytes, where: str) -> bytes:
    try:
        key = bytes.fromhex(content.decode("ascii"))
    except ValueError as error:
        raise _unreadable(where, "it is not hexadecimal") from error
    if len(key) < _KEY_BYTES:
        raise UserError(
            f"{where}: is too short for the key that users' names are hashed with; restore it, or delete it"
        )
    return key


def _unreadable(where: str, why: str | None) -> UserError:
    return UserError(
        f"{where}: the key that users' names are hashed with cannot be read ({why}); see to the file's rights, or "
        "delete it: names are then hashed anew, and what was stored of them before is not found by name any more"
    )
