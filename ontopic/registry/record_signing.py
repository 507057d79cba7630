"""Signatures of the promotion record: Ed25519 (RFC 8032), by a key that only who writes the record has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ontopic.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNING_KEY = "ONTOPIC_SIGNING_KEY"
"""The environment variable with the private key: the path of a PEM file, or the PEM itself."""
_MAKE_ONE = "make one with `openssl genpkey -algorithm ed25519 -out FILE` (docs/reference/record.md)"


def signature(sha256: str, by: Ed25519PrivateKey) -> str:
    """The signature of an entry's hash, as the text that it is, in hex."""
    return by.sign(sha256.encode()).hex()


def signing_key() -> Ed25519PrivateKey | None:
    """The private key that is configured; ``None`` where none is.

    Raises:
        UserError: what is configured is no such key.
    """
    given = os.environ.get(SIGNING_KEY, "").strip()
    if not given:
        return None
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    is_pem = given.startswith("-----BEGIN")
    what = SIGNING_KEY if is_pem else f"{SIGNING_KEY}: {given}"
    content = given.replace("\\n", "\n").encode() if is_pem else _read(Path(given), what)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise UserError(f"{what}: the key has a password, which nobody is there to type; give one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UserError(f"{what}: is no private key in PEM; {_MAKE_ONE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{what}: is a key of another kind than Ed25519; {_MAKE_ONE}")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM file.

    Raises:
        UserError: it holds none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(path, str(path)))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(
            f"{path}: is no public key of Ed25519 in PEM; "
            "`openssl pkey -in FILE -pubout` writes that of a private key (docs/reference/record.md)"
        )
    return key


def is_signed(sha256: str, signature: str, *, by: Ed25519PublicKey) -> bool:
    """Whether the signature of an entry's hash is that of the key."""
    from cryptography.exceptions import InvalidSignature

    try:
        by.verify(bytes.fromhex(signature), sha256.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _read(path: Path, what: str) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise UserError(f"{what}: the key cannot be read ({why}); {_MAKE_ONE}") from None
