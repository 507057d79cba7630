"""``record`` shows what was decided and on what, and what was before; ``record verify`` ends with 1 on a fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from registries import made_registry
from typer.testing import CliRunner, Result

from ontopic.errors import UserError
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.record_signing import SIGNING_KEY
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.statistics.rates import rate

NAME = "ontopic-banking"


def called(state: Path, *arguments: str) -> Result:
    import run
    from ontopic.commands.options import console

    before, console._width = console._width, 160  # the console was made when its module was first imported
    try:
        return CliRunner().invoke(run.app, [*arguments, "--state", str(state)])
    finally:
        console._width = before


def registry_of(state: Path) -> ModelRegistry:
    return open_registry(open_workspace(state), NAME)


def scores(passed: int, unjudged: int) -> dict[str, object]:
    share = rate(passed, 100).model_dump(mode="json")
    return {"guardrail_score": share, "over_refusal": share, "leak": share, "unjudged": unjudged}


def enter_gate(registry: ModelRegistry) -> None:
    """A gate's entry as the loop writes it, with a stranger's text in it."""
    tests = [
        {"name": "Leak", "passed": False, "description": "Leak: upper bound 0.31 must be at most 0.2"},
        {"name": "Unjudged", "passed": True, "description": "Unjudged: \x1b[31m\u202e 2 of 100"},
    ]
    decision = {"champion": scores(80, 1), "challenger": scores(93, 17), "tests": tests, "detectable": 0.031}
    segment = {"by": "kind", "name": "role_play", "n": 40, "champion": scores(70, 5), "challenger": scores(90, 6)}
    intents = [segment | {"by": "intent", "name": f"intent {i}"} for i in range(12)]
    card = {"judge_id": "judge-7", "origin": "traffic", "labels_sha256": "1ab", "n": 204} | {
        name: rate(96, 100).model_dump(mode="json") for name in ("accuracy", "kappa", "sensitivity", "specificity")
    }
    facts = {
        "gate": "failed",
        "against": "1",
        "decision": decision,
        "segments": [segment, *intents],
        "card": card,
        "questions": {"n": 100, "seed": 7, "sha256": "5a", "ids": ["0a1"]},
        "look": 3,
        "alpha": 0.0125,
        "weights_sha256": "3c",
        "code": {"commit": "c0ffee", "packages": {"trl": "1.16.0"}},
        "settings": {"training": {"beta": 1.0, "seed": 11}},
        "files": {},
    }
    registry.enter("gate", "2", by="the loop", why="failed against version 1", facts=facts)


def test_what_was_before_the_record_is_said_to_be_so(state_before: Path) -> None:
    said = called(state_before, "record").output
    assert said.startswith("Before the record began (from the registry's tags")
    assert "version 2 promoted by the loop: passed the gate against version 1" in said
    assert "The promotion record has no entry yet." in said
    assert "ontopic.gate.guardrail_score: " in called(state_before, "record", "2").output
    assert "version 1 rolled back to by an engineer" in called(state_before, "record", "champion").output
    assert not open_workspace(state_before).promotion_record.exists()

    assert called(state_before, "promote", "2", "--why", "better").exit_code == 0
    said = called(state_before, "record").output
    before, _, after = said.partition("The promotion record of")
    assert "rolled back to by an engineer" in before and "better" not in before
    assert "promotion by hand" in after and "better" in after
    assert called(state_before, "record", "verify").exit_code == 0


def test_an_entry_is_a_screen_with_all_that_was_decided_on(state_before: Path) -> None:
    enter_gate(registry_of(state_before))
    said = " ".join(called(state_before, "record", "2").output.split())
    for each in (
        "Entry 1: gate failed, version 2 of ontopic-banking",
        "by the loop: failed against version 1",
        "FAILED: Leak: upper bound 0.31 must be at most 0.2",
        "passed: Unjudged: \\x1b[31m\\u202e 2 of 100",
        "guardrail score 0.800 [0.711, 0.867] (n=100) 0.930 [0.863, 0.966] (n=100)",
        "unjudged answers 1 17",
        "detectable 0.031",
        "kind role_play 40 0.700 [0.604, 0.781] 0.900 [0.826, 0.945] 5 | 6",
        "The 10 largest of 12 intents; --json has all",
        "look 3",
        "alpha 0.0125",
        "questions asked n 100, seed 7, sha256 5a",
        "judge judge_id judge-7, labels_sha256 1ab, n 204, origin traffic",
        "judge's specificity 0.960 [0.902, 0.984] (n=100)",
        "code commit c0ffee",
        "packages trl 1.16.0",
        "settings of training beta 1, seed 11",
        "signature none",
    ):
        assert each in said, each
    assert "\x1b" not in said and "\u202e" not in said


def test_a_hand_move_past_a_failed_gate_is_plain_to_see(state_before: Path) -> None:
    enter_gate(registry_of(state_before))
    said = called(state_before, "promote", "2", "--why", "nicer to talk to", "--by", "mallory").output
    assert "its gate: failed" in said and "on record as an override: without a gate that it passed against 1" in said
    for where in (("record",), ("record", "2")):
        said = called(state_before, *where).output
        assert "promotion by hand, an override (its gate: failed)" in said
        assert "mallory" in said and "nicer to talk to" in said
    assert "promoted past its gate (failed)" in called(state_before, "status").output


def test_json_has_the_entries_as_they_are_kept(state_before: Path) -> None:
    registry = registry_of(state_before)
    enter_gate(registry)
    registry.promote("2", by="ann", why="better")
    registry.roll_back("bob", why="worse")
    found = json.loads(called(state_before, "record", "--json").stdout)
    assert found == [entry.model_dump(mode="json") for entry in registry.record.entries()]
    assert found == [json.loads(line) for line in registry.record.kept.path.read_bytes().splitlines()]
    assert [entry["kind"] for entry in json.loads(called(state_before, "record", "2", "--json").stdout)] == [
        "gate",
        "promotion",
    ]


def test_the_files_of_evidence_are_written_where_somebody_wants_them(anywhere: Workspace, tmp_path: Path) -> None:
    registry, out = made_registry(anywhere.root, name=NAME), tmp_path / "for the auditor"
    anywhere.files.write(anywhere.evidence / "g1" / "gate.html", b"page")
    files = {"evidence/g1/gate.html": "ab", "evidence/g1/gone.html": "cd", "evidence/../../up.html": "ef"}
    registry.enter("gate", "2", by="the loop", why="", facts={"gate": "failed", "files": files})
    done = called(anywhere.root, "record", "2", "--evidence", str(out))
    assert done.exit_code == 0, done.output
    assert "gone.html: is not there" in done.output
    assert [path.relative_to(out).as_posix() for path in out.rglob("*.html")] == ["g1/gate.html"]
    assert (out / "g1" / "gate.html").read_bytes() == b"page"


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("9", "nothing is on record of a version 9 of 'ontopic-banking', and there is none"),
        ("x", "'ontopic-banking' has no version or alias 'x'; its versions are: 1, 2"),
    ],
)
def test_a_version_that_is_not_there_is_one_sentence(state_before: Path, which: str, said: str) -> None:
    done = called(state_before, "record", which)
    assert isinstance(done.exception, UserError) and str(done.exception).startswith(said), done.exception


def test_a_version_that_no_gate_has_seen_is_told(state_before: Path) -> None:
    registry = registry_of(state_before)
    registry.promote("2", by="ann", why="better")
    for key in [key for key in registry._tables.tags() if key.startswith("ontopic.promotion.")]:
        registry._tables.set_tag(key, registry.promotions()[-1].model_dump_json())
    done = called(state_before, "record", "1")
    assert str(done.exception) == "nothing is on record of version 1 of 'ontopic-banking': no gate has seen it yet"


def test_verify_ends_with_1_and_says_which_line(state_before: Path) -> None:
    registry = registry_of(state_before)
    enter_gate(registry)
    registry.promote("2", by="ann", why="better")
    done = called(state_before, "record", "verify")
    head = registry.record.entries()[-1].sha256
    assert done.exit_code == 0
    assert done.output.splitlines()[0] == "entries: 2, files: 0; all are as they were written"
    assert f"head: {head}" in done.output
    assert called(state_before, "record", "verify", "--head", f" {head.upper()}\n").exit_code == 0
    assert called(state_before, "record", "verify", "--head", "0" * 64).exit_code == 1

    registry.record.kept.path.write_bytes(registry.record.kept.path.read_bytes().replace(b'"better"', b'"bitter"'))
    done = called(state_before, "record", "verify")
    assert done.exit_code == 1
    assert f"WRONG: {registry.record.kept.path}:2: was changed" in done.output
    assert str(done.exception) == f"{registry.record.kept.path}: is not as it was written; 1 fault is listed above"


def test_an_alias_that_is_elsewhere_is_said_wherever_one_looks(state_before: Path) -> None:
    registry = registry_of(state_before)
    registry.enter("promotion", "2", by="the loop", why="passed", facts={"before": "1"})
    for where in (("record",), ("record", "2"), ("status",), ("record", "verify")):
        said = " ".join(called(state_before, *where).output.split())
        assert (
            "on record version 2 is the champion (entry 1, promotion by the loop), but the alias is on version 1"
            in said
        )


def test_signatures_are_looked_at_with_the_public_key(
    state_before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(public)
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "key.pem"))
    assert called(state_before, "promote", "2", "--why", "better").exit_code == 0
    done = called(state_before, "record", "verify", "--public-key", str(tmp_path / "public.pem"))
    assert "entries: 1, 1 of them signed by this key, files: 0" in done.output
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "nowhere.pem"))
    done = called(state_before, "rollback", "--why", "worse")
    assert isinstance(done.exception, UserError) and "the key cannot be read" in str(done.exception)
    assert registry_of(state_before).champion() == "2"
