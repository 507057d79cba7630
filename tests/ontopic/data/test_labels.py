"""Human labels: which records are drawn, how labels are kept, and the labeller on the terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from loopback import ROOT, ChatServer, Reply
from typer.testing import CliRunner, Result

from ontopic.data.labelled import load_records, near_duplicates
from ontopic.data.labels import (
    LabelStore,
    drawable,
    label_records,
    load_labels,
    most_informative,
    random_sample,
    terminal_safe,
)
from ontopic.errors import UserError
from ontopic.records import Record, Verdict

RECORDS = [
    Record(question=f"question number {i}, on {i * 37} things?", answer=f"answer {i}", id=f"r{i}") for i in range(200)
]


def scored(*scores: float | None) -> list[Verdict]:
    return [
        Verdict(
            outcome="unjudged" if s is None else "pass" if s >= 0.5 else "fail",
            score=s,
            explanation="",
            judge_id="rule",
            cause="broken" if s is None else None,
        )
        for s in scores
    ]


class Terminal:
    """Answers prompts with lines; keeps what was shown."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.shown = list(lines), ""

    def ask(self, prompt: str) -> str:
        self.shown += prompt
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)

    def say(self, text: str) -> None:
        self.shown += text + "\n"


def labelled(store: LabelStore, records: list[Record], *lines: str) -> Terminal:
    terminal = Terminal(*lines)
    label_records(records, store, by="random", definition="Banking is money.", ask=terminal.ask, say=terminal.say)
    return terminal


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels" / "banking.jsonl")


def test_the_records_that_the_judge_is_least_sure_of_come_first() -> None:
    records = [Record(question=q, answer="a") for q in ("cards", "loans", "weather", "poems", "mortgages")]
    assert most_informative(records, [scored(0.99, 0.55, 0.2, 0.02, 0.47)], n=3) == [4, 1, 2]


def test_records_on_which_judges_disagree_come_before_those_on_which_they_agree() -> None:
    records = [Record(question=q, answer="a") for q in ("cards", "loans", "weather")]
    assert most_informative(records, [scored(0.9, 0.95, 0.1), scored(0.9, 0.05, 0.2)], n=3) == [1, 2, 0]


def test_the_chosen_records_hold_no_near_duplicates() -> None:
    texts = ["How do I block my card?", "how do i block my card", "How do I block my card??", "What is a mortgage?"]
    records = [Record(question=text, answer=f"answer {i}") for i, text in enumerate(texts * 300)]
    chosen = most_informative(records, [scored(*[0.5 + i / 10_000 for i in range(len(records))])], n=10)
    assert chosen == [0, 3]
    questions = [records[i].question for i in chosen]
    assert near_duplicates(questions[:1], questions[1:]) == []


def test_what_no_judge_could_judge_is_left_out() -> None:
    records = [Record(question=q, answer="a") for q in ("cards", "loans", "")]
    assert most_informative(records, [scored(None, 0.9, None)], n=3) == [1]
    assert most_informative([], [[]], n=3) == []
    with pytest.raises(ValueError, match="3 records"):
        most_informative(records, [scored(0.5)], n=1)


def test_a_question_is_drawn_for_the_card_or_for_training_and_never_for_both() -> None:
    again = [Record(question=r.question.upper() + "!", answer="another answer") for r in RECORDS]
    card = {r.question.lower().strip("!?") for r in drawable(RECORDS + again, "random")}
    training = {r.question.lower().strip("!?") for r in drawable(RECORDS + again, "uncertainty")}
    assert card.isdisjoint(training)
    assert len(card) + len(training) == len(RECORDS)
    assert 70 < len(card) < 130
    assert (
        drawable(
            [
                Record(question=" ", answer="a"),
                Record(question="x" * 20_001, answer="a"),
                Record(question="\ud800", answer="a"),
            ],
            "random",
        )
        == []
    )


def test_the_random_sample_does_not_depend_on_the_order_and_goes_on_where_it_stopped(store: LabelStore) -> None:
    first = [RECORDS[i].id for i in random_sample(RECORDS, 10)]
    turned = RECORDS[::-1]
    assert [turned[i].id for i in random_sample(turned, 10)] == first
    assert first != [r.id for r in RECORDS[:10]]
    for i in random_sample(RECORDS, 4):
        store.add(RECORDS[i], "pass", by="random")
    rest = store.unlabelled(RECORDS)
    assert [rest[i].id for i in random_sample(rest, 6)] == first[4:]


def test_labels_are_kept_with_how_they_were_drawn_and_who_gave_them_and_when(store: LabelStore) -> None:
    store.add(
        Record(question="What is a loan?", answer="Money.", in_scope=True, id="r1"),
        "pass",
        by="random",
        why="it is right",
    )
    store.add(Record(question="Naïve 😀?", answer="No.", in_scope=False), "fail", by="uncertainty")
    (first, second) = (json.loads(line) for line in store.path.read_text(encoding="utf-8").splitlines())
    assert (first["label"], first["in_scope"], first["kind"], first["why"]) == (
        "pass",
        True,
        "human_label",
        "it is right",
    )
    assert (first["split"], first["drawn"], first["record_id"]) == ("calibration", "random", "r1")
    assert (second["split"], second["drawn"], second["question"]) == ("train", "uncertainty", "Naïve 😀?")
    assert first["labelled_at"].endswith("+00:00")
    assert "labeller" in first
    assert [row.question for row in load_labels(store.path, "calibration")] == ["What is a loan?"]
    assert [row.question for row in load_labels(store.path, "train")] == ["Naïve 😀?"]
    assert load_records(str(store.path), split="train")[0].label == "fail"


def test_of_two_labels_of_one_record_the_last_counts(store: LabelStore) -> None:
    store.add(RECORDS[0], "pass", by="random")
    store.add(RECORDS[1], "pass", by="random")
    store.add(RECORDS[0], "fail", by="random")
    assert [(row.question, row.label) for row in store.labels()] == [
        (RECORDS[1].question, "pass"),
        (RECORDS[0].question, "fail"),
    ]
    store.remove(RECORDS[1])
    assert [row.question for row in store.labels()] == [RECORDS[0].question]
    assert store.unlabelled(RECORDS[:2]) == [RECORDS[1]]


def test_no_file_is_no_label(tmp_path: Path) -> None:
    assert load_labels(tmp_path / "none.jsonl", "train") == []


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_crash_cut_off_is_dropped_and_said(
    store: LabelStore, cut: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in RECORDS[:2]:
        store.add(record, "pass", by="random")
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[: whole.index(b"\n") + 1 + cut])
    assert len(store.labels()) == 1
    assert "half-written" in capsys.readouterr().err
    store.add(RECORDS[2], "fail", by="random")
    assert [row.label for row in store.labels()] == ["pass", "fail"]
    assert capsys.readouterr().err == ""


def test_a_last_line_that_only_lacks_its_newline_counts(store: LabelStore) -> None:
    store.add(RECORDS[0], "pass", by="random")
    store.path.write_bytes(store.path.read_bytes().rstrip(b"\n"))
    store.add(RECORDS[1], "fail", by="random")
    assert [row.label for row in store.labels()] == ["pass", "fail"]


def test_a_broken_line_among_others_is_named(store: LabelStore) -> None:
    store.add(RECORDS[0], "pass", by="random")
    with store.path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(UserError, match=r"banking\.jsonl:2: is not a label"):
        store.labels()


def test_several_processes_label_at_once_and_no_line_is_lost(store: LabelStore) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from ontopic.data.labels import LabelStore; from ontopic.records import Record\n"
        "store = LabelStore(Path(sys.argv[1]))\n"
        "records = [Record(question=f'{sys.argv[2]} {i}', answer='a') for i in range(20)]\n"
        "for record in records: store.add(record, 'pass', by='random')"
    )
    command = [sys.executable, "-c", script, str(store.path)]
    both = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("left", "right")]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(store.labels()) == 40


def test_records_are_labelled_one_by_one(store: LabelStore) -> None:
    terminal = labelled(store, RECORDS[:4], "p", "y", "s", "f it gives the recipe", "n", "pass", "")
    rows = store.labels()
    assert [(r.question, r.label, r.in_scope, r.why) for r in rows] == [
        (RECORDS[0].question, "pass", True, ""),
        (RECORDS[2].question, "fail", False, "it gives the recipe"),
        (RECORDS[3].question, "pass", None, ""),  # the input ended at the question of scope
    ]
    assert "4 of 4" in terminal.shown
    assert "answer 3" in terminal.shown


def test_the_scope_is_not_asked_where_it_is_known(store: LabelStore) -> None:
    terminal = labelled(store, [Record(question="What is a loan?", answer="Money.", in_scope=True)], "p")
    assert "in scope?" not in terminal.shown
    assert store.labels()[0].in_scope is True


def test_undo_takes_the_last_label_back_and_asks_again(store: LabelStore) -> None:
    terminal = labelled(store, RECORDS[:3], "u", "p", "y", "s", "u", "f", "n", "q")
    assert "nothing to undo" in terminal.shown
    assert [(r.question, r.label) for r in store.labels()] == [(RECORDS[0].question, "fail")]
    assert terminal.shown.count("1 of 3") == 3


def test_help_and_an_unknown_key_label_nothing(store: LabelStore) -> None:
    terminal = labelled(store, RECORDS[:1], "?", "x", "", "q")
    assert "Banking is money." in terminal.shown
    assert terminal.shown.count("Give one of p, f, s, u, q.") == 2
    assert store.labels() == []


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[31mred", r"  | \x1b[2J\x1b[31mred"),
        ("a\rpass or fail? p", r"  | a\rpass or fail? p"),
        ("a\npass or fail? p", "  | a\n  | pass or fail? p"),
        ("\u202egnp.exe\u200b\ufeff\x9b", r"  | \u202egnp.exe\u200b\ufeff\x9b"),
        ("\u2028x\ud800\U000e0041", r"  | \u2028x\ud800\U000e0041"),
        ("[bold]Ünï 😀\t", "  | [bold]Ünï 😀\t"),
        (" ", "  | (empty)"),
    ],
)
def test_hostile_text_cannot_play_with_the_terminal(hostile: str, shown: str) -> None:
    assert terminal_safe(hostile) == shown


@pytest.fixture
def config(tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy with four labelled records, judged behind the loopback server."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)

    def reply(request: dict[str, object]) -> Reply:
        grade = {"explanation": "", "in_scope": True, "declined": False, "verdict": "pass"}
        return Reply(json.dumps(grade))

    chat_server.reply = reply
    rows = [{"question": f"q{i}", "answer": "a", "label": "pass", "split": "calibration"} for i in range(4)]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    question = {"question": "q", "in_scope": True, "split": "train"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    policy = yaml.safe_load((ROOT / "configs/policies/gardening.yaml").read_text(encoding="utf-8"))
    policy |= {"questions": "questions.jsonl", "records": "records.jsonl"}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text(encoding="utf-8"))
    settings |= {"policy": "policy.yaml", "judge": {"kind": "openai", "model": "judge-1"}}
    settings |= {"judge_prompts": str(ROOT / "configs/judge_prompts")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "config.yaml"


@pytest.fixture
def command(config: Path, tmp_path: Path) -> Callable[..., Result]:
    """``run.py label`` with lines typed into it."""
    import run

    def typed(lines: str, *arguments: str) -> Result:
        state = ["--config", str(config), "--state", str(tmp_path / "state")]
        return CliRunner().invoke(run.app, ["label", *state, *arguments], input=lines)

    return typed


@pytest.fixture
def records_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"question": r.question, "answer": r.answer}) + "\n" for r in RECORDS[:40]))
    return path


def test_the_command_labels_a_random_sample_resumes_and_prints_the_card(
    command: Callable[..., Result], records_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "labels" / "gardening.jsonl"
    done = command("p\ny\nf\nn\n", "--records", str(records_file), "-n", "3")
    assert done.exit_code == 0, done.output
    assert "calibration split" in done.output
    assert "2 labelled now" in done.output
    assert "sensitivity" in done.output
    first = [row.question for row in load_labels(path, "calibration")]
    again = command("p\ny\nq\n", "--records", str(records_file))
    assert "1 labelled now" in again.output
    assert "holds 3 labels for the judge's card and 0 for training" in again.output
    rows = load_labels(path, "calibration")
    assert [row.question for row in rows[:2]] == first
    assert len({row.question for row in rows}) == 3


def test_the_command_asks_for_what_the_judge_is_unsure_of_apart_from_the_card(
    command: Callable[..., Result], records_file: Path, tmp_path: Path, chat_server: ChatServer
) -> None:
    done = command("f\nn\n", "--records", str(records_file), "-n", "3", "--by", "uncertainty")
    assert done.exit_code == 0, done.output
    assert "training split, never into the card" in done.output
    assert chat_server.requests
    path = tmp_path / "state" / "labels" / "gardening.jsonl"
    assert load_labels(path, "calibration") == []
    (row,) = load_labels(path, "train")
    assert row.question in [r.question for r in drawable(RECORDS, "uncertainty")]


def test_without_traffic_or_records_the_command_says_so(command: Callable[..., Result]) -> None:
    done = command("")
    assert isinstance(done.exception, UserError)
    assert "no traffic yet" in str(done.exception)


def test_the_newest_models_traffic_is_labelled(command: Callable[..., Result], tmp_path: Path) -> None:
    from ontopic.traffic.store import TrafficStore

    with TrafficStore(tmp_path / "state" / "traffic.db") as traffic:
        for version in ("1", "2"):
            for i in range(20):
                traffic.add(Record(question=f"question {i} of version {version}?", answer="a", model_version=version))
    done = command("q\n")
    assert done.exit_code == 0, done.output
    assert "of version 2?" in done.output
    assert "of version 1?" not in done.output
    assert "0 labelled now" in done.output
