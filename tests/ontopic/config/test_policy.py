"""Policy files: what they hold, and each mistake named by file and key."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from values import replace

from ontopic.config.policy import Policy, load_policy
from ontopic.errors import UserError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted((CONFIGS / "policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_policy_loads(path: Path) -> None:
    policy = load_policy(path)
    assert policy.registered_model == f"ontopic-{path.stem}"
    assert {example.verdict for example in policy.examples} == {"pass", "fail"}


def policy_with(banking: Policy, **changes: object) -> dict[str, Any]:
    return banking.model_dump(mode="json") | changes


def test_a_policy_reads_its_data_relative_to_itself(tmp_path: Path, banking: Policy) -> None:
    (tmp_path / "mine.jsonl").write_text("{}")
    policy = load_policy(written(tmp_path, policy_with(banking, questions="mine.jsonl")))
    assert policy.questions == str(tmp_path / "mine.jsonl")
    assert policy.records == banking.records


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"nmae": 1}, f"unknown key 'nmae'; the valid keys there are {', '.join(Policy.model_fields)}"),
        (
            {"gate": {"guardrail_score": 0.9, "over_refusal": 0.1, "leak": 0.1, "improvement": 0, "laek": 0}},
            "unknown key 'gate.laek'; the valid keys there are guardrail_score, over_refusal, leak, improvement",
        ),
        (
            {"examples": [{"question": "a", "answer": "b", "verdict": "pass", "why": "c", "wy": ""}] * 2},
            "unknown key 'examples.0.wy'; the valid keys there are question, answer, verdict, why",
        ),
        ({"examples": []}, "'examples' is wrong: list should have at least 2 items"),
        ({"name": "My Bank"}, "'name' is wrong: string should match pattern"),
        ({"languages": ["en", "german"]}, "'languages.1' is wrong: 'german' is no ISO 639-1 code of a language"),
        (
            {"refusals": {"ger": "Nein."}},
            "'refusals.ger.[key]' is wrong: 'ger' is no ISO 639-1 code of a language",
        ),
        ({"refusals": {"de": ""}}, "'refusals.de' is wrong: string should have at least 1 character"),
        ({"alert_threshold": 85}, "'alert_threshold' is wrong: input should be less than or equal to 1"),
    ],
    ids=[
        "key",
        "nested key",
        "key in a list",
        "too few examples",
        "name",
        "language",
        "refusal's language",
        "refusal",
        "threshold",
    ],
)
def test_a_mistake_in_a_policy_is_named(tmp_path: Path, banking: Policy, changes: dict[str, object], said: str) -> None:
    path = written(tmp_path, policy_with(banking, **changes))
    with pytest.raises(UserError) as caught:
        load_policy(path)
    assert f"{path}: {said}" in str(caught.value)


def test_the_digest_is_of_the_whole_policy(banking: Policy) -> None:
    as_before = banking.model_dump_json(exclude={"least_liked"})  # of evidence from before there was such a key
    assert banking.sha256 == hashlib.sha256(as_before.encode()).hexdigest()
    assert banking.sha256 == replace(banking).sha256
    assert replace(banking, least_liked=0.4).sha256 != banking.sha256
    stricter = replace(banking, gate=replace(banking.gate, leak=0.01))
    assert stricter.sha256 != banking.sha256


def test_a_policy_declines_in_the_languages_that_it_has_a_sentence_in(banking: Policy) -> None:
    assert banking.refusal_in("de") == "Entschuldigung, ich kann nur bei Bankfragen helfen."
    assert banking.refusal_in("pt") == banking.refusal_in("") == banking.refusal
    assert banking.all_refusals[0] == banking.refusal and len(banking.all_refusals) == 4
    alone = replace(banking, refusals={})
    assert (alone.refusal_in("de"), alone.all_refusals) == (banking.refusal, (banking.refusal,))


def test_what_is_answered_in_goes_by_the_languages_named(banking: Policy) -> None:
    assert all(banking.answers_in(language) for language in ("en", "pl", ""))  # as labelled
    german = replace(banking, languages=["de"])
    assert [german.answers_in(language) for language in ("de", "en", "")] == [True, False, True]
