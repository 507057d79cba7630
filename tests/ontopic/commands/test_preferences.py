"""`python run.py preferences`: what the next training will see is shown, exported, edited, entered and erased."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from erased_state import found_in
from hub_server import hub_of_this_process
from taught import ANNAS, LEAK, NAME, POLICY, made_state, write_config, write_rows
from typer.testing import CliRunner, Result

import run
from ontopic.config.policy import load_policy
from ontopic.config.settings import load_settings
from ontopic.config.training_settings import PreferenceSetSettings
from ontopic.errors import UserError
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import open_registry
from ontopic.registry.record_check import check_record
from ontopic.state.workspace import Workspace
from ontopic.traffic.store import TrafficStore
from ontopic.training.preference_sets import read_sets
from ontopic.watch.next_training import NextTraining, next_training

Command = Callable[..., Result]
MINE = [{"prompt": f"my own question {i}, kanarieS?", "chosen": f"answer {i}", "rejected": "no"} for i in range(40)]
WHY = ("--why", "it is wrong")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    made_state(folder)
    (folder / "state" / "place").unlink(missing_ok=True)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "of")
    return tmp_path / "of"


@pytest.fixture
def command(folder: Path) -> Command:
    def called(*arguments: str, group: str = "preferences") -> Result:
        at = ["--config", str(folder / "config.yaml"), "--state", str(folder / "state")]
        return CliRunner().invoke(run.app, [group, *arguments, *at])

    return called


def workspace_of(folder: Path) -> Workspace:
    return Workspace(root=folder / "state", mlflow_uri=f"sqlite:///{folder / 'state' / 'mlflow.db'}")


def seen(folder: Path) -> NextTraining:
    return next_training(load_settings(folder / "config.yaml"), load_policy(POLICY), workspace=workspace_of(folder))


def exported(command: Command, path: Path) -> list[dict]:
    done = command("export", str(path))
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_seen_is_counted_sampled_and_hashed(command: Command, folder: Path) -> None:
    training = seen(folder)
    done = command("-n", "2")
    assert done.exit_code == 0, done.output
    assert f"{len(training.seen.pairs)} pairs of {NAME}" in done.output
    for (source, in_scope), n in training.seen.by_source_and_scope.items():
        scope = "in scope" if in_scope else "out of scope"
        assert re.search(rf"{source} +{scope} +{n}\b", done.output), (source, in_scope)
    assert f"sha256 {training.seen.sha256}" in done.output
    assert "as the loop trains from version 1, on the answers that it asks for: 30 judged records" in done.output
    assert "\x1b[2J" not in done.output and "\\x1b[2J" in done.output  # what the model said is no command
    ids = re.findall(r"^pair ([0-9a-f]{12}): ", done.output, re.MULTILINE)
    assert len(ids) == 2 * len(training.seen.by_source_and_scope)
    whole = command("show", ids[0])
    assert whole.exit_code == 0 and "| " in whole.output and "rejected:" in whole.output


def test_what_is_exported_can_be_mixed_in_again(command: Command, folder: Path, tmp_path: Path) -> None:
    rows = exported(command, tmp_path / "out.jsonl")
    training = seen(folder)
    assert [row["id"] for row in rows] == training.seen.ids
    assert "pairs are in" in command("export", str(tmp_path / "out.parquet")).output
    for name in ("out.jsonl", "out.parquet"):
        given = [PreferenceSetSettings(source=str(tmp_path / name), share=0.5)]
        (back,) = read_sets(given, load_policy(POLICY))
        assert [(p.messages, p.chosen, p.rejected, p.in_scope, p.beginnings) for p in back.pairs] == [
            (p.messages, p.chosen, p.rejected, p.in_scope, p.beginnings) for p in training.seen.pairs
        ]
    write_config(folder, [{"source": str(tmp_path / "out.jsonl"), "share": 0.4}])
    assert len(seen(folder).seen.pairs) == round(len(rows) / 0.6)


def test_the_hub_gets_what_a_file_would(
    command: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = command("export", "bank/pairs", "--to", "hub")
    assert "HF_HUB_OFFLINE is set" in str(refused.exception)
    with hub_of_this_process(monkeypatch) as hub:
        done = command("export", "bank/pairs", "--to", "hub")
    assert done.exit_code == 0, done.exception
    assert hub.made["bank/pairs"]["type"] == "dataset" and hub.made["bank/pairs"]["visibility"] == "private"
    pushed = hub.files["bank/pairs"]
    (tmp_path / "back.parquet").write_bytes(pushed["train.parquet"])
    rows = pq.read_table(tmp_path / "back.parquet").to_pylist()
    assert [row["id"] for row in rows] == seen(folder).seen.ids
    assert f"{len(rows)} pairs that the next ORPO training would see" in pushed["README.md"].decode()


def test_a_set_has_its_share_and_its_pairs_can_be_edited(command: Command, folder: Path) -> None:
    write_rows(folder / "mine.jsonl", MINE)
    write_config(folder, [{"source": "mine.jsonl", "share": 0.2}])
    training = seen(folder)
    mine = [pair for pair in training.seen.pairs if pair.source == "set 1"]
    assert len(mine) == round(0.2 * len(training.seen.pairs))
    assert f"set 1: {len(mine)} of 40 pairs of" in command().output
    number = training.seen.pairs.index(mine[0])
    assert command("change", training.seen.ids[number], "--chosen", "a better one", *WHY).exit_code == 0
    after = seen(folder).seen
    changed = after.pair(training.seen.ids[number])
    assert changed is not None
    assert (changed.question, changed.chosen, changed.rejected) == (mine[0].question, "a better one", "no")
    assert after.changed == 1 and len(after.pairs) == len(training.seen.pairs)


def test_an_edit_is_kept_seen_and_can_be_taken_back(command: Command, folder: Path, tmp_path: Path) -> None:
    before = exported(command, tmp_path / "1.jsonl")
    dropped, changed = (row["id"] for row in before[:2])
    assert command("drop", dropped, *WHY).exit_code == 0
    assert command("change", changed, "--chosen", "Better.\x1b[2J", "--by", "Ann\x1b[2J", *WHY).exit_code == 0
    assert command("change", changed, "--rejected", "Worse.", *WHY).exit_code == 0
    after = {row["id"]: row for row in exported(command, tmp_path / "2.jsonl")}
    assert dropped not in after
    assert [after[changed][name][0]["content"] for name in ("chosen", "rejected")] == ["Better.\x1b[2J", "Worse."]
    said = command().output
    assert "2 edits: 1 pairs dropped, 1 changed" in said and "\x1b[2J" not in said
    assert f"{dropped}  dropped by" in said and "it is wrong" in said
    for pair in (dropped, changed):
        assert command("restore", pair, *WHY).exit_code == 0
    assert exported(command, tmp_path / "3.jsonl") == before


def test_an_auditor_sees_who_edited_what_and_no_text(command: Command, folder: Path, tmp_path: Path) -> None:
    first, second = (row["id"] for row in exported(command, tmp_path / "1.jsonl")[:2])
    command("drop", first, "--by", "ann", *WHY)
    command("change", second, "--chosen", "a text of mine", *WHY)
    command("restore", first, *WHY)
    workspace = workspace_of(folder)
    registry = open_registry(workspace, NAME)
    entries = PromotionRecord(workspace.promotion_record).entries(NAME)[-3:]
    assert [(e.kind, e.facts["what"], e.facts["pair"]) for e in entries] == [
        ("edit", "dropped", first),
        ("edit", "changed", second),
        ("edit", "restored", first),
    ]
    assert (entries[0].by, entries[0].why) == ("ann", "it is wrong")
    assert "a text of mine" not in workspace.promotion_record.read_text()
    assert check_record(registry.record, workspace=workspace, registries=[registry]).faults == []
    assert "restored" in command(group="record").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("drop", "0123456789ab", *WHY), "the next training sees no pair '0123456789ab'"),
        (("show", "x" * 99), "the next training sees no pair"),
        (("restore", "0123456789ab", *WHY), "pair '0123456789ab' is not edited"),
        (("change", "0123456789ab", *WHY), "give --chosen, --rejected or both"),
        (("export", "/no/such/folder/x.jsonl"), "its folder does not exist"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_mistakes_are_the_users_to_mend(command: Command, arguments: tuple[str, ...], said: str) -> None:
    done = command(*arguments)
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)


@pytest.mark.parametrize("begins", [[], ["watch", "--once"]], ids=["loop", "watch"])
def test_a_set_that_is_not_fit_ends_a_run_before_any_work(begins: list[str], folder: Path) -> None:
    write_rows(folder / "mine.jsonl", [*MINE, {"prompt": "q", "chosen": "a", "rejected": "a"}])
    write_config(folder, [{"source": "mine.jsonl", "share": 0.2}])
    before = sorted(path.name for path in (folder / "state").iterdir())
    at = ["--config", str(folder / "config.yaml"), "--state", str(folder / "state")]
    done = CliRunner().invoke(run.app, [*begins, *at])
    assert isinstance(done.exception, UserError)
    assert "mine.jsonl:41: field 'rejected': is the same answer as chosen" in str(done.exception)
    assert {path.name for path in (folder / "state").iterdir()} - {*before} <= {"run.lock", "place"}


def test_before_anything_is_asked_there_is_no_pair_of_the_traffic(command: Command, folder: Path) -> None:
    workspace_of(folder).windows.unlink()
    done = command()
    assert done.exit_code == 0, done.output
    assert "of which there is no judged traffic yet: 0 judged records" in done.output


def test_what_is_erased_goes_from_edits_and_exports(command: Command, folder: Path) -> None:
    write_rows(folder / "state" / "kept.jsonl", MINE)
    training = seen(folder).seen
    ids, pairs = training.ids, training.pairs
    of_anna = [i for i, pair in enumerate(pairs) if pair.record_id in _ids(ANNAS)]
    other = next(i for i, pair in enumerate(pairs) if pair.record_id and pair.record_id not in _ids(ANNAS))
    assert of_anna
    edited = of_anna[0]
    assert command("change", ids[edited], "--chosen", f"instead of {pairs[edited].question}", *WHY).exit_code == 0
    assert command("drop", ids[other], *WHY).exit_code == 0
    (folder / "state" / "folder").mkdir()
    for name in ("pairs.jsonl", "folder/pairs.parquet"):
        assert command("export", str(folder / "state" / name)).exit_code == 0
    questions = [pairs[i].question for i in of_anna]
    with TrafficStore(workspace_of(folder).traffic, NAME) as store:
        hers = store.records(ids=sorted(_ids(ANNAS)))
    said = [repr(text)[1:-1] for record in hers for text in (record.question, record.answer)]
    places = {"preference-edits/gardening.jsonl", "pairs.jsonl", "folder/pairs.parquet"}
    assert places <= set(found_in(folder / "state", *questions))
    done = command("erase", "--user", "anna", "--yes", group="traffic")
    assert done.exit_code == 0, done.output
    assert "1 edits of training pairs" in done.output
    assert found_in(folder / "state", *questions, *(f"{LEAK} {i}." for i in range(ANNAS))) == []
    edits = (folder / "state" / "preference-edits" / "gardening.jsonl").read_text().splitlines()
    assert [json.loads(line)["pair"] for line in edits] == [ids[other]]
    assert "kanarieS" in (folder / "state" / "kept.jsonl").read_text()
    kept = [json.loads(line)["id"] for line in (folder / "state" / "pairs.jsonl").read_text().splitlines()]
    # Other pairs reject what she was told too, or stand in a conversation with what she asked.
    gone = {i for i, pair in enumerate(pairs) for text in said if text in f"{pair.messages} {pair.rejected!r}"}
    assert {*of_anna} <= gone
    assert set(kept) == {*ids} - {ids[i] for i in (*gone, other)}


def _ids(n: int) -> set[str]:
    return {f"asked-{i}" for i in range(n)}
