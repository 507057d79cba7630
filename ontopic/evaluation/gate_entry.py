"""A gate's entries in the promotion record: what it found, and that a challenger was refused."""

from __future__ import annotations

from datetime import datetime

from ontopic.evaluation.gate import Decision
from ontopic.evaluation.gate_facts import GateFacts
from ontopic.registry.promotion_record import Entry
from ontopic.registry.promotions import ModelRegistry, of_gate

LOOP = "the loop"


def enter_gate(registry: ModelRegistry, version: str, *, facts: GateFacts, at: datetime | None = None) -> Entry:
    """Append what a gate found of a version. A second gate of the same version adds an entry; a decision that comes
    from the cache again adds none: it is of the same look, answers and verdicts.

    Args:
        at: now where it is not given.

    Returns:
        The entry of this decision.
    """
    before = registry.record.gates(registry.name)
    for entry in before:
        if (entry.version, entry.facts.get("look"), entry.facts.get("files")) == (version, facts.look, facts.files):
            return entry
    levels = [level for entry in before if isinstance(level := entry.facts.get("alpha"), float)]
    if facts.alpha is not None:
        levels.append(facts.alpha)
    counted = facts.model_copy(update={"alpha_spent": sum(levels) if levels else None})
    why = f"{facts.gate} against version {facts.against}"
    return registry.enter("gate", version, by=LOOP, why=why, facts=counted.model_dump(mode="json"), at=at)


def has_waited(registry: ModelRegistry, gate: Entry) -> bool:
    """Whether persons were asked for their approval of what this gate let pass."""
    return any(
        entry.kind == "waiting" and entry.facts.get("gate_sha256") == gate.sha256
        for entry in registry.record.entries(registry.name)
    )


def enter_refusal(registry: ModelRegistry, gate: Entry, *, decision: Decision) -> Entry:
    """Append that a gate refused the version of its entry, and by which tests; once a gate."""
    for entry in registry.record.entries(registry.name):
        if entry.kind == "refusal" and entry.facts.get("gate_sha256") == gate.sha256:
            return entry
    failed = [test.description for test in decision.tests if not test.passed]
    why = "; ".join(failed) or "the gate"
    return registry.enter("refusal", gate.version, by=gate.by, why=why, facts=of_gate(gate), at=gate.at)


def outcome_of(registry: ModelRegistry, gate: Entry) -> str:
    """What followed from a gate so far, in a few words."""
    following = {"promotion": "promoted", "refusal": "refused", "waiting": "waits for approval", "rollout": "rolls out"}
    if registry.champion() == gate.version:
        return "promoted"
    followed = [
        following[entry.kind]
        for entry in registry.record.entries(registry.name)
        if entry.version == gate.version and entry.number > gate.number and entry.kind in following
    ]
    return followed[-1] if followed else str(gate.facts.get("gate"))
