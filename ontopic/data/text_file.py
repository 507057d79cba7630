"""Files of text as programs write them: packed or not, in whichever encoding their bytes leave no doubt of."""

from __future__ import annotations

import codecs
import gzip
import io
import re
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from ontopic.errors import UserError

_CHUNK = 1 << 20
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHERS = (
    (b"PK\x03\x04", "a spreadsheet or another zip archive; save it as CSV (in Excel: CSV UTF-8), or unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook; save it as CSV (in Excel: CSV UTF-8)"),
    (b"PAR1", "Parquet; let its name end in .parquet"),
    (b"%PDF", "a PDF; give a CSV or JSONL file"),
    (b"BZh", "packed with bzip2; unpack it"),
    (b"\xfd7zXZ", "packed with xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it"),
    (b"SQLite format 3", "an SQLite database; give a CSV or JSONL file"),
)
_GZIP = b"\x1f\x8b"
# In Windows-1252, and so in Latin-1, Western European text holds these besides ASCII, and hardly more than two letters
# of them in a row. Text of other single-byte encodings (Windows-1250 and -1251, Mac Roman, cp850) falls outside at one
# place or another, and so do broken UTF-8 and binary data.
_LETTERS = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜßàáâãäåæçèéêëìíîïñòóôõöøùúûüŒœ"
_NOT_WESTERN = re.compile(
    rf"[^\t\n\r -~{_LETTERS}\xa0¡¿«»€£¥§°©®™ºª·½¼¾²×–—‘’“”„…•]"
    rf"|[{_LETTERS}]{{4}}|(?<=[a-z{_LETTERS}])[¡¿€£§°“”„…º](?=[a-z{_LETTERS}])|[A-Za-z][–—][a-z]|º[a-z]|Ã[\x80-\xbf©¤¶¼§¨]"
)


def unicode_encoding(path: Path) -> str:
    """UTF-16 or UTF-32, with its mark or without, or else UTF-8, of which only the mark is looked for.

    Raises:
        UserError: it is a known kind of file that holds no text.
        OSError, EOFError, zlib.error: it cannot be read or unpacked.
    """
    with open_bytes(path) as file:
        start = file.read(4096)
    for mark, encoding in _BOMS:
        if start.startswith(mark):
            return encoding
    for mark, what in _OTHERS:
        if start.startswith(mark):
            raise UserError(f"{path}: is {what}")
    return (_wide(start) if 0 in start else None) or "utf-8"


def encoding_of(path: Path) -> str:
    """The encoding of a text file: a Unicode one, or Windows-1252.

    Raises:
        UserError: it is no text file, or its bytes fit none of them beyond doubt.
        OSError, EOFError, zlib.error: it cannot be read or unpacked.
    """
    encoding = unicode_encoding(path)
    problem = _utf8_problem(path) if encoding == "utf-8" else None
    if problem is None:
        return encoding
    if problem.startswith("is not UTF-8") and _is_western(path):
        return "cp1252"
    raise UserError(f"{path}: {problem}")


def open_bytes(path: Path) -> BinaryIO:
    """Open a file to read, unpacked where it is packed with gzip, whatever its name."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def open_text(path: Path, encoding: str) -> TextIO:
    """Open a file to read as text, its line ends as they are."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, newline="")


def _wide(start: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, by where the zero bytes of its ASCII characters stand."""
    zeros = [start[place::4].count(0) / max(1, len(start[place::4])) for place in range(4)]
    patterns = {"utf-32-le": "-ooo", "utf-32-be": "ooo-", "utf-16-le": "-o-o", "utf-16-be": "o-o-"}
    for encoding, pattern in patterns.items():
        if all((share > 0.2) if sign == "o" else (share < 0.02) for sign, share in zip(pattern, zeros, strict=True)):
            return encoding
    return None


def _utf8_problem(path: Path) -> str | None:
    """Why a file is not text in UTF-8, with its line; ``None`` where it is."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with open_bytes(path) as file:
        while True:
            chunk = file.read(_CHUNK)
            if b"\0" in chunk:
                line += chunk[: chunk.index(b"\0")].count(b"\n")
                return (
                    f"line {line} holds a NUL byte, which no text has; the file is damaged or no text, so save it anew"
                )
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += bytes(error.object[: error.start]).count(b"\n")
                return (
                    f"is not UTF-8 (line {line}), nor UTF-16, and its bytes do not say which other encoding it has "
                    "(Windows-1252 was tried); save it as UTF-8 (in Excel: CSV UTF-8)"
                )
            if not chunk:
                return None
            line += chunk.count(b"\n")


def _is_western(path: Path) -> bool:
    letters: set[str] = set()
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            chunk += file.readline()
            try:
                text = chunk.decode("cp1252")
            except UnicodeDecodeError:
                return False
            if _NOT_WESTERN.search(text):
                return False
            letters.update(text)
    return not (letters & set("õûÕÛ") and letters & set("öüÖÜ"))  # Hungarian, in Windows-1250
