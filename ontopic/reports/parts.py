"""What pages are made of besides plots: headlines, tables, tests, questions with answers side by side, links.

Every text may be a stranger's: `ontopic.reports.design` shows it, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator

from ontopic.statistics.limits import Bound, Relation
from ontopic.statistics.rates import Rate

Status = Literal["passed", "failed", "neutral"]
Role = Literal["champion", "challenger", "passed", "failed", "neutral"]
_SCHEME = re.compile(r"[^/?#]*:")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Headline(_Part):
    """The sentence that a page begins with.

    Attributes:
        label: the status in a word or two, beside its sign: no status is told by a colour alone.
        reason: what is behind the sentence, in another one or two.
    """

    status: Status
    label: str
    sentence: str
    reason: str = ""


class Badge(_Part):
    """A status with its word, in a cell."""

    status: Status
    text: str


class Link(_Part):
    """A text that leads somewhere: to a file beside the page, or to an address of the web.

    Attributes:
        href: anything else, such as ``javascript:``, is no link: the text stands there alone.
    """

    text: str
    href: str

    @property
    def target(self) -> str:
        """Where it leads; empty where it may not."""
        href = self.href.strip()
        if href.startswith(("http://", "https://")):
            return href
        return "" if _SCHEME.match(href) or href.startswith(("//", "\\")) or not href.isprintable() else href


Cell = Badge | Link | Rate | str | int | float | None
"""A float is drawn with three decimals, a rate with interval and n, ``None`` and NaN as a dash; a long text folds."""


class Column(_Part):
    """A column of a table.

    Attributes:
        numeric: aligned to the right, and sorted by value.
        wide: of free text, which gets the room that the others leave.
    """

    name: str
    numeric: bool = False
    wide: bool = False


class Table(_Part):
    """A table, which a script sorts and filters where there is one.

    Attributes:
        columns: a plain name is one of short texts.
        rows: a cell a column.
        note: under the caption.
        nothing: in place of a table without rows.
        filtered: whether it gets a field to filter it by.
    """

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]
    note: str = ""
    nothing: str = "There are none."
    filtered: bool = False

    @field_validator("columns", mode="before")
    @classmethod
    def _from_names(cls, given: Any) -> Any:
        return [Column(name=each) if isinstance(each, str) else each for each in given]

    @field_validator("rows")
    @classmethod
    def _are_whole(cls, rows: list[list[Cell]], info: Any) -> list[list[Cell]]:
        columns = info.data.get("columns", [])
        if any(len(row) != len(columns) for row in rows):
            raise ValueError("a row has a cell a column")
        return rows

    @classmethod
    def first(cls, rows: Sequence[list[Cell]], most: int, *, lies: str, **given: Any) -> Self:
        """A table of the first rows, which says how many are left out.

        Args:
            lies: where the others are, as the end of a sentence.
            given: its other fields.
        """
        if len(rows) > most:
            left = f"{len(rows) - most:,} more are not shown here; {lies}"
            given["note"] = f"{given.get('note', '')} {left}".strip()
        return cls(rows=list(rows[:most]), **given)


class TestRow(_Part):
    """One test as a page lists it.

    Attributes:
        name: what is tested.
        measured: the number that is held against the limit; ``None`` where nothing was.
        bound, relation, limit: which of its numbers must be how far; ``None`` where it is no number.
        sentence: all numbers in words.
    """

    __test__ = False  # pytest takes it for a class of tests
    name: str
    passed: bool | None
    sentence: str
    measured: float | None = None
    bound: Bound | None = None
    relation: Relation | None = None
    limit: float | None = None

    @property
    def margin(self) -> float | None:
        """By how much it is on the right side of the limit; negative where it is on the wrong one."""
        if self.measured is None or self.limit is None or self.relation is None:
            return None
        return self.limit - self.measured if self.relation == "at most" else self.measured - self.limit

    @property
    def badge(self) -> Badge:
        """Its outcome."""
        if self.passed is None:
            return Badge(status="neutral", text="not known")
        return Badge(status="passed", text="passed") if self.passed else Badge(status="failed", text="failed")

    @property
    def held(self) -> str:
        """What is held against the limit, and how."""
        names = {"value": "value", "low": "lower bound", "high": "upper bound", None: ""}
        return "" if self.limit is None else f"{names[self.bound]} {self.relation} {self.limit:g}"


class Turn(_Part):
    """What one side said in a conversation."""

    speaker: str
    text: str


class Answer(_Part):
    """An answer with its verdict.

    Attributes:
        name: whose it is.
        why: the verdict's reason.
    """

    name: str
    text: str
    role: Role = "neutral"
    verdict: Badge | None = None
    why: str = ""


class Answered(_Part):
    """A question with its answers, side by side.

    Attributes:
        about: what kind of question it is, in a few words.
        turns: the whole conversation before the answer, which unfolds; empty where it is the question alone.
    """

    question: str
    answers: list[Answer]
    about: str = ""
    turns: list[Turn] = []
