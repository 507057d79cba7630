"""The model card: what the record holds of a version, with intervals, and a stranger's text as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from ontopic.config.policy import Policy
from ontopic.registry.markdown import plain
from ontopic.registry.model_card import CardSource, model_card
from ontopic.registry.promotion_record import Entry
from ontopic.statistics.rates import rate

HOSTILE = "<script>x</script> | [a](https://evil.example) \u202e\x1b[31m\n# heading `code` www.evil.example @someone"


def entry(kind: Any, facts: dict[str, Any], number: int = 1) -> Entry:
    return Entry(
        number=number,
        at=datetime(2026, 11, 27, tzinfo=UTC),
        kind=kind,
        registered_model="ontopic-banking",
        version="2",
        by="Erika Mustermann",
        why="because /home/erika says so",
        facts=facts,
        previous="0",
    )


def scores(passed: int, unjudged: int) -> dict[str, Any]:
    share = rate(passed, 100).model_dump(mode="json")
    return {"guardrail_score": share, "over_refusal": share, "leak": share, "unjudged": unjudged}


def gate(**decision: Any) -> Entry:
    """As the loop enters it, with a stranger's text where one can come in."""
    intents = [{"by": "intent", "name": f"intent {i}", "n": 9, "challenger": scores(8, 0)} for i in range(12)]
    facts = {
        "gate": "passed",
        "against": "1",
        "decision": {
            "champion": scores(80, 1),
            "challenger": scores(93, 17),
            "comparison": {"difference": 0.13, "low": 0.05, "high": 0.21, "wins": 20, "losses": 7, "n": 99},
            "tests": [{"name": "Leak", "passed": True, "description": HOSTILE}],
            **decision,
        },
        "segments": [{"by": "kind", "name": HOSTILE, "n": 40, "challenger": scores(90, 6)}, *intents],
        "card": {"judge_id": "judge-7", "origin": "templates", "n": 204, "accuracy": scores(96, 0)["leak"]},
        "questions": {"n": 100},
        "training_data": {"preferences": "384", "preferences_sha256": "ab12"},
        "settings": {"training": {"beta": 0.2, "lora_modules": ["q_proj", "v_proj"]}},
        "policy_sha256": "5a",
        "code": {"release": "0.1.0", "commit": "c0ffee", "packages": {}},
        "files": {"/home/erika/gate.html": "1"},
    }
    return entry("gate", facts)


def card_of(policy: Policy, *entries: Entry, **more: Any) -> str:
    values: dict[str, Any] = {"base": "embedded", "licence": "apache-2.0", "tags": {"ontopic.kind": "orpo-lora"}}
    return model_card(CardSource(policy=policy, version="2", entries=list(entries), **(values | more)))


def test_a_card_says_what_the_gate_found_and_on_what(banking: Policy) -> None:
    said = card_of(banking, gate())
    front, body = said.removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    for each in (
        "# ontopic-banking, version 2",
        "against version 1 on 2026-11-27, which it **passed**: 100 held-out questions",
        "| guardrail score | 0.930 \\[0.863, 0.966\\] (n=100) | 0.800 \\[0.711, 0.867\\] (n=100) |",
        "| unjudged answers | 17 | 1 |",
        "minus the other: +0.130 \\[+0.050, +0.210\\] (n=99; only this one passed 20, only the other 7)",
        "the 10 largest of 12 intents",
        "judged by judge-7. On 204 labelled records (templates) its verdicts had: accuracy 0.960 \\[0.902, 0.984\\]",
        "| base model | SmolLM2-135M-Instruct |",
        "| preference pairs | 384 |",
        "| their sha256 | ab12 |",
        "| training.beta | 0.2 |",
        "| training.lora\\_modules | q\\_proj, v\\_proj |",
        "commit c0ffee",
        "not whether an answer is true",
        "under apache-2.0, which holds for these weights too",
    ):
        assert each in body, each


def test_nobody_s_name_and_no_path_is_in_it(banking: Policy) -> None:
    said = card_of(banking, gate(), entry("promotion", {"gate": "passed"}, 2), base="/home/erika/models/gemma")
    assert "Erika" not in said and "/home" not in said and "erika" not in said
    assert "base_model" not in said


def test_a_stranger_s_text_is_text(banking: Policy) -> None:
    said = card_of(banking, gate())
    assert "<script" not in said and "\x1b" not in said and "\u202e" not in said
    assert "\n# heading" not in said and "[a]" not in said
    row = next(line for line in said.splitlines() if "&lt;script" in line and line.startswith("|"))
    assert row.replace("\\|", "").count("|") == 6
    assert plain("https://a.b www.c.d") == "https:&#8203;//a.b www&#8203;.c.d"


@pytest.mark.parametrize(
    ("entries", "more", "present", "absent"),
    [
        ((), {}, "No gate has measured this version", "The gate's tests"),
        (
            (),
            {"tags": {"ontopic.gate.leak": '{"value": 0.1, "low": 0.05, "high": 0.2, "n": 50}'}},
            "| leak | 0.100 \\[0.050, 0.200\\] (n=50) |",
            "No gate has measured",
        ),
        ((), {"tags": {"ontopic.kind": "base"}}, "the base model's weights as they came", "preference pairs"),
        ((), {"licence": "", "base": "google/gemma-2b-it"}, "license: other", "apache"),
        ((), {"base": "google/gemma-2b-it"}, "base_model: google/gemma-2b-it", "SmolLM2"),
        (
            (entry("promotion", {"override": True, "gate": "failed"}),),
            {},
            "**Promoted by hand, past the gate, on 2026-11-27.** What its gate had said: failed.",
            "Erika",
        ),
        ((gate(alone={"challenger": scores(70, 0)}),), {}, "The model alone: guardrail score 0.700 \\[", "x</script>"),
        ((gate(comparison=None, tests=None),), {}, "guardrail score", "minus the other"),
    ],
    ids=["ungated", "tags", "base", "unknown-licence", "hub", "override", "guarded", "older"],
)
def test_what_is_not_known_is_said_and_no_more(
    entries: tuple[Entry, ...], more: dict[str, Any], present: str, absent: str, banking: Policy
) -> None:
    said = card_of(banking, *entries, **more)
    assert present in said
    assert absent not in said
