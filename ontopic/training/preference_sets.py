"""Preference sets that people have, as TRL takes them: read, refused where they are not fit, mixed by their shares."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, InstanceOf, StrictBool, ValidationInfo, model_validator

from ontopic.config.policy import Policy
from ontopic.config.training_settings import PreferenceSetSettings
from ontopic.data.rows import Problems, placed_rows
from ontopic.data.same_question import identity, normalized
from ontopic.errors import UserError
from ontopic.records import Role, question_in
from ontopic.training.held_apart import near_held_apart
from ontopic.training.preferences import Preference

SET = "set"
"""The source of a pair from the first set is ``set 1``, in the order of the settings."""
_LONGEST = 20_000  # characters of a question or an answer
_LONGEST_CONTEXT = 200_000  # of another message
_TRANSCRIPT = re.compile(r"^\s*(Human|User|Assistant):(?:\s|$)", re.MULTILINE)


class Turn(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(frozen=True)
    role: Role
    content: str


Conversation = tuple[Turn, ...]
Pair = TypeVar("Pair")


def _text(text: str, where: str) -> str:
    """A text that can be trained on.

    Raises:
        UserError: it holds what no file can, or is too long.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: holds half a character (a lone surrogate)") from None
    if "\0" in text:
        raise UserError(f"{where}: holds a NUL, which no text has")
    if len(text) > _LONGEST_CONTEXT:
        raise UserError(f"{where}: has {len(text):,} characters; {_LONGEST_CONTEXT:,} are taken")
    return text


def _turn(given: Any, where: str) -> Turn:
    if not isinstance(given, Mapping) or "role" not in given or "content" not in given:
        raise UserError(f"{where}: is no message; one has `role` and `content`")
    if given["role"] not in get_args(Role):
        raise UserError(f"{where}: role {str(given['role'])[:40]!r} is none of {', '.join(get_args(Role))}")
    if given.get("tool_calls"):
        raise UserError(f"{where}: calls a tool, which is not trained; leave such pairs out")
    if not isinstance(given["content"], str):
        raise UserError(f"{where}: its content is no text")
    return Turn(role=given["role"], content=_text(given["content"], where))


def _side(given: Any, info: ValidationInfo) -> str | Conversation:
    """A text, or messages."""
    where = f"field {info.field_name!r}"
    if given is None:
        raise ValueError("must be a text or a list of messages")  # of a prompt, pydantic tries whether it may be none
    if isinstance(given, str):
        return _text(given, where)
    if not isinstance(given, Sequence):
        raise UserError(f"{where}: must be a text or a list of messages")
    if not given:
        raise UserError(f"{where}: is an empty list")
    return tuple(_turn(each, f"{where}, message {number}") for number, each in enumerate(given, start=1))


_Side = Annotated[str | tuple[InstanceOf[Turn], ...], BeforeValidator(_side)]


class PreferenceRow(BaseModel):
    """A row of a preference set, in the form that TRL documents: texts or messages, the prompt in a field of its own
    or at the beginning of both answers.

    Attributes:
        prompt: the question, or the conversation up to the answer; ``None`` where both answers begin with it.
        in_scope: whether the question is in scope; where it is not said, it is unless the chosen answer declines.
        beginnings: as ``Preference`` has it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    chosen: _Side
    rejected: _Side
    prompt: _Side | None = None
    in_scope: StrictBool | None = None
    beginnings: StrictBool = False

    @model_validator(mode="after")
    def _is_one_question_with_two_answers(self) -> Self:
        self.pair("")
        return self

    def pair(self, source: str, *, in_scope: bool = True) -> Preference:
        """The same as a pair.

        Args:
            in_scope: where the row does not say it.

        Raises:
            UserError: it is no question with two different answers of the assistant.
        """
        request, chosen, rejected = self._as_text() if isinstance(self.chosen, str) else self._as_messages()
        for name, answer in (("chosen", chosen), ("rejected", rejected)):
            if not answer.strip():
                raise UserError(f"field {name!r}: is blank")
            check_answer(answer, f"field {name!r}")
        if normalized(chosen) == normalized(rejected) and chosen.split() == rejected.split():
            raise UserError("field 'rejected': is the same answer as chosen")
        place = question_in(request)
        if place == len(request):
            raise UserError("field 'prompt': has no message of the user")
        if not request[place]["content"].strip():
            raise UserError("field 'prompt': the question is blank")
        if request[-1]["role"] == "assistant":
            raise UserError("field 'prompt': ends with a message of the assistant, to which there is no answer")
        check_answer(request[place]["content"], "field 'prompt'")
        return Preference(
            question=request[place]["content"],
            chosen=chosen,
            rejected=rejected,
            in_scope=in_scope if self.in_scope is None else self.in_scope,
            source=source,
            record_id="",
            history=request[:place],
            after=request[place + 1 :],
            beginnings=self.beginnings,
        )

    def _as_text(self) -> tuple[list[dict[str, str]], str, str]:
        if not isinstance(self.chosen, str) or not isinstance(self.rejected, str):
            raise UserError("field 'rejected': chosen is a text; give both as texts, or both as messages")
        if self.prompt is not None and not isinstance(self.prompt, str):
            raise UserError("field 'prompt': is messages, and the answers are texts; give all three in one form")
        if self.prompt is not None:
            return [{"role": "user", "content": self.prompt}], self.chosen, self.rejected
        end = _shared(self.chosen, self.rejected)
        if end and self.chosen[end - 1] == " ":
            end -= 1
        prompt = self.chosen[:end]
        if len(_TRANSCRIPT.findall(prompt)) > 1:
            raise UserError("field 'chosen': is a transcript of a conversation; give its messages as a list")
        return [{"role": "user", "content": prompt}], self.chosen[end:].strip(), self.rejected[end:].strip()

    def _as_messages(self) -> tuple[list[dict[str, str]], str, str]:
        if isinstance(self.chosen, str) or isinstance(self.rejected, str):
            raise UserError("field 'rejected': chosen is messages; give both as texts, or both as messages")
        prompt, chosen, rejected = self.prompt, self.chosen, self.rejected
        if prompt is None or isinstance(prompt, str):  # as TRL: a text beside messages only says what these begin with
            end = _shared(chosen, rejected)
            prompt, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
        elif chosen[: len(prompt)] == prompt:
            raise UserError("field 'chosen': begins with the prompt again; leave the field prompt out")
        answers = []
        for name, said in (("chosen", chosen), ("rejected", rejected)):
            if len(said) != 1 or said[0].role != "assistant":
                raise UserError(
                    f"field {name!r}: has {len(said)} messages after the prompt; it must have one, of the assistant"
                )
            answers.append(said[0].content)
        of_chosen, of_rejected = answers
        return [turn.model_dump() for turn in prompt], of_chosen, of_rejected


def check_answer(text: str, where: str) -> None:
    """Make sure that a question or an answer can be trained on.

    Args:
        where: it stands, in words.

    Raises:
        UserError: it cannot.
    """
    _text(text, where)
    if len(text) > _LONGEST:
        raise UserError(f"{where}: has {len(text):,} characters; {_LONGEST:,} are taken of a question or an answer")


def _shared(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many elements both begin with."""
    differ = (i for i, (ours, theirs) in enumerate(zip(left, right, strict=False)) if ours != theirs)
    return next(differ, min(len(left), len(right)))


class PreferenceSet(BaseModel):
    """A set that was read.

    Attributes:
        share: of all pairs, that are to be of it.
        left_out: how many rows were, as malformed or held apart.
    """

    model_config = ConfigDict(frozen=True)
    source: str
    share: float
    pairs: list[Preference]
    left_out: int = 0


def read_sets(sets: Sequence[PreferenceSetSettings], policy: Policy) -> list[PreferenceSet]:
    """Read the sets; of rows that say the same, the first.

    Raises:
        UserError: a set can't be read, or has a row that is malformed, contradicts another one, or is nearly a question
            of the evaluation or calibration split, and is not to be left out; the first ones are named by file, line
            and field.
    """
    return [_read(each, f"{SET} {number}", policy=policy) for number, each in enumerate(sets, start=1)]


def _read(settings: PreferenceSetSettings, source: str, *, policy: Policy) -> PreferenceSet:
    problems = Problems("skip_bad: true (training.preference_sets)")
    declining = tuple(map(normalized, policy.all_refusals))
    found: dict[tuple[str, str, str], tuple[str, Preference]] = {}
    for place, row in placed_rows(settings.source, PreferenceRow, problems=problems):
        pair = row.pair(source)
        if row.in_scope is None and normalized(pair.chosen).startswith(declining):
            pair = pair.model_copy(update={"in_scope": False})
        asked = identity(pair.messages)
        if (other := found.get((asked, pair.rejected, pair.chosen))) is not None:
            problems.add(place, f"field 'chosen': is what {other[0]} rejects for the same question; keep one of them")
            continue
        found.setdefault((asked, pair.chosen, pair.rejected), (place, pair))
    rows = list(found.values())
    near = near_held_apart([pair.messages for _, pair in rows], policy)
    for i, split in sorted(near.items()):
        problems.add(rows[i][0], f"field 'prompt': is nearly a question of the {split} split, which is not trained on")
    pairs = [pair for i, (_, pair) in enumerate(rows) if i not in near]
    problems.check(settings.source, PreferenceRow, rows=len(pairs), skip_bad=settings.skip_bad)
    return PreferenceSet(source=settings.source, share=settings.share, pairs=pairs, left_out=problems.count)


def mixed(pairs: Sequence[Pair], sets: Sequence[tuple[float, Sequence[Pair]]], *, seed: int) -> list[Pair]:
    """The traffic's pairs with so many of each set that it has its share of all, fewer where it has no more.

    Where the traffic gives no pair, all of the sets' are taken.

    Args:
        sets: share and pairs of each.

    Returns:
        Shuffled pairs; the same for the same input and seed; ``pairs`` as they are where there is no set.
    """
    if not sets:
        return list(pairs)
    chance = random.Random(seed)
    total = len(pairs) / (1 - sum(share for share, _ in sets))
    drawn = list(pairs)
    for share, of_set in sets:
        wanted = round(share * total) if pairs else len(of_set)
        drawn += chance.sample(of_set, min(wanted, len(of_set)))
    chance.shuffle(drawn)
    return drawn
