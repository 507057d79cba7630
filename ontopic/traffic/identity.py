"""Who asked, in words that give nobody away."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from ontopic.traffic.redaction import redact

_KEY_BYTES = 32
_CHARACTERS = 32  # of a hash that is stored: 128 bits
_LONGEST = 64


def user_hash(name: str, key_file: Path) -> str:
    """What is stored of whom a client said it asks for: an HMAC-SHA256 in hex, of 128 bits; empty for no name.

    Args:
        key_file: ``Workspace.user_key``; made where missing, readable by its owner alone.
    """
    if not name:
        return ""
    if not key_file.exists():
        with suppress(FileExistsError):
            descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_KEY_BYTES))
    key = bytes.fromhex(key_file.read_text(encoding="ascii"))
    return hmac.digest(key, name.encode("utf-8", "surrogatepass"), "sha256").hex()[:_CHARACTERS]


def conversation_id(given: str, key_file: Path) -> str:
    """What is stored of a conversation's id that a client gave: the id, or, of one that is too long, is not printable
    or holds personal data, a hash as ``user_hash`` makes it."""
    plain = given.isprintable() and len(given) <= _LONGEST and redact(given).text == given
    return given if plain else user_hash(given, key_file)
