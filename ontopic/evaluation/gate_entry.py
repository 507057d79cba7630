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
    from the cache again is of the same look, and no new one.

    Args:
        at: now where it is not given.

    Returns:
        The entry of this look.
    """
    before = registry.record.gates(registry.name)
    for entry in before:
        if facts.look is not None and (entry.version, entry.facts.get("look")) == (version, facts.look):
            return entry
    levels = [level for entry in before if isinstance(level := entry.facts.get("alpha"), float)]
    if facts.alpha is not None:
        levels.append(facts.alpha)
    counted = facts.model_copy(
        update={
            "look": facts.look if facts.look is not None else len(before) + 1,
            "alpha_spent": sum(levels) if levels else None,
        }
    )
    why = f"{facts.gate} against version {facts.against}"
    return registry.enter("gate", version, by=LOOP, why=why, facts=counted.model_dump(mode="json"), at=at)


def gate_on_record(registry: ModelRegistry, version: str, *, facts: GateFacts) -> Entry | None:
    """The entry of this very gate, whose decision a later run has from the cache; ``None`` where it is a new one."""
    for entry in reversed(registry.record.gates(registry.name)):
        if (entry.version, entry.facts.get("files"), entry.facts.get("look")) == (version, facts.files, facts.look):
            return entry
    return None


def is_followed(registry: ModelRegistry, gate: Entry) -> bool:
    """Whether a refusal or a wait for approval that follows from a gate is on record."""
    return any(
        entry.kind in ("refusal", "waiting")
        and gate.sha256 in (entry.facts.get("gate_sha256"), entry.facts.get("gate"))
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
