"""What is to be erased: ids and texts, in a file that lasts until the erasure is through, and a search for them.

A text is known by its words, whatever stands between them: so it is found again where Markdown or HTML escape it, where
a page cuts it short, and inside of another text. The file is the owner's alone, and is removed at the end.
"""

from __future__ import annotations

import html
import re
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

# Chinese, Japanese and Korean put no spaces between words: there a character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")  # in Markdown, a word's underscores are escaped
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[\s\S]|$)")
_SPACES = re.compile(r"[\s\"']+")
_MOST_ESCAPED = 6  # times over
_ANCHORS = (8, 4)  # words that a text inside of another is found by; a shorter one is only found as a whole
_CUT = re.compile(r"\s*(?:…|\.\.\.)\s*$")
_PARTS = re.compile(r"\n\s*\n")
_REPEATED = 10_000  # texts, such as the turns that each record of a conversation repeats
_FILTER = 1 << 24  # bits that tell most of what is not there without a look into the file
_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ids (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS conversations (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS texts (words TEXT PRIMARY KEY, anchor TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS texts_by_anchor ON texts (anchor);
CREATE TABLE IF NOT EXISTS questions (text TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (place TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (kind TEXT, note TEXT, value TEXT, PRIMARY KEY (kind, note)) WITHOUT ROWID;
"""


class Order(BaseModel):
    """Who ordered an erasure, of what, and for which registered model.

    Attributes:
        what: in words, without a name, an id or a text.
        of_person: whether it is an erasure of what somebody said: then what later requests repeat of it goes too, and
            the databases are written anew, so that nothing is left in their free pages. Else old traffic expires: what
            newer records repeat stays, and what is deleted is overwritten.
        carried_out: whether it was gone through and entered, beside a process that may have written some of it since.
    """

    model_config = ConfigDict(frozen=True)
    by: str
    what: str
    registered_model: str
    of_person: bool
    carried_out: bool = False


class Erasing:
    """One erasure: what it is of, what has been found so far, and the search. Memory does not grow with it.

    Args:
        path: of the file; made where missing.

    Attributes:
        of_copy: what is said behind the name of each place while a copy is gone through, of which nothing is read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.of_copy = path, ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._database = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._database.execute("PRAGMA secure_delete=ON")
        self._database.executescript(_TABLES)
        self._filter = bytearray(_FILTER >> 3)
        self.refresh()

    def refresh(self) -> None:
        """Take up what the file holds, which another process may have written."""
        self._filter = bytearray(_FILTER >> 3)
        for query in ("SELECT id FROM ids", "SELECT words FROM texts", "SELECT anchor FROM texts"):
            for (key,) in self._database.execute(query):
                if key is not None:
                    self._mark(key)

    @property
    def order(self) -> Order | None:
        """What was ordered; ``None`` while it is still being collected, when nothing has been erased yet."""
        row = self._database.execute("SELECT value FROM about WHERE name = 'order'").fetchone()
        return Order.model_validate_json(row[0]) if row else None

    def begin(self, order: Order) -> None:
        """Say that all is collected: from now on the erasure is carried through, by whoever comes next. What was
        counted and noted before is not any more."""
        self._database.execute("DELETE FROM counts")
        self._database.execute("DELETE FROM notes")
        self._database.execute("INSERT OR REPLACE INTO about VALUES ('order', ?)", (order.model_dump_json(),))

    def add(self, ids: Iterable[str], texts: Iterable[str], *, conversations: Iterable[str] = ()) -> None:
        """Add records and what was said in them, at once."""
        self._database.execute("BEGIN")
        for each in ids:
            self._database.execute("INSERT OR IGNORE INTO ids (id) VALUES (?)", (each,))
            self._mark(each)
        for each in conversations:
            self._database.execute("INSERT OR IGNORE INTO conversations VALUES (?)", (each,))
        for text in _with_lines(texts):
            words = _words(text)
            key, anchor = _key(text, words), _anchor(words)
            if not key:
                continue
            self._database.execute("INSERT OR IGNORE INTO texts VALUES (?, ?)", (key, anchor))
            self._mark(key)
            if anchor:
                self._mark(anchor)
        self._database.execute("COMMIT")

    def add_questions(self, questions: Iterable[str]) -> None:
        """Add questions as they stand, by whose hash something else is kept."""
        self._at_once("INSERT OR IGNORE INTO questions VALUES (?)", questions)

    def questions(self) -> Iterator[str]:
        """Those that were added so."""
        return (text for (text,) in self._database.execute("SELECT text FROM questions"))

    def spare(self, texts: Iterable[str]) -> None:
        """Leave out texts that others have said too."""
        known = [key for text in texts for key in _keys(text) if self._may_hold(key)]
        if known:
            self._at_once("DELETE FROM texts WHERE words = ?", known)

    def ids(self, n: int = 500) -> Iterator[Sequence[str]]:
        """The records, by the page, the last that was added first: of a conversation, what repeats the others."""
        last = 1 << 62
        while page := self._database.execute(
            "SELECT n, id FROM ids WHERE n < ? ORDER BY n DESC LIMIT ?", (last, n)
        ).fetchall():
            last = page[-1][0]
            yield [each for _, each in page]

    def n(self) -> int:
        """How many records are erased."""
        return int(self._database.execute("SELECT count(*) FROM ids").fetchone()[0])

    def has_id(self, record_id: str) -> bool:
        """Whether it is one of these records."""
        query = "SELECT 1 FROM ids WHERE id = ?"
        return self._may_hold(record_id) and self._database.execute(query, (record_id,)).fetchone() is not None

    def conversations(self) -> Iterator[str]:
        """Those that an erased record is of, one by one."""
        return (each for (each,) in self._database.execute("SELECT id FROM conversations").fetchall())

    def has_conversation(self, conversation: str) -> bool:
        """Whether an erased record is of it."""
        query = "SELECT 1 FROM conversations WHERE id = ?"
        return bool(conversation) and self._database.execute(query, (conversation,)).fetchone() is not None

    def has_text(self, text: str) -> bool:
        """Whether an erased text is this one, is quoted in it, or was cut short to it."""
        if not text or text.isspace():
            return False
        if self.is_text(text) or any(self.is_text(part) for part in _PARTS.split(text)):
            return True
        words = _words(text)
        cut = bool(_CUT.search(text))
        for length in _ANCHORS:
            for start in range(len(words) - length + 1):
                anchor = " ".join(words[start : start + length])
                if self._may_hold(anchor) and self._quoted(anchor, words[start:], cut=cut):
                    return True
        return False

    def is_text(self, text: str) -> bool:
        """Whether an erased text is this one, or was cut short to it."""
        words = _words(text)
        key = _key(text, words)
        if self._may_hold(key) and self._database.execute("SELECT 1 FROM texts WHERE words = ?", (key,)).fetchone():
            return True
        return bool(_CUT.search(text)) and len(words) >= _ANCHORS[-1] and self._begins(words)

    def count(self, place: str, n: int = 1) -> None:
        """Note that so much was erased at a place."""
        if n:
            more = "INSERT INTO counts VALUES (?, ?) ON CONFLICT (place) DO UPDATE SET n = n + excluded.n"
            self._database.execute(more, (place + self.of_copy, n))

    def counts(self) -> dict[str, int]:
        """How much was erased, by place."""
        return dict(self._database.execute("SELECT place, n FROM counts").fetchall())

    def note(self, kind: str, note: str, *, value: str = "") -> None:
        """Keep what is to be said besides, once; the first value of it stays."""
        self._database.execute("INSERT OR IGNORE INTO notes VALUES (?, ?, ?)", (kind, note, value))

    def notes(self, kind: str) -> dict[str, str]:
        """What was noted of that kind."""
        return dict(self._database.execute("SELECT note, value FROM notes WHERE kind = ?", (kind,)).fetchall())

    def end(self) -> None:
        """Remove the file: nothing is left to be erased."""
        self.close()
        for suffix in ("-journal", "-wal", "-shm", ""):
            path = self.path.with_name(self.path.name + suffix)
            if path.exists():
                path.write_bytes(bytes(path.stat().st_size))
                path.unlink()

    def close(self) -> None:
        """Close the file, which stays for whoever goes on."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_once(self, change: str, values: Iterable[str]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany(change, [(each,) for each in values])
        self._database.execute("COMMIT")

    def _begins(self, words: Sequence[str]) -> bool:
        """Whether a text begins with these words, the last of which may be cut."""
        begun = " ".join(words)
        query = "SELECT 1 FROM texts WHERE words >= ? AND words < ? LIMIT 1"
        return self._database.execute(query, (begun, f"{begun}\U0010ffff")).fetchone() is not None

    def _quoted(self, anchor: str, words: Sequence[str], *, cut: bool) -> bool:
        for (text,) in self._database.execute("SELECT words FROM texts WHERE anchor = ?", (anchor,)):
            n = text.count(" ") + 1
            if text == " ".join(words[:n]) or (cut and len(words) <= n and text.startswith(" ".join(words))):
                return True
        return False

    def _mark(self, key: str) -> None:
        bit = hash(key) % _FILTER
        self._filter[bit >> 3] |= 1 << (bit & 7)

    def _may_hold(self, key: str) -> bool:
        bit = hash(key) % _FILTER
        return bool(self._filter[bit >> 3] & (1 << (bit & 7)))


def _with_lines(texts: Iterable[str]) -> Iterator[str]:
    """Texts, and the longer lines of those that have several, as a log or a page has them line by line."""
    for text in texts:
        yield text
        lines = text.splitlines()
        yield from (line for line in lines if len(lines) > 1 and len(_words(line)) >= _ANCHORS[-1])


@lru_cache(maxsize=_REPEATED)
def _keys(text: str) -> tuple[str, ...]:
    """What a text and its longer lines are known by."""
    return tuple(_key(each, _words(each)) for each in _with_lines([text]))


def _words(text: str) -> list[str]:
    return _WORDS.findall(_unescaped(text).casefold())


def _unescaped(text: str) -> str:
    """A text whose escapes mean what they stand for, as JSON, Markdown, Python and HTML write them.

    Until none is left: so a text gives the same as it is, and as often escaped as may be.
    """
    for _ in range(_MOST_ESCAPED):
        before = text
        if "\\" in text:
            text = _ESCAPE.sub(_meant, text)  # of a character outside of the first plane, JSON writes two halves
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "&" in text:
            text = html.unescape(text)
        if text == before:
            break
    return text


def _meant(escape: re.Match[str]) -> str:
    said = escape[1]
    if len(said) > 1:
        number = int(said[1:], 16)
        return chr(number) if number <= sys.maxunicode else " "
    return " " if said in "nrtbf" else said


def _key(text: str, words: Sequence[str]) -> str:
    """What a text is known by: its words; its signs where there are none, such as an emoji."""
    return " ".join(words) or _SPACES.sub("", _unescaped(text)).encode(errors="replace").decode()


def _anchor(words: Sequence[str]) -> str | None:
    return next((" ".join(words[:length]) for length in _ANCHORS if len(words) >= length), None)
