"""Pairs of earlier rounds are found in the champion's run, thinned out by age, and never taught where they are old."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from erased_state import QUESTIONS
from loopback import ROOT
from values import replace

from ontopic.config.policy import Policy
from ontopic.config.training_settings import TrainingSettings
from ontopic.data.labelled import Question
from ontopic.registry.base_version import KIND, OF_BASE
from ontopic.registry.erased_runs import PREFERENCES
from ontopic.registry.promotions import COMPLETE
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import BASE_VERSION
from ontopic.state.erased_files import erase_from_file
from ontopic.state.erasing import Erasing
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.training.earlier_pairs import all_pairs, earlier_rounds, with_earlier
from ontopic.training.preference_edits import PairIds, PreferenceEdits, edit_of
from ontopic.training.preferences import Preference

NAME = "ontopic-test"
SAID = "The bird sings at dawn."


def pair(question: str, in_scope: bool, record_id: str = "r", **other: object) -> Preference:
    chosen, rejected = ("Freeze it in the app.", "No.") if in_scope else ("No.", SAID)
    source = "model" if in_scope else "refusal"
    of = {"question": question, "chosen": chosen, "rejected": rejected, "source": source, "record_id": record_id}
    return Preference.model_validate(of | {"in_scope": in_scope} | other)


def traffic(name: str, n: int, *, of: int) -> list[Preference]:
    """A round: so many pairs of traffic, of which so many are in scope, and half as many that are made each time."""
    pairs = [pair(f"{name} {i}", i < of, f"{name}-{i}") for i in range(n)]
    return pairs + [pair(f"{name} cover {i}", True, "") for i in range(n // 2)]


def mixed(
    policy: Policy, newest: Sequence[Preference], *rounds: Sequence[Preference], known: Sequence[Question] = ()
) -> list[Preference]:
    return with_earlier(newest, rounds, policy=policy, labelled=known, seed=0)


def test_older_pairs_are_fewer_the_older_they_are_and_keep_their_scopes(banking: Policy) -> None:
    rounds = [traffic(name, 80, of=24) for name in ("two", "one", "zero")]
    newest = traffic("new", 80, of=24)
    found = mixed(banking, newest, *rounds)
    count = {name: sum(p.question.startswith(name) for p in found) for name in ("new", "two", "one", "zero")}
    assert count == {"new": 120, "two": 40, "one": 20, "zero": 10}
    assert {name: sum(p.in_scope for p in found if p.question.startswith(name)) for name in ("two", "one", "zero")} == {
        "two": 12,
        "one": 6,
        "zero": 3,
    }
    assert not [p for p in found if "cover" in p.question and not p.question.startswith("new")]
    assert found == mixed(banking, newest, *rounds)
    assert [p.question.startswith("new") for p in found] != sorted(p.question.startswith("new") for p in found)


@pytest.mark.parametrize("rounds", [1, 3, 30])
def test_however_many_rounds_there_were_a_training_is_no_longer(banking: Policy, rounds: int) -> None:
    mix: list[Preference] = []
    for number in range(rounds):
        mix = mixed(banking, traffic(f"r{number}", 100, of=50)[:100], *([mix] if mix else []))
    assert len(mix) <= 200
    assert sum(p.question.startswith(f"r{rounds - 1} ") for p in mix) == 100


def test_without_an_earlier_round_the_pairs_stay_in_their_order(banking: Policy) -> None:
    newest = traffic("new", 8, of=4)
    assert mixed(banking, newest) == mixed(banking, newest, [pair("cover", True, "")] * 4) == newest


@pytest.mark.parametrize(
    ("earlier", "known", "taken"),
    [
        (pair("Is it  FREE?", False), [], False),  # asked anew
        (pair("Is it cheap?", False), [], True),
        (pair("Is it cheap?", False), [("is it cheap", True)], False),  # its label says otherwise now
        (pair("Is it cheap?", False), [("is it cheap", False)], True),
        (pair("[erased]", False), [], False),
        (pair("a", False, rejected="[erased]"), [], False),
        (pair("a", True, chosen="[erased]"), [], False),
        (pair("a", True, chosen=" "), [], False),
        (pair("a", True, history=[{"role": "user", "content": "[erased]"}]), [], False),
        (pair("a", False, rejected="I'm sorry, I can only help with banking questions!"), [], False),  # the refusal now
    ],
)
def test_what_is_not_taken_again(
    banking: Policy, earlier: Preference, known: list[tuple[str, bool]], taken: bool
) -> None:
    newest = [pair("is it free", True)]
    labelled = [Question(question=question, in_scope=in_scope) for question, in_scope in known]
    found = mixed(banking, newest, [earlier, earlier], known=labelled)  # of two, one is drawn
    assert len(found) == 1 + taken


def test_the_refusal_is_the_policys_of_now(banking: Policy) -> None:
    now = replace(banking, refusal="Banking only, please.")
    found = mixed(now, [pair("new", True)], [pair("joke", False), pair("joke 2", False)])
    assert [p.chosen for p in found if not p.in_scope] == ["Banking only, please."]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("kept") / "state"
    shutil.unpack_archive(ROOT / "tests" / "data" / "state-0.1.tar.gz", folder)
    workspace = open_workspace(folder)
    open_tracking(workspace, NAME)
    mlflow.MlflowClient().create_registered_model(NAME)
    registered(workspace, {KIND: OF_BASE}, None)
    return workspace


def registered(
    workspace: Workspace, tags: dict[str, str], pairs: Sequence[Preference] | None, *, earlier_run: bool = False
) -> str:
    """A version that was trained on these, as the training step keeps them; on an older release's table in a run of
    its own."""
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        if pairs is not None:
            mlflow.log_param("preferences_sha256", f"hash of {len(pairs)}")
            rows = pd.DataFrame([p.model_dump(mode="json", exclude={"after"} if earlier_run else None) for p in pairs])
            mlflow.log_table(rows, PREFERENCES)
            tags = tags | {"ontopic.preferences_sha256": f"hash of {len(pairs)}"}
        of = run.info.run_id
    if earlier_run:
        with mlflow.start_run() as other:
            of = other.info.run_id
    version = client.create_model_version(NAME, f"runs:/{of}/model", run_id=of, tags=tags | {COMPLETE: "true"})
    return str(version.version)


def test_they_are_in_the_run_of_the_champion_and_of_those_it_went_on_from(workspace: Workspace) -> None:
    pairs = [traffic(f"round {n}", n + 3, of=n) for n in range(3)]
    pairs[0][0] = replace(pairs[0][0], history=[{"role": "system", "content": "Be kind. <b>ü</b>"}])
    second = registered(workspace, {BASE_VERSION: "1"}, pairs[0], earlier_run=True)
    third = registered(workspace, {BASE_VERSION: second}, pairs[1])
    from_base = registered(workspace, {BASE_VERSION: "1"}, pairs[2])

    def found(version: str) -> list[list[dict[str, Any]]]:
        return [rows(each) for each in earlier_rounds(version, registered_model=NAME, workspace=workspace)]

    zero, one, two = map(rows, pairs)
    assert (found("1"), found(third), found(from_base)) == ([], [one, zero], [two])
    mlflow.MlflowClient().delete_model_version(NAME, second)
    assert (found(third), found(from_base)) == ([one], [two])


@pytest.mark.parametrize(("start", "earlier"), [("base", 2), ("champion", 0)])
def test_only_who_begins_with_the_base_is_taught_them_again(
    workspace: Workspace, banking: Policy, start: str, earlier: int
) -> None:
    version = registered(workspace, {BASE_VERSION: "1"}, traffic("before", 4, of=2))
    settings = TrainingSettings.model_validate(
        {"start": start, "beta": 1, "learning_rate": 1, "epochs": 1, "batch_size": 1}
        | {"max_rejected_tokens": 1, "save_steps": 1}
    )
    newest = traffic("new", 4, of=2)
    policy = replace(banking, questions="ontopic:gardening/questions.jsonl", name="test")
    found = all_pairs(newest, version, settings=settings, policy=policy, workspace=workspace)
    assert len(found) == len(newest) + earlier
    assert all(pair in found for pair in newest)


def test_what_people_dropped_and_changed_holds_for_earlier_rounds_too(workspace: Workspace, banking: Policy) -> None:
    policy = replace(banking, questions="ontopic:gardening/questions.jsonl", name="test")
    one, other = pair("edited 0", True, "edited-0"), pair("edited 1", True, "edited-1")
    ids, edits = PairIds([], policy), PreferenceEdits.of(policy, workspace)
    by: Any = {"by": "ann", "account": "ann", "why": "wrong"}
    edits.add(edit_of(one, ids.of(one), what="drop", **by))
    edits.add(edit_of(other, ids.of(other), what="change", answers={"chosen": "Call us."}, **by))
    # One round of two in scope keeps one: of what is left, the changed one.
    more = [pair("edited 2", True, "edited-2")]
    version = registered(workspace, {BASE_VERSION: "1"}, [one, other, *more])
    settings = TrainingSettings.model_validate(
        {"beta": 1, "learning_rate": 1, "epochs": 1, "batch_size": 1, "max_rejected_tokens": 1, "save_steps": 1}
        | {"start": "base"}
    )
    seen = [
        p
        for seed in range(8)
        for p in all_pairs([], version, settings=replace(settings, seed=seed), policy=policy, workspace=workspace)
    ]
    assert {(p.question, p.chosen) for p in seen} == {("edited 1", "Call us."), ("edited 2", more[0].chosen)}


@pytest.mark.parametrize("lost", ["the run has none", "it was written over", "the run is gone"])
def test_pairs_that_are_gone_are_told_and_the_rest_is_used(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    version = registered(workspace, {BASE_VERSION: "1"}, None if lost == "the run has none" else traffic("a", 4, of=2))
    run = open_run(version)
    if lost == "it was written over":  # as an erasure leaves what a server does not delete
        mlflow.MlflowClient().log_text(run, "erased\n", PREFERENCES)
    if lost == "the run is gone":
        mlflow.MlflowClient().set_model_version_tag(NAME, version, "ontopic.preferences_sha256", "'")
        with_run_deleted(workspace, run)
    assert earlier_rounds(version, registered_model=NAME, workspace=workspace) == []
    assert f"no pairs that version {version} was trained on" in caplog.text


def rows(pairs: Sequence[Preference]) -> list[dict[str, Any]]:
    return [pair.model_dump(mode="json") for pair in pairs]


def open_run(version: str) -> str:
    return str(mlflow.MlflowClient().get_model_version(NAME, version).run_id)


def with_run_deleted(workspace: Workspace, run: str) -> None:
    """As ``mlflow gc`` does."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(workspace.mlflow_uri, str(workspace.artifacts))
    store.delete_run(run)
    store._hard_delete_run(run)


def test_what_is_erased_is_not_trained_on_again(workspace: Workspace, tmp_path: Path, banking: Policy) -> None:
    theirs = [pair(question, False, f"anna-{i}") for i, question in enumerate(QUESTIONS)]
    theirs.append(pair("and then?", False, "", history=[{"role": "user", "content": QUESTIONS[1]}]))
    theirs.append(pair(f"I was told: {QUESTIONS[5]}", False, "robin-9"))  # another's, that quotes it
    others = [pair(f"robin asks {i}", bool(i % 2), f"robin-{i}") for i in range(8)]
    version = registered(workspace, {BASE_VERSION: "1"}, [*theirs, *others])
    with Erasing(tmp_path / "erasing.db") as erasing:
        erasing.add([p.record_id for p in theirs if p.record_id.startswith("anna")], QUESTIONS)
        (table,) = workspace.artifacts.glob(f"{open_run(version)}/artifacts/{PREFERENCES}")
        assert erase_from_file(table, erasing)
    assert "kanarie" not in json.dumps(json.loads(table.read_text()), ensure_ascii=False)
    (left,) = earlier_rounds(version, registered_model=NAME, workspace=workspace)
    assert rows([p for p in left if p.question != "[erased]"]) == rows(others)
    found = with_earlier([pair("new", True)], [left], policy=banking, labelled=[], seed=0)
    assert {p.question for p in found} <= {"new", *(p.question for p in others)}
    assert len(found) >= 4
