"""Which challengers wait for a person's approval, who has given it, and what makes it void.

All of it is read off the promotion record; nothing is kept besides. A challenger that passed the gate gets an entry
``waiting``, whose facts are its ``Terms``. Entries ``approval``, ``rejection`` and ``expiry`` name that entry by its
sha256, so that none of them can be meant for a wait before or after it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.config.watch_settings import PromotionSettings
from ontopic.errors import UserError
from ontopic.registry.promotion_record import Entry

Approvers = Literal["one", "two"]
_NEEDED: dict[str, int] = {"automatic": 0, "one": 1, "two": 2}
_SHOWN_DIGEST = 12


class Terms(BaseModel):
    """What an approval is bound to.

    Attributes:
        approval: how many persons were asked for when the wait began.
        until: when it expires.
        champion: the version in whose place the challenger would come, and against which the gate held it.
        gate_sha256: of the gate's entry.
        weights_sha256: of the challenger's weights.
        policy_sha256: of the policy that the gate went by.
        trained_by: who started the loop or `watch` that trained these weights, or gave them to the gate.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    approval: Approvers
    until: datetime
    champion: str
    gate_sha256: str
    weights_sha256: str
    policy_sha256: str
    trained_by: tuple[str, ...]


class Present(BaseModel):
    """How things are now, to be held against ``Terms``.

    Attributes:
        weights: the sha256 of each copy of the challenger's weights, of which there is none where the version is gone.
    """

    model_config = ConfigDict(frozen=True)
    champion: str
    weights: tuple[str, ...]
    policy_sha256: str


class Waiting(BaseModel):
    """A challenger that waits.

    Attributes:
        entry: that of kind ``waiting``.
        needed: how many persons must approve it.
        until: when it expires.
        approved_by: who has approved it, in their order.
    """

    model_config = ConfigDict(frozen=True)
    entry: Entry
    terms: Terms
    needed: int
    until: datetime
    approved_by: tuple[str, ...]

    @property
    def version(self) -> str:
        """The challenger's."""
        return self.entry.version

    @property
    def is_approved(self) -> bool:
        """Whether all have approved it who must: as many persons as are needed, and one who did not train it."""
        return len(self.approved_by) >= self.needed and any(not self.is_trainer(by) for by in self.approved_by)

    def is_trainer(self, by: str) -> bool:
        """Whether a person trained it."""
        return same_person(by, self.terms.trained_by)

    @property
    def in_words(self) -> str:
        """What it waits for, until when, and how to decide."""
        given = " and ".join(self.approved_by)
        if self.is_approved:
            return f"version {self.version} is approved by {given}, and the next look of the loop or watch promotes it"
        lacking = max(self.needed - len(self.approved_by), 1)
        who = "another person" if self.approved_by else "one person" if lacking == 1 else f"{lacking} persons"
        if len(self.approved_by) + 1 >= self.needed and all(map(self.is_trainer, self.approved_by)):
            who += " who did not train it"
        so_far = f"; {given} approved it" if given else ""
        return (
            f"version {self.version} passed the gate against version {self.terms.champion} and waits for {who} to "
            f"approve it until {self.until:%Y-%m-%d %H:%M} UTC{so_far}: {command('approve', self.version)}, or reject"
        )


def command(verb: str, version: str) -> str:
    """The command line that decides on a version."""
    return f'python run.py {verb} {version} --why "..."'


def same_person(by: str, others: Iterable[str]) -> bool:
    """Whether a name is among others, however it is written."""
    return _folded(by) in map(_folded, others)


def waiting(entries: Sequence[Entry], now: datetime, *, settings: PromotionSettings) -> list[Waiting]:
    """The challengers that wait, the oldest first; what has expired does not.

    The terms hold as they were when the wait began, unless the settings have become stricter since.

    Args:
        entries: of one registered model, in their order.
    """
    return [wait for wait in undecided(entries, settings=settings) if now < wait.until]


def undecided(entries: Sequence[Entry], *, settings: PromotionSettings) -> list[Waiting]:
    """As ``waiting``, with those that have expired and of which no entry says so yet.

    Raises:
        UserError: an entry does not say what waits.
    """
    newest = {entry.version: entry for entry in entries if entry.kind == "waiting"}
    found = []
    for entry in newest.values():
        if ending(entry, entries) is None:
            terms = _terms(entry)
            found.append(
                Waiting(
                    entry=entry,
                    terms=terms,
                    needed=max(_NEEDED[terms.approval], _NEEDED[settings.approval]),
                    until=min(terms.until, entry.at + settings.expires),
                    approved_by=_approvers(entry, entries),
                )
            )
    return sorted(found, key=lambda wait: wait.entry.number)


def _terms(entry: Entry) -> Terms:
    try:
        return Terms.model_validate(entry.facts)
    except ValidationError:
        raise UserError(
            f"entry {entry.number} of the promotion record does not say what waits; see `python run.py record verify`"
        ) from None


def ending(wait: Entry, entries: Sequence[Entry]) -> Entry | None:
    """The entry that ended a wait: a promotion or rollout of its version, or a rejection or expiry that names it."""
    for entry in entries:
        if entry.number > wait.number and entry.version == wait.version:
            of_it = entry.kind in ("rejection", "expiry") and entry.facts.get("waiting") == wait.sha256
            if of_it or entry.kind in ("promotion", "rollout"):
                return entry
    return None


def approvals(wait: Entry, entries: Sequence[Entry]) -> list[Entry]:
    """The entries that approve what waits by the entry ``wait``."""
    return [each for each in entries if each.kind == "approval" and each.facts.get("waiting") == wait.sha256]


def void(wait: Waiting, entries: Sequence[Entry], *, present: Present) -> str | None:
    """Why what was, or would be, approved is no longer what the gate let pass; ``None`` where it still is.

    Args:
        entries: of one registered model, in their order.
    """
    terms, version = wait.terms, wait.version
    gates = [entry for entry in entries if entry.kind == "gate" and entry.version == version]
    for entry in (wait.entry, *gates, *approvals(wait.entry, entries)):
        if entry.digest() != entry.sha256:
            return f"entry {entry.number} of the promotion record was changed after it was written"
    if not any(gate.sha256 == terms.gate_sha256 for gate in gates):
        return f"the gate's entry {terms.gate_sha256[:_SHOWN_DIGEST]} is not in the promotion record"
    if gates[-1].sha256 != terms.gate_sha256:
        return (
            f"the gate was run again on version {version} meanwhile (entry {gates[-1].number} of the promotion record)"
        )
    if not present.weights:
        return f"version {version} or its weights are gone"
    if present.weights != (terms.weights_sha256,):
        return f"the weights of version {version} have changed since the gate"
    if present.policy_sha256 != terms.policy_sha256:
        return "the policy has changed since the gate"
    if present.champion != terms.champion:
        now = f"version {present.champion}" if present.champion else "none"
        return f"the gate held it against version {terms.champion}, and the champion is {now} now"
    return None


def objection(wait: Waiting, by: str) -> str | None:
    """Why a person may not approve what waits; ``None`` where the person may."""
    if same_person(by, wait.approved_by):
        return f"{by} has approved version {wait.version} already; another person must"
    if wait.is_trainer(by) and (wait.needed == 1 or any(map(wait.is_trainer, wait.approved_by))):
        alone = "its only approver" if wait.needed == 1 else "the second approver after another who did"
        return f"{by} trained version {wait.version} and cannot be {alone}; another person must approve it"
    return None


def trainers(entries: Sequence[Entry], weights_sha256: str, *, also: str) -> tuple[str, ...]:
    """Who trained these weights, or gave them to a gate, by all entries, and ``also``."""
    found = [
        str(name)
        for entry in entries
        if entry.kind in ("gate", "waiting") and entry.facts.get("weights_sha256") == weights_sha256
        for name in _listed(entry.facts.get("trained_by"))
    ]
    return tuple(dict.fromkeys([*found, also]))


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value] if value else []


def _approvers(wait: Entry, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Who approved, each person once."""
    names: dict[str, str] = {}
    for entry in approvals(wait, entries):
        names.setdefault(_folded(entry.by), entry.by)
    return tuple(names.values())


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
