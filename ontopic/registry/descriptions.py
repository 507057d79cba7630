"""Descriptions in MLflow: why the champion is champion, and what the gate of each version found.

They are Markdown that MLflow draws, so what others wrote is escaped. Nothing is read from them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ontopic.registry.gate_in_markdown import as_dict, gate_in_markdown
from ontopic.registry.markdown import plain
from ontopic.registry.promotion_record import Entry

if TYPE_CHECKING:
    from ontopic.registry.promotions import ModelRegistry, Promotion

_MOST = 5000  # characters, as MLflow's column has it
_SHOWN = 10  # moves


def describe(registry: ModelRegistry, *versions: str) -> None:
    """Write the registered model's description, and those of these versions that are there."""
    moves, entries = registry.promotions(), registry.record.entries(registry.name)
    registry.describe(_cut(_of_model(registry.champion(), moves, entries=entries)))
    for version in set(versions) & set(registry.versions()):
        registry.describe(_cut(_of_version(version, moves, entries=entries)), version)


def _of_model(champion: str, moves: Sequence[Promotion], *, entries: Sequence[Entry]) -> Iterator[str]:
    if not champion or not moves:
        yield "No version is the champion yet."
        return
    last = moves[-1]
    if last.version == champion:
        yield f"**Version {plain(champion)} is the champion** since {last.at:%Y-%m-%d %H:%M} UTC: {_why(last)}."
    else:
        yield f"**Version {plain(champion)} is the champion**; its alias was moved by other means than OnTopic's."
    if (gate := _gate(champion, entries)) is not None:
        yield from gate_in_markdown(gate, as_dict(gate.facts.get("decision")))
    else:
        yield "No gate is on record that measured it."
    yield "### Who was the champion"
    yield "\n".join(
        f"- {each.at:%Y-%m-%d %H:%M} UTC: version {plain(each.version)}; {_why(each)}" for each in _newest(moves)
    )
    yield (
        "All of it, and whether it was changed: `python run.py record` and `python run.py record verify`. "
        "OnTopic writes this description anew at each promotion."
    )


def _of_version(version: str, moves: Sequence[Promotion], *, entries: Sequence[Entry]) -> Iterator[str]:
    yield _standing(version, moves, entries=entries)
    if (gate := _gate(version, entries)) is not None:
        yield from gate_in_markdown(gate, as_dict(gate.facts.get("decision")))
    else:
        yield "No gate is on record that measured it."


def _standing(version: str, moves: Sequence[Promotion], *, entries: Sequence[Entry]) -> str:
    times = [(move, after) for move, after in zip(moves, [*moves, None][1:], strict=True) if move.version == version]
    if not times:
        refused = next((entry for entry in reversed(entries) if entry.version == version), None)
        said = f" The last that was entered of it: {refused.kind}, {plain(refused.why)}." if refused else ""
        return f"**Never the champion.**{said}"
    move, after = times[-1]
    if after is None:
        return f"**Champion since {move.at:%Y-%m-%d %H:%M} UTC**: {_why(move)}."
    until = f"{after.at:%Y-%m-%d %H:%M} UTC, when version {plain(after.version)} took its place"
    return f"**Champion from {move.at:%Y-%m-%d %H:%M} UTC until {until}**: {_why(move)}."


def _why(move: Promotion) -> str:
    """By whom and why it became champion."""
    how = "rolled back to" if move.rollback else "promoted by hand, past its gate," if move.override else "promoted"
    instead = f" in the place of version {plain(move.before)}" if move.before else ""
    return f"{how} by {plain(move.by)}{instead}: {plain(move.why)}"


def _newest(moves: Sequence[Promotion]) -> list[Promotion]:
    return list(reversed(moves))[:_SHOWN]


def _gate(version: str, entries: Sequence[Entry]) -> Entry | None:
    """The last gate of a version that is on record with its decision."""
    gates = [entry for entry in entries if entry.kind == "gate" and entry.version == version]
    return next((gate for gate in reversed(gates) if as_dict(gate.facts.get("decision"))), None)


def _cut(paragraphs: Iterator[str]) -> str:
    """The paragraphs, as many as fit."""
    text = ""
    for each in paragraphs:
        if len(text) + len(each) + 2 > _MOST:
            break
        text += f"{each}\n\n"
    return text.rstrip()
