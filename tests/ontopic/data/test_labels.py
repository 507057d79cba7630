"""How people's labels are kept."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from loopback import ROOT

from ontopic.data.labelled import load_records
from ontopic.data.labels import LabelStore, load_labels
from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.state.workspace import Workspace

RECORDS = [
    Record(question=f"question number {i}, on {i * 37} things?", answer=f"answer {i}", id=f"r{i}") for i in range(200)
]


@pytest.fixture
def store(anywhere: Workspace) -> LabelStore:
    return LabelStore(anywhere.lines(anywhere.labels / "banking.jsonl"))


@pytest.fixture
def in_file(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels" / "banking.jsonl")


def test_labels_are_kept_with_how_they_were_drawn_and_who_gave_them_and_when(store: LabelStore) -> None:
    store.add(
        Record(question="What is a loan?", answer="Money.", in_scope=True, id="r1"),
        "pass",
        by="random",
        why="it is right",
    )
    store.add(Record(question="Naïve 😀?", answer="No.", in_scope=False), "fail", by="uncertainty")
    (first, second) = (json.loads(line) for line in store.kept.read().splitlines())
    assert (first["label"], first["in_scope"], first["kind"], first["why"]) == (
        "pass",
        True,
        "human_label",
        "it is right",
    )
    assert (first["split"], first["drawn"], first["record_id"]) == ("calibration", "random", "r1")
    assert (second["split"], second["drawn"], second["question"]) == ("train", "uncertainty", "Naïve 😀?")
    assert first["labelled_at"].endswith("+00:00")
    assert first["labeller"] == getpass.getuser()
    assert [row.question for row in load_labels(store.kept, "calibration")] == ["What is a loan?"]
    assert [row.question for row in load_labels(store.kept, "train")] == ["Naïve 😀?"]


def test_a_file_of_labels_is_one_of_records(in_file: LabelStore) -> None:
    in_file.add(RECORDS[0], "fail", by="uncertainty")
    assert load_records(str(in_file.kept), split="train")[0].label == "fail"


def test_a_label_keeps_which_version_answered_when_and_is_of_traffic_where_it_was_drawn_at_random(
    store: LabelStore,
) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    of_traffic = Record(question="q?", answer="a", id="r1", model_version="3", asked_at=at)
    store.add(of_traffic, "pass", by="random")
    store.add(of_traffic.model_copy(update={"question": "another?"}), "pass", by="uncertainty")
    store.add(Record(question="of a file?", answer="a"), "fail", by="random")
    rows = store.labels()
    assert [(row.record_id, row.model_version, row.asked_at) for row in rows[:2]] == [("r1", "3", at)] * 2
    assert [row.is_of_traffic for row in rows] == [True, False, False]
    row = {"question": "old?", "answer": "a", "label": "pass", "split": "calibration", "drawn": "random"}
    row |= {"record_id": "r0", "kind": "human_label"}
    store.kept.append(lambda *_: json.dumps(row).encode())  # as releases before wrote it
    old = store.labels()[-1]
    assert (old.is_of_traffic, old.model_version, old.asked_at) == (True, "", None)


def test_of_two_labels_of_one_record_the_last_counts(store: LabelStore) -> None:
    store.add(RECORDS[0], "pass", by="random")
    store.add(RECORDS[1], "pass", by="random")
    store.add(RECORDS[0], "fail", by="random")
    assert [(row.question, row.label) for row in store.labels()] == [
        (RECORDS[1].question, "pass"),
        (RECORDS[0].question, "fail"),
    ]
    store.remove(RECORDS[1], by="random")
    assert [row.question for row in store.labels()] == [RECORDS[0].question]
    assert store.unlabelled(RECORDS[:2]) == [RECORDS[1]]


def test_no_file_is_no_label(tmp_path: Path) -> None:
    assert load_labels(tmp_path / "none.jsonl", "train") == []


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_crash_cut_off_is_dropped_and_said(
    in_file: LabelStore, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    store = in_file
    for record in RECORDS[:2]:
        store.add(record, "pass", by="random")
    whole = store.kept.path.read_bytes()
    store.kept.path.write_bytes(whole[: whole.index(b"\n") + 1 + cut])
    assert len(store.labels()) == 1
    assert "half-written" in capsys.readouterr().err
    store.add(RECORDS[2], "fail", by="random")
    assert [row.label for row in store.labels()] == ["pass", "fail"]
    assert capsys.readouterr().err == ""


def test_a_last_line_that_only_lacks_its_newline_counts(in_file: LabelStore) -> None:
    store = in_file
    store.add(RECORDS[0], "pass", by="random")
    store.kept.path.write_bytes(store.kept.path.read_bytes().rstrip(b"\n"))
    store.add(RECORDS[1], "fail", by="random")
    assert [row.label for row in store.labels()] == ["pass", "fail"]


def test_a_broken_line_among_others_is_named(store: LabelStore) -> None:
    store.add(RECORDS[0], "pass", by="random")
    store.kept.append(lambda *_: b"{}")
    with pytest.raises(UserError, match=r"banking\.jsonl:2: is not a label"):
        store.labels()


def test_several_processes_label_at_once_and_no_line_is_lost(store: LabelStore, anywhere: Workspace) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from ontopic.data.labels import LabelStore; from ontopic.records import Record\n"
        "from ontopic.state.workspace import Workspace\n"
        "workspace = Workspace(root=Path(sys.argv[1]))\n"
        "store = LabelStore(workspace.lines(workspace.labels / 'banking.jsonl'))\n"
        "records = [Record(question=f'{sys.argv[2]} {i}', answer='a') for i in range(20)]\n"
        "for record in records: store.add(record, 'pass', by='random')"
    )
    command = [sys.executable, "-c", script, str(anywhere.root)]
    both = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("left", "right")]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(store.labels()) == 40


def test_a_right_answer_is_kept_without_personal_data_and_teaches_no_judge(
    anywhere: Workspace,
) -> None:
    store = LabelStore(
        anywhere.lines(anywhere.labels / "banking.jsonl"), plain=lambda text: text.replace("Ann", "[name]")
    )
    record = Record(question="q?", answer="a", in_scope=True)
    store.add(record, "fail", by="uncertainty", why="Ann says so")
    before = load_labels(store.kept, "train")
    store.add(record, "fail", by="uncertainty", why="Ann says so", correction="Ask Ann.")
    assert [(row.why, row.correction) for row in store.labels()] == [("[name] says so", "Ask [name].")]
    assert load_labels(store.kept, "train") == before
    store.add(record, "fail", by="uncertainty", correction=" \n")
    assert store.labels()[0].correction == ""
