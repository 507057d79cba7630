"""Looks at held-out questions, which are spent: each has its own draw of questions, and less alpha than the one before.

All looks against one champion share one budget: however many challengers are tried, the chance that any that is no
better takes its place is at most ``TOTAL``. Each promotion starts a budget anew, as in alpha-investing (Foster and
Stine 2008) and LORD (Javanmard and Montanari 2018); a rollback goes on with that of the champion it returns to. Look
``k`` gets a share of ``k ** -DECAY`` (alpha spending over hypotheses that come one by one, Tian and Ramdas 2021), which
leaves the first one the usual 5 %, two-sided.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ontopic.config.policy import Policy
from ontopic.data.labelled import Question
from ontopic.data.sample import Sample, sampled_questions
from ontopic.data.sealed import question_id, sample_sha256
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.rehearsal import Rehearsal, rehearsal_sample, rehearsed
from ontopic.registry.promotion_record import Entry, EntryKind
from ontopic.registry.promotions import open_registry
from ontopic.state.workspace import Workspace

Ask = Callable[[str, Sequence[Question]], Evaluation]

TOTAL = 0.05
"""The chance of any false promotion against one champion, over all looks."""
DECAY = 1.728647
"""Where the sum of ``k ** -DECAY`` over all k is 2: the first look spends half of ``TOTAL``."""


class Look(BaseModel):
    """One gate's look at held-out questions.

    Attributes:
        key: of what is looked at: champion, challenger, policy, judge and sample. The same key is the same look.
        number: among the looks against this champion, from 1.
        of_policy: among all looks of the policy's gates, from 1.
        alpha: two-sided level of the test of improvement; half of it is spent.
        spent: of the budget, before this look.
        total: the budget.
        seed: of the draw of the questions.
        rehearsal: what came before it; ``None`` where there was none, as before the first look. Where it failed, the
            look is not taken: number and alpha are those that it would have had.
    """

    model_config = ConfigDict(frozen=True)
    key: str
    number: int
    of_policy: int
    alpha: float
    spent: float
    total: float = TOTAL
    seed: int
    rehearsal: Rehearsal | None = None

    @property
    def taken(self) -> bool:
        """Whether held-out questions are looked at."""
        return self.rehearsal is None or self.rehearsal.passed

    @property
    def in_words(self) -> str:
        """Which look it is, and what it may spend."""
        if not self.taken:
            return "No look at held-out questions is taken: the challenger is not ahead on those of calibration"
        return (
            f"Look {self.number} at held-out questions against this champion, {self.of_policy} of this policy in all: "
            f"the improvement is tested at {self.alpha:.2g}, two-sided; {self.spent:.2%} of {self.total:.0%} were spent"
        )


def alpha_at(number: int) -> float:
    """The two-sided level of a look by its number.

    Raises:
        ValueError: the number is under 1.
    """
    if number < 1:
        raise ValueError(f"look {number}")
    return float(TOTAL * number**-DECAY)


def look_key(**of: Any) -> str:
    """sha256 (hex) of what a look is at; the values must be JSON."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def next_look(entries: Sequence[Entry], *, champion: str, key: str, seed_from: str) -> Look:
    """The look that a gate takes now: the one of the same key where there was one, else the next.

    Args:
        entries: of the promotion record, of one registered model.
        champion: its version.
        seed_from: with the look's number, what the draw depends on.
    """
    if (known := _known(entries, key)) is not None:
        return known
    looks = [entry for entry in entries if entry.kind == "look"]
    number = 1 + sum(entry.facts["champion"] == champion for entry in looks)
    of_policy = 1 + len(looks)
    return Look(
        key=key,
        number=number,
        of_policy=of_policy,
        alpha=alpha_at(number),
        spent=sum(alpha_at(k) / 2 for k in range(1, number)),
        seed=int(hashlib.sha256(f"{seed_from} {of_policy}".encode()).hexdigest()[:8], 16),
    )


def _known(entries: Sequence[Entry], key: str) -> Look | None:
    """The look of a key that was taken, or that its rehearsal kept from being taken."""
    found = [entry for entry in entries if entry.kind in ("look", "rehearsal") and entry.facts["key"] == key]
    return Look.model_validate(found[0].facts["look"]) if found else None


def opening_number(entries: Sequence[Entry], *, champion: str, key: str) -> int:
    """Which opening of the sealed set against this champion it is, from 1; that of the same key where there was one."""
    keys = [entry.facts["key"] for entry in entries if entry.kind == "opening" and entry.facts["champion"] == champion]
    return keys.index(key) + 1 if key in keys else len(keys) + 1


def open_look(
    sample: Sample,
    *,
    champion: str,
    challenger: str,
    judge_id: str,
    policy: Policy,
    ask: Ask,
    workspace: Workspace,
) -> tuple[Look, list[Question]]:
    """Enter the next look in the promotion record and draw its questions.

    It is counted before any held-out question is asked, so that a gate that is killed has looked too. Each but the
    first against a champion comes after a rehearsal, where the calibration split has enough questions for one.

    Args:
        sample: what is drawn from; its seed, the configuration's, goes into that of the draw.
        champion, challenger: their versions.
        ask: lets a version answer questions, and has the answers judged.

    Returns:
        The look and its questions, or the rehearsal's where it failed.

    Raises what ``sampled_questions`` raises.
    """
    name = policy.registered_model
    registry = open_registry(workspace, name)
    digests = [registry.tags_of(version).get("ontopic.digest", version) for version in (champion, challenger)]
    # Of its source, a file or the package's data, only the contents count.
    drawn_from = sample.model_dump(mode="json", exclude={"source", "languages"})  # of these the policy tells
    key = look_key(models=digests, policy=policy.sha256, judge=judge_id, sample=drawn_from)
    entries = registry.record.entries(name)
    look = next_look(entries, champion=champion, key=key, seed_from=f"{name} {sample.seed}")
    is_new, rehearsing = _known(entries, key) is None, rehearsal_sample(policy.questions, policy.languages)
    if is_new and look.number > 1 and rehearsing is not None:
        sides = [ask(version, sampled_questions(rehearsing)) for version in (champion, challenger)]
        look = look.model_copy(update={"rehearsal": rehearsed(*sides, limits=policy.gate)})
    drawn = sample.model_copy(update={"seed": look.seed})
    questions = sampled_questions(drawn if look.taken or rehearsing is None else rehearsing)
    if is_new:
        facts = {
            "key": key,
            "champion": champion,
            "look": look.model_dump(mode="json"),
            "sample_sha256": sample_sha256(questions),
            "questions": [question_id(question) for question in questions],
        }
        kind: EntryKind = "look" if look.taken else "rehearsal"
        registry.enter(kind, challenger, by="the gate", why=look.in_words, facts=facts)
    return look, questions


def with_look(evidence: Evidence, look: Look, *, questions: Sequence[Question]) -> Evidence:
    """The evidence with the look in it; without one that was not taken."""
    sample = {"sample_sha256": sample_sha256(questions)}
    spent = {"look": look.of_policy, "alpha": look.alpha, "seed": look.seed} if look.taken else {}
    return evidence.model_copy(update=sample | spent)


def open_sealed(look: Look, *, champion: str, challenger: str, registered_model: str, workspace: Workspace) -> int:
    """Enter an opening of the sealed set in the promotion record, before anything is asked.

    Returns:
        Which one it is against this champion, from 1.
    """
    registry = open_registry(workspace, registered_model)
    entries = registry.record.entries(registered_model)
    number = opening_number(entries, champion=champion, key=look.key)
    if not any(entry.kind == "opening" and entry.facts["key"] == look.key for entry in entries):
        in_all = 1 + sum(entry.kind == "opening" for entry in entries)
        facts = {"key": look.key, "champion": champion, "opening": number, "of_policy": in_all}
        why = f"Opening {number} of the sealed questions against this champion, {in_all} of this policy in all"
        registry.enter("opening", challenger, by="the gate", why=why, facts=facts)
    return number
