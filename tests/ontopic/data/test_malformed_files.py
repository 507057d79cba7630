"""Hundreds of malformed files: whoever reads one says what is wrong in a few short lines, and never ends otherwise."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from loopback import ROOT

from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.data.labelled import LabelledRecord, Question, load_questions, load_records
from ontopic.data.labels import LabelStore
from ontopic.data.rows import load_rows, stream_rows
from ontopic.errors import UserError
from ontopic.judges.cards.choices import load_judge_settings
from ontopic.traffic.files import TrafficRow, import_traffic
from ontopic.traffic.store import TrafficStore

ROWS = [
    {"question": f"Is it „open“ on day {i}?", "answer": "Yes, it is.", "label": "pass", "in_scope": True}
    for i in range(9)
]
CSV = pd.DataFrame(ROWS).to_csv(index=False)
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
POLICY = (ROOT / "configs/policies/gardening.yaml").read_text()
SETTINGS = (ROOT / "configs/local.yaml").read_text()


def parquet() -> bytes:
    out = io.BytesIO()
    pd.DataFrame(ROWS).to_parquet(out)
    return out.getvalue()


BASES: dict[str, bytes] = {
    "rows.csv": CSV.encode(),
    "rows.tsv": pd.DataFrame(ROWS).to_csv(index=False, sep="\t").encode("utf-16"),
    "rows.jsonl": LINES.encode(),
    "rows.json": json.dumps({"data": ROWS}, indent=1).encode(),
    "rows.csv.gz": gzip.compress(CSV.encode()),
    "rows.jsonl.gz": gzip.compress(LINES.encode()),
    "rows.parquet": parquet(),
    "policy.yaml": POLICY.encode(),
    "settings.yaml": SETTINGS.encode(),
}
WHOLE: list[bytes] = [
    b"",
    b"\0",
    b"\0" * 5000,
    b"\n",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"[",
    b"{",
    b'"',
    b"null",
    b"[]",
    b"{}",
    b"[[]]",
    b"1e999999",
    b"- a",
    b"a: &a [*a]",
    b"%PDF-1.7",
    b"question,answer,label,in_scope",
    b'question,answer\n"',
    b"question\tanswer\nq\ta\tb\n",
    b'{"question": 1, "answer": [], "in_scope": {}}',
    b'{"question": "\\ud800", "answer": "a", "in_scope": true}',
    b'{"messages": [{}]}',
    b'{"info": {}, "data": {}}',
    b"[" * 200_000,
    b'{"a":' * 100_000,
    b"x" * 10_000_000,
    b'{"question": "' + b"q" * 3_000_000,
    random.Random(0).randbytes(20_000),
]


def mutated(base: bytes, chance: random.Random) -> bytes:
    """A file with something wrong in it."""
    at, end = chance.randrange(len(base)), min(len(base), chance.randrange(len(base)) + 8)
    some = random.Random(at).randbytes(4)
    return chance.choice(
        [
            base[:at],
            base[at:],
            base[:at] + base[end:],
            base[:at] + some + base[at:],
            base[:at] + b"\0" + base[at:],
            base[:at] + b'"' + base[at:],
            base[:at] + b"\xe9" + base[at:],
            base[:at] + b"\t\n" + base[at:],
            base[:at] + b"{[,;:" + base[at:],
            base[:at] + base[at:].replace(b",", b";"),
            base[:at] + base[at:].replace(b"true", b"9999").replace(b"True", b"perhaps"),
            base + base[:at],
            base.replace(b"\n", b"\r"),
            base.replace(b"question", b"Question ", 1),
            base.replace(b'"', b"'"),
            base.replace(b": ", b":"),
            base.replace(b"\n", b"\n\n", 3) + b'"unfinished',
        ]
    )


def cases() -> list[tuple[str, bytes]]:
    chance = random.Random(16)
    found = [(name, content) for name in BASES for content in WHOLE]
    return found + [(name, mutated(base, chance)) for name, base in BASES.items() for _ in range(45)]


def imported(path: Path) -> object:
    with TrafficStore(path.with_name("traffic.db")) as store:
        return import_traffic(path, store)


READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "rows": (
        lambda path: load_rows(path, Question, skip_bad=False),
        lambda path: load_rows(path, Question, skip_bad=True),
        lambda path: list(stream_rows(path, LabelledRecord)),
        lambda path: list(stream_rows(path, TrafficRow)),
        lambda path: load_questions(str(path)),
        lambda path: load_records(str(path)),
        lambda path: LabelStore(path).labels(),
    ),
    "poli": (load_policy, load_judge_settings),
    "sett": (load_settings,),
}


def check(read: Callable[[Path], object], path: Path) -> bool:
    """Whether the file was refused, as it is to be refused."""
    try:
        read(path)
    except UserError as error:
        lines = str(error).splitlines()
        assert 1 <= len(lines) <= 11
        assert lines[0].startswith(str(path))
        for line in lines:
            assert line.removeprefix(str(path)).isprintable(), line
            assert len(line) < 600, line
        return True
    return False


@pytest.mark.parametrize("name", BASES)
def test_a_malformed_file_is_refused_in_a_few_lines_or_read(tmp_path: Path, name: str) -> None:
    refused = 0
    of_name = [content for base, content in cases() if base == name]
    for number, content in enumerate(of_name):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        path.write_bytes(content)
        said = [check(read, path) for read in READERS[name[:4]]]
        refused += any(said)
        path.unlink()
    assert refused > len(of_name) / 2


def test_a_malformed_file_is_imported_whole_or_not_at_all(tmp_path: Path) -> None:
    content = [content for name, content in cases() if name == "rows.jsonl"]
    for number, each in enumerate(content[::4]):
        (tmp_path / f"{number}.jsonl").write_bytes(each)
        with TrafficStore(tmp_path / "traffic.db") as store:
            before = store.count()
        if check(imported, tmp_path / f"{number}.jsonl"):
            with TrafficStore(tmp_path / "traffic.db") as store:
                assert store.count() == before


def test_there_are_hundreds_of_them() -> None:
    assert len({content for _, content in cases()}) > 300
