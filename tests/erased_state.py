"""A state folder in which traffic went everywhere that it can go, and a search for it that knows no forms of text."""

from __future__ import annotations

import gzip
import hashlib
import html
import io
import json
import shutil
import sqlite3
import zipfile
import zlib
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from evaluations import evaluated
from pyarrow import parquet
from registries import made_registry

from ontopic.config.policy import GateLimits
from ontopic.data.labels import Draw, LabelStore
from ontopic.evaluation.gate import Decision
from ontopic.evaluation.gate_page import TEMPLATE, gate_context
from ontopic.evaluation.quality import difference
from ontopic.judges.llm.verdict_cache import VerdictCache, content_key
from ontopic.monitoring.window import Cut
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Feedback, Judged, Message, Record, Verdict
from ontopic.reports.design import draw_page
from ontopic.reports.page import text_table, write_page
from ontopic.state.workspace import Workspace
from ontopic.statistics.pairs import compare
from ontopic.statistics.scores import score
from ontopic.traffic.identity import names_key, user_hash
from ontopic.traffic.store import TrafficStore
from ontopic.watch.actions import Action, ActionStore

NAME = "ontopic-banking"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CUT = Cut(length=HOUR, records=10, lateness=timedelta(minutes=5))
JAPANESE = "振り込みはいつ届きますか"
LONG = "kanarieA0 " + "what happens to my account when I move abroad for a while " * 8 + "kanarieA9?"
QUESTIONS = [
    'Why is "my card" <b>blocked</b> & who did it? kanarieB',
    "Zwei Zeilen\nüber Gebühren,\n\n\\backslash und\ttab kanarieC",
    f"{JAPANESE} kanarieD",
    "kanarieE 🙂🏦",
    '{"pasted": "json of kanarieF", "n": [1, 2]}',
    LONG,
    "- *kanarieG* _soll_ [weg](http://example.com) | `code` {{x}} %s",
]
ANSWER = "You asked, kanarieH{}: the fee of the transfer is shown before you confirm it."
OTHERS = "Where do I find the bank's opening hours? robin"
VERDICT = Verdict(outcome="fail", score=0.1, explanation="", judge_id="a judge")


def turns(user: str, questions: list[str], conversation: str, *, start: int) -> list[Record]:
    """The records of one conversation, each with all that was said before it."""
    said, records = [Message(role="system", content="You help a bank's customers.")], []
    for i, question in enumerate(questions, start=start):
        said.append(Message(role="user", content=question))
        records.append(
            Record(
                id=f"{conversation}-{i}",
                question=question,
                answer=ANSWER.format(i),
                messages=tuple(said),
                conversation=conversation,
                user=user,
                metadata={"note": "kanarieI"} if user else {},
                registered_model=NAME,
                model_version="2",
                asked_at=NOON + i * timedelta(minutes=7),
            )
        )
        said.append(Message(role="assistant", content=ANSWER.format(i)))
    return records


def others(n: int = 3) -> list[Record]:
    """What somebody else asked at the same time: one of it word by word what the erased user asked too."""
    return [
        Record(
            id=f"other-{i}",
            question=f"{OTHERS} {i}",
            answer=f"From nine to five, robin {i}.",
            registered_model=NAME,
            model_version="2",
            asked_at=NOON + i * timedelta(minutes=8),
        )
        for i in range(n)
    ]


def made_state(root: Path, traffic: Path | str) -> Workspace:
    """The folder, with the traffic of ``anna`` and of another everywhere."""
    registry = made_registry(root, versions="12", name=NAME)
    workspace = Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")
    user = user_hash("anna", names_key(workspace))
    records = turns(user, QUESTIONS, "talk", start=0) + others()
    with TrafficStore(traffic, NAME) as store:
        store.add_many(records)
        store.add_feedback(
            Feedback(record_id="talk-1", thumb="down", comment="kanarieJ is wrong", by="app", correction="kanarieL")
        )
        _watched(workspace, store, records)
    _spooled(workspace, turns(user, ["still in the spool, kanarieK"], "later", start=30)[0])
    _labelled_and_cached(workspace, records)
    _tables(workspace, records)
    registry.tag("2", {"ontopic.preferences_sha256": "hash of the pairs"})
    _evidence(workspace, records)
    registry.enter(
        "gate", "2", by="the loop", why="", facts={"gate": "failed", "against": "1", "files": _hashes(workspace)}
    )
    registry.enter("refusal", "2", by="the loop", why="leak", facts={})
    return workspace


def found_in(root: Path, *words: str) -> list[str]:
    """The files that hold one of these texts, however they are packed and whatever their characters are escaped to."""
    forms = {form.encode() for word in words for form in (word, json.dumps(word)[1:-1], html.escape(word))}
    return sorted(
        name
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".safetensors"
        for name, content in _unpacked(path.relative_to(root).as_posix(), path.read_bytes())
        if any(form in content for form in forms)
    )


def found_in_database(url: str, *words: str) -> list[str]:
    """The same of the tables of a PostgreSQL database."""
    import psycopg
    from psycopg import sql

    forms = [form for word in words for form in (word, json.dumps(word)[1:-1], html.escape(word))]
    found = set()
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall():
                texts = [_text(cell) if isinstance(cell, bytes) else str(cell) for cell in row]
                if any(form in text for form in forms for text in texts):
                    found.add(table)
    return sorted(found)


def _text(content: bytes) -> str:
    with suppress(zlib.error):
        content = zlib.decompress(content)
    return content.decode(errors="replace")


def _unpacked(name: str, content: bytes):
    yield name, content
    if content[:2] == b"\x1f\x8b":
        yield from _unpacked(f"{name} unpacked", gzip.decompress(content))
    if content[:4] == b"PK\x03\x04":
        archive = zipfile.ZipFile(io.BytesIO(content))
        yield from ((f"{name}: {each}", archive.read(each)) for each in archive.namelist())
    if content[:4] == b"PAR1":
        yield name, json.dumps(parquet.read_table(io.BytesIO(content)).to_pylist(), ensure_ascii=False).encode()


def _watched(workspace: Workspace, store: TrafficStore, records: list[Record]) -> None:
    """Closed, and reopened by one that came late; judged, asked again in a canary, and reported."""
    late = Record(id="late", question="late robin", answer="a", model_version="2", asked_at=NOON + HOUR / 2)
    with WindowStore(workspace.windows, NAME) as windows, ActionStore(workspace.windows, NAME) as actions:
        windows.take_in(store, CUT, now=NOON + 2 * HOUR)
        windows.due(CUT, NOON + 2 * HOUR)
        said = {r.id: VERDICT.model_copy(update={"explanation": f"It says: {r.answer}"}) for r in records}
        windows.keep_verdicts(said, VERDICT.judge_id)
        actions.add_replays(list(said), "1", verdicts=list(said.values()))
        why = f"the server said: {LONG}"
        actions.add(Action(at=NOON, kind="failed", version="2", subject="a window", why=why))
        store.add(late)
        windows.take_in(store, CUT, now=NOON + 2 * HOUR)


def _spooled(workspace: Workspace, record: Record) -> None:
    for spool in (workspace.spool, Workspace(root=workspace.loop).spool):
        spool.mkdir(parents=True)
        waits = record.model_copy(update={"id": f"waits-{spool.parent.name}"})
        (spool / f"{waits.id}.json").write_text(waits.model_dump_json())
        (spool / "broken.bad").write_text(json.dumps({"question": QUESTIONS[1]})[:-2])
    (workspace.root / "serving.log").write_text(f"started\ninput_value={QUESTIONS[0]!r}\nended\n")


def _labelled_and_cached(workspace: Workspace, records: list[Record]) -> None:
    labels = LabelStore(workspace.lines(workspace.labels / "banking.jsonl"))
    cache = VerdictCache(workspace.verdicts)
    for number, record in enumerate(records):
        right = f"Look into the app, kanarieM{number}." if record.user else ""
        by: Draw = "uncertainty" if number % 2 else "random"
        labels.add(record, "fail", by=by, why=record.question[:60], correction=right)
        labels.add(record.model_copy(update={"id": ""}), "fail", by="discordant")
        content = {"question": record.question, "answer": record.answer, "in_scope": None}
        cache.put(content_key("a judge", content), {"explanation": f"Somebody wonders: {record.question[:30]}"})
        cache.put(bytes([number]) * 32, {"explanation": f"of an older release: {record.question}"})
    cache.flush()


def _tables(workspace: Workspace, records: list[Record]) -> None:
    """As steps write them: artifacts of runs and of ZenML, pages, snapshots, pairs, databases, exports."""
    rows = [(r.question, r.answer, r.id) for r in records]
    pairs = [{"question": q, "chosen": "c", "rejected": a, "record_id": i, "history": []} for q, a, i in rows]
    pairs.append(pairs[1] | {"chosen": "Look into the app, kanarieM1."})
    pairs.append({"question": "and then?", "chosen": "c", "rejected": "d", "record_id": "", "history": []})
    pairs[-1]["history"] = [{"role": "user", "content": QUESTIONS[1]}]
    table = {"columns": list(pairs[0]), "data": [list(pair.values()) for pair in pairs]}
    judged = {
        "records": [record.model_dump(mode="json") for record in records],
        "verdicts": [VERDICT.model_dump() | {"explanation": r.question[:20]} for r in records],
    }
    asked = {"parameters": {"sample": {"more": [{"question": q, "in_scope": True} for q, _, _ in rows]}}}
    run, artifact = workspace.artifacts / "r1" / "artifacts", workspace.zenml / "artifacts" / "step"
    shown = pd.DataFrame(rows, columns=["Question", "Answer", "Id"]).drop(columns="Id")
    widget = text_table("Failed records", shown, nothing="none")
    for path, value in (
        (run / "preferences.json", table),
        (artifact / "pairs.json", pairs),
        (artifact / "judged.json", judged),
        (artifact / "ids.json", [record.id for record in records]),
        (workspace.evidently / "p" / "snapshots" / "s.json", {"widgets": [json.loads(widget.json())]}),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    discordant = {"discordant": [{"question": q, "champion": a} for q, a, _ in rows]}
    workspace.files.write(workspace.discordant / NAME / "gate.json", json.dumps(discordant).encode())
    write_page("a window", [widget], out=workspace.reports / "window.html")
    page = workspace.reports / "window.html"  # without Evidently's program of 3 MB, which is the same on all pages
    page.write_text("".join(line for line in page.read_text().splitlines(keepends=True) if len(line) < 100_000))
    shutil.copyfile(page, run / "window.html")
    pd.DataFrame(rows, columns=["question", "answer", "id"]).to_parquet(workspace.root / "export.parquet")
    lines = "".join(json.dumps({"question": q, "id": i}) + "\n" for q, _, i in rows)
    (workspace.root / "export.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    with zipfile.ZipFile(workspace.root / "kept.zip", "w") as archive:
        archive.writestr("rows.jsonl", lines)
    for database in (workspace.mlflow_file, workspace.zenml / "zenml.db"):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("CREATE TABLE spans (id INTEGER PRIMARY KEY, content TEXT)")
            connection.execute("INSERT INTO spans (content) VALUES (?)", (json.dumps(asked),))
            connection.executemany("INSERT INTO spans (content) VALUES (?)", [(q,) for q, _, _ in rows])
    with closing(sqlite3.connect(workspace.mlflow_file)) as connection, connection:
        connection.execute("CREATE TABLE params (run_uuid TEXT, key TEXT, value TEXT)")
        connection.execute("INSERT INTO params VALUES ('r1', 'preferences_sha256', 'hash of the pairs')")


def _evidence(workspace: Workspace, records: list[Record]) -> None:
    folder, files = workspace.evidence / "a-gate", workspace.files
    answers = [json.dumps({"question": r.question, "answer": r.answer}) for r in records]
    verdicts = [json.dumps({"outcome": "pass", "explanation": r.question[:15]}) for r in records]
    for name, lines in (("champion-answers.jsonl", answers), ("champion-verdicts.jsonl", verdicts)):
        files.write(folder / name, "".join(line + "\n" for line in lines).encode())
    page = _gate_page(records)
    files.write(folder / "gate.html", page.encode())
    (workspace.reports / "gate.html").write_text(page)
    files.write(folder / "decision.json", b"{}")


def _gate_page(records: list[Record]) -> str:
    """On which the challenger has gained all of them, with the conversations before them."""
    failed = [VERDICT.model_copy(update={"explanation": f"It says: {record.answer}"}) for record in records]
    passed = [VERDICT.model_copy(update={"outcome": "pass", "score": 0.9}) for _ in records]
    sides = [evaluated(Judged(records=records, verdicts=verdicts)) for verdicts in (failed, passed)]
    decision = Decision(
        passed=True,
        tests=[],
        champion=score(failed),
        challenger=score(passed),
        comparison=compare(failed, passed),
        quality=difference(sides[0].quality, sides[1].quality),
        preference=None,
        limits=GateLimits(guardrail_score=0.8, over_refusal=0.2, leak=0.2, improvement=0.0),
        report=Path("gate.html"),
    )
    return draw_page("A gate", TEMPLATE, **gate_context(decision, sides[0], challenger=sides[1]))


def _hashes(workspace: Workspace) -> dict[str, str]:
    files = workspace.files
    return {
        path.relative_to(workspace.root).as_posix(): hashlib.sha256(files.read(path)).hexdigest()
        for path in files.within(workspace.evidence)
    }
