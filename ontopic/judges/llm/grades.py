"""The JSON object that a judge is asked for, read from its reply, and the probability of what it says there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from ontopic.endpoint.inert import inert
from ontopic.endpoint.json_objects import CONTRADICTORY, objects_in
from ontopic.endpoint.replies import Token


def _one_word(given: Any) -> Any:
    return given.strip(" \t\r\n.*_`\"'“”").lower() if isinstance(given, str) else given


def _one_text(given: Any) -> Any:
    if given is CONTRADICTORY:
        return given
    if isinstance(given, list):
        given = " ".join(str(part) for part in given if part is not None)
    return "" if given is None else given if isinstance(given, str) else json.dumps(given, default=str)


_Explanation = Annotated[str, BeforeValidator(_one_text), AfterValidator(inert)]


class Grade(BaseModel):
    """The JSON object that a judge is asked for; a prompt may ask for the verdict alone."""

    model_config = ConfigDict(extra="ignore", strict=True)
    explanation: _Explanation = ""
    in_scope: bool | None = None
    declined: bool | None = None
    words: ClassVar = {"pass", "fail"}
    verdict: Annotated[Literal["pass", "fail"], BeforeValidator(_one_word)]


class Choice(BaseModel):
    """The JSON object that a judge of two answers is asked for."""

    model_config = ConfigDict(extra="ignore", strict=True)
    explanation: _Explanation = ""
    words: ClassVar = {"a", "b", "tie"}
    verdict: Annotated[Literal["a", "b", "tie"], BeforeValidator(_one_word)]


Form = TypeVar("Form", Grade, Choice)


def grade_in(reply: str, form: type[Form], *, template: str, quotable: Sequence[str] = ()) -> Form | None:
    """The grade in a reply; ``None`` where there is none, or where anything in it says another verdict.

    Amid other text an object counts only with every field that the prompt asks for: one with less may be a quotation.
    Where the prompt asks for the verdict alone, it must stand apart.

    Args:
        template: of the prompt; it names the fields in quotes.
        quotable: what strangers wrote; an object that stands there too and amid other text here is a quotation.
    """
    asked_for = {name for name in form.model_fields if re.search(rf"""["'`]{name}["'`]""", template)} | {"verdict"}
    objects = objects_in(reply)
    grades: list[Form] = []
    claims = list[dict[str, Any]]()
    planted = [written.values for text in quotable if "{" in text for written in objects_in(text).found]
    for written in objects.found:
        if written.place != "alone" and written.values in planted:
            continue
        for claim in _with_verdict(written.values):
            claims.append(claim)
            complete = asked_for <= claim.keys() and (len(asked_for) > 1 or written.place == "apart")
            if written.place == "alone" or complete:
                try:
                    grades.append(form.model_validate(claim))
                except (ValidationError, RecursionError):
                    return None
    stated_outside = {word.lower() for word in _CLAIM.findall(objects.rest)} & form.words
    if not grades or stated_outside - {grades[0].verdict}:
        return None
    for claim in claims:
        for name in ("verdict", "in_scope", "declined"):
            said = _one_word(claim[name]) if name in claim else None
            if said is not None and said != getattr(grades[0], name, said):
                return None
    return grades[0]


def _with_verdict(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects in an object, itself among them, that state a verdict."""
    left: list[Any] = [values]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "verdict" in value:
                yield value
            left += value.values()
        elif isinstance(value, list):
            left += value


# A verdict that is stated outside the objects; not the form of one, as in: "verdict": "pass" or "fail".
_CLAIM = re.compile(r"""verdict["'“”]?\s*[:=]\s*["'“]?\s*(pass|fail|a|b|tie)\b(?!["'”]?\s*(?:or\b|\||/))""", re.I)
_STATED = re.compile(rb"""["'](?i:verdict)["']\s*:\s*["']\s*(?=(pass|fail)\b)""", re.I)
_WORD = re.compile(rb"[A-Za-z]+")


def pass_probability(tokens: Sequence[Token], *, stated: str) -> float | None:
    """P(pass) / (P(pass) + P(fail)) at the token where a reply's verdict begins, which is where the two words diverge.

    Tokens of every cut count: ``pass``, the ``pa`` of ``pa``+``ss``, ``"pass``, with spaces or quotes before and after.

    Args:
        stated: the verdict as it was read; its last place counts, as reasoning stands before it.

    Returns:
        A number in [0, 1]; ``None`` where the reply states no verdict, or the tokens hold none of the two words.
    """
    places = _STATED.finditer(b"".join(token.text for token in tokens))
    ends = [place.end() for place in places if place[1].lower() == stated.encode()]
    if not ends:
        return None
    offset, end = ends[-1], 0
    for token in tokens:
        start, end = end, end + len(token.text)
        if end > offset:
            break
    before = token.text[: offset - start]
    mass = {b"pass": 0.0, b"fail": 0.0}
    for text, logprob in token.top.items():
        said = _WORD.match(text.removeprefix(before).lstrip(b' \t\r\n":'))
        for word in mass:
            if said and word.startswith(said.group().lower()):
                mass[word] += math.exp(min(logprob, 0.0))
    total = sum(mass.values())
    return mass[b"pass"] / total if total > 0 else None
