"""Who asked, and in which conversation, in words that give nobody away."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from ontopic.errors import UserError
from ontopic.traffic.redaction import redact

_KEY_BYTES = 32
_CHARACTERS = 32  # of a hash that is stored: 128 bits
_LONGEST = 64


def user_hash(name: str, key_file: Path) -> str:
    """What is stored of whom a client said it asks for: an HMAC-SHA256 in hex, of 128 bits; empty for no name.

    Without the key nobody can try names until one gives the hash.

    Args:
        key_file: ``Workspace.user_key``; made where missing, readable by its owner alone.

    Raises:
        UserError: the file cannot be read or made, or holds no key.
    """
    if not name:
        return ""
    return hmac.digest(_key(key_file), name.encode("utf-8", "surrogatepass"), "sha256").hex()[:_CHARACTERS]


def conversation_id(given: str, key_file: Path) -> str:
    """What is stored of a conversation's id that a client gave: the id, or, of one that is too long, is not printable
    or holds personal data, a hash as ``user_hash`` makes it."""
    plain = given.isprintable() and len(given) <= _LONGEST and redact(given).text == given
    return given if plain else user_hash(given, key_file)


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
        if not path.exists():
            _make(path)
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not hexadecimal"
        raise UserError(
            f"{path}: the key that users' names are hashed with cannot be read ({why}); see to the file's rights, or "
            "delete it: names are then hashed anew, and what was stored of them before is not found by name any more"
        ) from error
    if len(key) < _KEY_BYTES:
        raise UserError(f"{path}: is too short for the key that users' names are hashed with; restore it, or delete it")
    return key


def _make(path: Path) -> None:
    """Put a new key there, whole, unless another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(secrets.token_hex(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    with suppress(FileExistsError):
        os.link(part, path)
    part.unlink()
