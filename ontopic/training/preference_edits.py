"""What people change of the pairs that are trained on: kept in the state folder, and applied to each next training.

A pair is made anew for each training, of other traffic, another seed, in another conversation. So an edit does not hold
on to the pair as it was: it goes by an id that stays the same for the question that the pair was made from, what its
chosen answer comes from, and what kind of answer is rejected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ontopic.config.policy import Policy
from ontopic.data.labelled import Question
from ontopic.data.same_question import identity, normalized
from ontopic.errors import UserError
from ontopic.state.erased_files import erase_from_lines, gone_lines
from ontopic.state.erasing import Erasing
from ontopic.state.lines import Lines, as_lines
from ontopic.state.workspace import Workspace
from ontopic.training.preference_sets import SET, check_answer
from ontopic.training.preferences import Preference

_DIGITS = 12


class PairIds:
    """The ids of pairs.

    Args:
        labelled: the questions that pairs are made from beside the traffic.
    """

    def __init__(self, labelled: Sequence[Question], policy: Policy) -> None:
        self._known = {question.identity for question in labelled}
        self._by_reference: dict[str, list[Question]] = {}
        for question in labelled:
            self._by_reference.setdefault(question.reference or "", []).append(question)
        self._refusals = frozenset(map(normalized, policy.all_refusals))

    def of(self, pair: Preference) -> str:
        """The same for the pair that another training makes in this one's place; hexadecimal, 12 digits."""
        said: list[str] = []
        if pair.source.startswith(f"{SET} "):  # of which one question may have several
            said = [pair.chosen, pair.rejected]
        elif pair.in_scope and normalized(pair.rejected) not in self._refusals:  # a wrong answer, beside the refusal
            said = [pair.rejected]
        key = json.dumps([self._origin(pair), pair.source, pair.in_scope, *said])
        return hashlib.sha256(key.encode(errors="replace")).hexdigest()[:_DIGITS]

    def _origin(self, pair: Preference) -> str:
        """The question that it was made from, without a conversation that it was put into at random."""
        whole = identity(pair.messages)
        if pair.record_id or whole in self._known:
            return whole
        if (alone := normalized(pair.question)) in self._known:
            return alone
        beside = [q for q in self._by_reference.get(pair.chosen, ()) if pair.in_scope and q.question in pair.question]
        return max((q.identity for q in beside), key=len, default=whole)


class PreferenceEdit(BaseModel):
    """One edit of a pair.

    Attributes:
        pair: its id.
        what: ``drop`` leaves it out, ``change`` puts other answers in its place, ``restore`` takes edits back.
        question: of the pair, for a reader; ``source``, ``in_scope``, ``before``: the same.
        chosen, rejected: the answers in place of its own; ``None`` for one that stays.
        by: who; ``account``: under which the command ran.
    """

    model_config = ConfigDict(frozen=True)
    pair: str
    what: Literal["drop", "change", "restore"]
    question: str = ""
    source: str = ""
    in_scope: bool = True
    before: tuple[str, str] = ("", "")
    chosen: str | None = None
    rejected: str | None = None
    by: str
    account: str = ""
    why: str
    at: datetime


class Edited(BaseModel):
    """Pairs after the edits, each behind its id.

    Attributes:
        used: ids of edits whose pair there is.
    """

    model_config = ConfigDict(frozen=True)
    pairs: list[tuple[str, Preference]]
    dropped: int = 0
    changed: int = 0
    used: list[str] = []


class PreferenceEdits:
    """The edits of one policy's pairs, as lines that are only appended to; the last one on a pair counts.

    Args:
        place: ``Workspace.lines`` of them, or their file; may be used by several processes at once.
    """

    def __init__(self, place: Path | Lines) -> None:
        self.kept = as_lines(place)

    @classmethod
    def of(cls, policy: Policy, workspace: Workspace) -> PreferenceEdits:
        """Those on a policy's pairs."""
        return cls(workspace.lines(workspace.preference_edits / f"{policy.name}.jsonl"))

    def add(self, edit: PreferenceEdit) -> None:
        """Keep an edit, which lasts when this returns."""
        self.kept.append(lambda *_: json.dumps(edit.model_dump(mode="json")).encode())

    def standing(self) -> dict[str, PreferenceEdit]:
        """The edits that count, by the pair's id, in the order they were made.

        Raises:
            UserError: a line is none.
        """
        found: dict[str, PreferenceEdit] = {}
        for edit in self._all():
            found.pop(edit.pair, None)
            if edit.what != "restore":
                found[edit.pair] = edit
        return found

    @property
    def sha256(self) -> str:
        """sha256 (hex) of what the standing edits do; empty where there is none. Raises what ``standing`` raises."""
        done = [[e.pair, e.what, e.chosen, e.rejected] for e in self.standing().values()]
        return hashlib.sha256(json.dumps(done).encode()).hexdigest() if done else ""

    def erase(self, erasing: Erasing) -> int:
        """Drop the edits that hold what is erased; returns how many."""
        gone = set[int]()

        def left(content: bytes) -> bytes:
            text = content.decode()
            gone.update(gone_lines(text, erasing))
            return erase_from_lines(text, erasing).encode() if gone else content

        self.kept.rewrite(left)
        return len(gone)

    def _all(self) -> list[PreferenceEdit]:
        try:
            lines = self.kept.read().split(b"\n")
        except OSError as error:
            raise UserError(f"{self.kept}: the edits cannot be read ({error.strerror}); check its rights") from None
        found = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                found.append(PreferenceEdit.model_validate(json.loads(line)))
            except (ValueError, ValidationError, RecursionError):
                if number == len(lines):  # no newline behind it: a crash cut it off
                    break
                raise UserError(
                    f"{self.kept}:{number}: is no edit as this program writes it; mend or remove that line"
                ) from None
        return found


def edited(pairs: Sequence[Preference], edits: Mapping[str, PreferenceEdit], *, ids: PairIds) -> Edited:
    """The pairs as people changed them, in their order.

    Args:
        edits: by the pair's id.
    """
    kept, dropped, used = [], 0, []
    for pair in pairs:
        pair_id = ids.of(pair)
        if (edit := edits.get(pair_id)) is not None:
            used.append(pair_id)
            pair = changed_pair(pair, edit)
            # What the model says now may be what somebody put in the other answer's place.
            if edit.what == "drop" or normalized(pair.chosen) == normalized(pair.rejected):
                dropped += 1
                continue
        kept.append((pair_id, pair))
    return Edited(pairs=kept, dropped=dropped, changed=len(used) - dropped, used=used)


def changed_pair(pair: Preference, edit: PreferenceEdit) -> Preference:
    """The pair with the edit's answers in place of its own."""
    answers = {"chosen": edit.chosen, "rejected": edit.rejected}
    return pair.model_copy(update={name: answer for name, answer in answers.items() if answer is not None})


def edit_of(
    pair: Preference,
    pair_id: str,
    *,
    what: Literal["drop", "change"],
    by: str,
    account: str,
    why: str,
    answers: Mapping[Literal["chosen", "rejected"], str] | None = None,
) -> PreferenceEdit:
    """An edit of a pair, at this time.

    Args:
        answers: in place of its own.

    Raises:
        UserError: it would leave no pair: an answer is blank or can't be trained on, or both are the same.
    """
    given = dict(answers or {})
    for name, text in given.items():
        check_answer(text, f"the answer {name!r}")
    edit = PreferenceEdit(
        pair=pair_id,
        what=what,
        question=pair.question,
        source=pair.source,
        in_scope=pair.in_scope,
        before=(pair.chosen, pair.rejected),
        chosen=given.get("chosen"),
        rejected=given.get("rejected"),
        by=by,
        account=account,
        why=why,
        at=datetime.now(UTC),
    )
    if what == "change":
        after = changed_pair(pair, edit)
        if not after.chosen.strip() or not after.rejected.strip():
            raise UserError("an answer would be blank; to leave the pair out, drop it")
        if normalized(after.chosen) == normalized(after.rejected):
            raise UserError("both answers would be the same; to leave the pair out, drop it")
    return edit
