"""Signatures: by the key that is configured, and looked at with its public half."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from ontopic.errors import UserError
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.record_signing import SIGNING_KEY, is_signed, public_key

KEY = Ed25519PrivateKey.generate()


def pem(key: object = KEY, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())  # type: ignore[attr-defined]


def public_pem(key: Ed25519PrivateKey = KEY) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def add(tmp_path: Path) -> None:
    PromotionRecord(tmp_path / "promotions.jsonl").add("gate", "m", version="1", by="a", why="w", facts={})


@pytest.mark.parametrize("form", ["path", "pem", "pem on one line"])
def test_an_entry_is_signed_by_the_key_that_is_configured(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.pem").write_bytes(pem())
    (tmp_path / "public.pem").write_bytes(public_pem())
    (tmp_path / "other.pem").write_bytes(public_pem(Ed25519PrivateKey.generate()))
    given = {
        "path": str(tmp_path / "key.pem"),
        "pem": pem().decode(),
        "pem on one line": pem().decode().replace("\n", "\\n"),
    }
    monkeypatch.setenv(SIGNING_KEY, given[form])
    add(tmp_path)
    (entry,) = PromotionRecord(tmp_path / "promotions.jsonl").entries()
    assert entry.signature is not None and len(entry.signature) == 128
    ours, other = public_key(tmp_path / "public.pem"), public_key(tmp_path / "other.pem")
    assert is_signed(entry.sha256, entry.signature, by=ours)
    assert not is_signed(entry.sha256, entry.signature, by=other)
    assert not is_signed("0" * 64, entry.signature, by=ours)
    assert not is_signed(entry.sha256, "no hex", by=ours)
    assert entry.digest() == entry.sha256


def test_what_the_docs_say_of_openssl_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)  # noqa: S607

    try:
        openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "key.pem"))
    add(tmp_path)
    (entry,) = PromotionRecord(tmp_path / "promotions.jsonl").entries()
    assert is_signed(entry.sha256, str(entry.signature), by=public_key(tmp_path / "public.pem"))
    (tmp_path / "hash").write_text(entry.sha256)
    (tmp_path / "signature").write_bytes(bytes.fromhex(str(entry.signature)))
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "hash", "-sigfile", "signature")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory); make one with `openssl genpkey"),
        (b"junk", "is no private key in PEM; make one with"),
        (b"", "is no private key in PEM"),
        (public_pem(), "is no private key in PEM"),
        (pem(encryption=BestAvailableEncryption(b"secret")), "the key has a password, which nobody is there to type"),
        (pem(generate_private_key(65537, 2048)), "is a key of another kind than Ed25519"),
    ],
    ids=["missing", "junk", "empty", "public", "password", "rsa"],
)
def test_a_wrong_key_is_one_sentence_and_nothing_is_written(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(SIGNING_KEY, str(path))
    with pytest.raises(UserError) as told:
        add(tmp_path)
    assert str(told.value).startswith(f"{SIGNING_KEY}: {path}: ") and said in str(told.value)
    assert not (tmp_path / "promotions.jsonl").exists()


def test_a_pem_in_the_variable_is_not_shown_where_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY, pem().decode().replace("M", "N"))
    with pytest.raises(UserError) as told:
        add(tmp_path)
    assert str(told.value).startswith(f"{SIGNING_KEY}: is no private key in PEM") and "BEGIN" not in str(told.value)


@pytest.mark.parametrize("content", [None, b"", b"junk", pem()], ids=["missing", "empty", "junk", "private"])
def test_what_is_no_public_key_is_told(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "public.pem").write_bytes(content)
    with pytest.raises(UserError, match=r"public\.pem: (is no public key of Ed25519|the key cannot be read)"):
        public_key(tmp_path / "public.pem")
