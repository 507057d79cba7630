"""Sign-off: a challenger that passed the gate is put before persons, and what they decide is done.

Every decision is an entry of the promotion record before anything is moved, and is taken under a lock, so that of two
who decide at once the second sees what the first decided. Where a process ends between the last approval and the move
of the alias, the next look completes the promotion; both its entry and the move are made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, JsonValue

from ontopic.config.policy import Policy
from ontopic.config.watch_settings import PromotionSettings
from ontopic.errors import UserError
from ontopic.registry.approval import (
    Present,
    Terms,
    Waiting,
    approvals,
    objection,
    trainers,
    undecided,
    void,
    waiting,
)
from ontopic.registry.promotion_record import Entry, EntryKind, PromotionRecord
from ontopic.registry.promotions import ModelRegistry, Promotion, open_registry
from ontopic.registry.rollouts import promote_or_roll_out
from ontopic.registry.versions import DIGEST, weights_now
from ontopic.state.workspace import Workspace

ONTOPIC = "OnTopic"
"""Who ends a wait that has expired or is void."""
_AGAIN = "it waits again once it passes the gate again"


class Settled(BaseModel):
    """What a look at the challengers that wait found.

    Attributes:
        promoted: the entries of promotions that were completed, and of rollouts that begin.
        ended: those that wait no longer, each with the reason.
        waiting: those that go on waiting.
    """

    model_config = ConfigDict(frozen=True)
    promoted: list[Entry] = []
    ended: list[tuple[Waiting, str]] = []
    waiting: list[Waiting] = []


class SignOff:
    """Sign-off on the challengers of one policy.

    Args:
        now: the clock.
    """

    def __init__(
        self,
        settings: PromotionSettings,
        policy: Policy,
        *,
        workspace: Workspace,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._policy, self._workspace, self._now = settings, policy, workspace, now
        self._name = policy.registered_model
        self._record = PromotionRecord.of(workspace)

    def ask(self, version: str, *, gate: Entry, champion: str, weights_sha256: str, trained_by: str) -> Waiting:
        """Have a challenger wait that passed the gate.

        Args:
            gate: the gate's entry.
            trained_by: who started the loop or `watch` that trained it.

        Raises:
            ValueError: no person is asked for.
        """
        if self._settings.approval == "automatic":
            raise ValueError("no approval is asked for")
        with self._record.deciding():
            now = self._now()
            terms = Terms(
                approval=self._settings.approval,
                until=now + self._settings.expires,
                champion=champion,
                gate_sha256=gate.sha256,
                weights_sha256=weights_sha256,
                policy_sha256=self._policy.sha256,
                trained_by=trainers(self.entries(), weights_sha256, also=trained_by),
            )
            why = f"passed the gate against version {champion}"
            self._add("waiting", version, by=trained_by, why=why, facts=terms.model_dump(mode="json"))
            return next(wait for wait in self._undecided() if wait.version == version)

    def entries(self) -> list[Entry]:
        """The promotion record's entries on this policy's registered model, in their order."""
        return self._record.entries(self._name)

    def waiting(self) -> list[tuple[Waiting, str | None]]:
        """The challengers that wait, each with why an approval would be void now; nothing is written."""
        entries = self.entries()
        waits = waiting(entries, self._now(), settings=self._settings)
        return [(wait, void(wait, entries, present=self._present(wait.version))) for wait in waits]

    def approve(self, which: str, *, by: str, why: str, account: str) -> tuple[Waiting, bool]:
        """Note a person's approval; the last one that is needed promotes the challenger at once.

        Args:
            which: the version, or an alias of it.
            account: of the machine, which the person may have given another name than.

        Returns:
            What was approved, and whether that is all it waited for: it is the champion now, or its rollout begins.

        Raises:
            UserError: there is no such version, it does not wait, what the gate let pass has changed meanwhile, or this
                person may not approve it.
        """
        with self._record.deciding():
            self._registry.finish()
            wait = self._find(which, reads_weights=True)
            if wait.is_approved:  # a process ended before it promoted it
                self._promote(wait)
                return wait, True
            if found := objection(wait, by):
                raise UserError(found)
            self._add("approval", wait.version, by=by, why=why, facts=_bound(wait) | {"account": account})
            wait = next(each for each in self._undecided() if each.version == wait.version)
            if wait.is_approved:
                self._promote(wait)
            return wait, wait.is_approved

    def reject(self, which: str, *, by: str, why: str, account: str) -> Waiting:
        """Note that a challenger is not to be promoted.

        Raises:
            UserError: there is no such version, or it does not wait.
        """
        with self._record.deciding():
            wait = self._find(which)
            self._add("rejection", wait.version, by=by, why=why, facts=_bound(wait) | {"account": account})
            return wait

    def is_asked_for(self, version: str) -> bool:
        """Whether a version may not become the champion by hand alone: the settings ask for approval, or it waits."""
        waits = any(wait.version == version for wait, _ in self.waiting())
        return waits or self._settings.approval != "automatic"

    def override(self, version: str, *, by: str, why: str, account: str) -> Promotion:
        """Promote a version, which is not the champion, without the approval that is asked for.

        The promotion record says that it was so, before the alias is moved.

        Raises:
            UserError: there is no such version.
        """
        with self._record.deciding():
            facts = {"override": True, "account": account}
            why = f"override of the approval: {why}"
            return self._registry.promote(version, by=by, why=why, at=self._now(), facts=facts)

    def settle(self) -> Settled:
        """Complete what is approved, end what has expired or is void, and say what goes on waiting."""
        if not self._undecided() and self._registry.unfinished() is None:  # nothing to wait for others for
            return Settled()
        ended, left = [], []
        with self._record.deciding():
            finished = self._registry.finish()
            promoted = [finished] if finished is not None and "waiting" in finished.facts else []
            for wait in self._undecided():
                if (why := self._over(wait, reads_weights=wait.is_approved)) is not None:
                    self._add("expiry", wait.version, by=ONTOPIC, why=why, facts=_bound(wait))
                    ended.append((wait, why))
                elif wait.is_approved:
                    promoted.append(self._promote(wait))
                else:
                    left.append(wait)
        return Settled(promoted=promoted, ended=ended, waiting=left)

    @property
    def _registry(self) -> ModelRegistry:
        return open_registry(self._workspace, self._name)

    def _find(self, which: str, *, reads_weights: bool = False) -> Waiting:
        """The wait of a version; one that is over is written down as such."""
        version = self._registry.version(which)
        entries = self.entries()
        wait = next((each for each in self._undecided() if each.version == version), None)
        if wait is None:
            raise UserError(f"version {version} of {self._name!r} does not wait for approval{_since(version, entries)}")
        if (why := self._over(wait, reads_weights=reads_weights)) is not None:
            self._add("expiry", version, by=ONTOPIC, why=why, facts=_bound(wait))
            raise UserError(f"version {version} of {self._name!r} waits for approval no longer: {why}; {_AGAIN}")
        return wait

    def _over(self, wait: Waiting, *, reads_weights: bool) -> str | None:
        """Why a wait is over.

        Args:
            reads_weights: whether the weights are read, and not only the digest that they were registered with.
        """
        if self._now() >= wait.until:
            return f"nobody had decided by {wait.until:%Y-%m-%d %H:%M} UTC (promotion.expires)"
        return void(wait, self.entries(), present=self._present(wait.version, reads_weights=reads_weights))

    def _present(self, version: str, *, reads_weights: bool = False) -> Present:
        registry = self._registry
        weights: tuple[str, ...] = ()
        if version in registry.versions():
            registered = registry.tags_of(version).get(DIGEST)
            weights = (registered,) if registered else ()
            if reads_weights:
                weights = weights_now(self._name, version, workspace=self._workspace)
        return Present(champion=registry.champion(), weights=weights, policy_sha256=self._policy.sha256)

    def _promote(self, wait: Waiting) -> Entry:
        given = approvals(wait.entry, self.entries())
        by, why = " and ".join(wait.approved_by), f"approved: {'; '.join(entry.why for entry in given)}"
        facts = _bound(wait) | {"by_hand": False, "approvals": [entry.sha256 for entry in given]}
        promote_or_roll_out(
            self._registry, wait.version, settings=self._settings, by=by, why=why, at=self._now(), facts=facts
        )
        return self.entries()[-1]

    def _undecided(self) -> list[Waiting]:
        return undecided(self.entries(), settings=self._settings)

    def _add(
        self,
        kind: EntryKind,
        version: str,
        *,
        by: str,
        why: str,
        facts: Mapping[str, JsonValue],
    ) -> None:
        self._registry.enter(kind, version, by=by, why=why, facts=facts, at=self._now())


def _bound(wait: Waiting) -> dict[str, JsonValue]:
    """What a decision on a wait is bound to."""
    terms = wait.terms
    return {
        "waiting": wait.entry.sha256,
        "gate_sha256": terms.gate_sha256,
        "weights_sha256": terms.weights_sha256,
        "policy_sha256": terms.policy_sha256,
    }


def _since(version: str, entries: Sequence[Entry]) -> str:
    """Why a version does not wait, by its last entry."""
    for entry in reversed(entries):
        if entry.version == version and entry.kind in ("rejection", "expiry", "promotion", "rollout"):
            done = {"rejection": f"{entry.by} rejected it", "promotion": f"{entry.by} promoted it"}.get(entry.kind)
            return f": {f'{done}, ' if done else ''}{entry.why} ({entry.at:%Y-%m-%d %H:%M} UTC)"
    return "; `python run.py status` shows what does"
