"""Looks at held-out questions: alpha is spent, questions are drawn anew, and the same look is counted once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from evaluations import evaluated, judged
from loopback import ROOT

from ontopic.config.policy import Policy, load_policy
from ontopic.data.labelled import Question
from ontopic.data.sample import Sample
from ontopic.data.sealed import question_id
from ontopic.evaluation import looks
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.evidence import Evidence
from ontopic.evaluation.looks import TOTAL, Ask, Look, alpha_at, next_look, opening_number
from ontopic.registry.promotion_record import Entry, PromotionRecord
from ontopic.registry.promotions import open_registry
from ontopic.registry.versions import register
from ontopic.state.workspace import Workspace, open_workspace


def entry(kind: str, key: str, champion: str, look: Look | None = None) -> Entry:
    facts = {"key": key, "champion": champion} | ({"look": look.model_dump(mode="json")} if look else {})
    return Entry.model_validate(
        {
            "number": 1,
            "at": datetime.now(UTC),
            "kind": kind,
            "registered_model": "ontopic-test",
            "version": "2",
            "by": "the gate",
            "why": "",
            "facts": facts,
            "previous": "",
        }
    )


def taken(n: int, champion: str = "1", entries: tuple[Entry, ...] = ()) -> list[Entry]:
    found = list(entries)
    for _ in range(n):
        key = f"key {len(found)}"
        look = next_look(found, champion=champion, key=key, seed_from="policy 0")
        found.append(entry("look", key, champion, look))
    return found


def test_all_looks_against_one_champion_spend_no_more_than_the_total() -> None:
    looked = [Look.model_validate(each.facts["look"]) for each in taken(200)]
    assert [look.number for look in looked] == list(range(1, 201))
    assert looked[0].alpha == 0.05 and looked[0].spent == 0  # the first one is the usual test
    for before, after in itertools.pairwise(looked):
        assert after.alpha < before.alpha
        assert after.spent == pytest.approx(before.spent + before.alpha / 2)
    # What is left after the last is the sum's tail, which an integral bounds.
    tail = TOTAL / 2 * 200 ** (1 - looks.DECAY) / (looks.DECAY - 1)
    assert TOTAL - tail < looked[-1].spent + looked[-1].alpha / 2 < TOTAL
    assert sum(alpha_at(k) / 2 for k in range(1, 200_000)) < TOTAL


def test_a_new_champion_has_a_budget_of_its_own_and_a_rollback_goes_on_with_the_old_one() -> None:
    entries = taken(3)
    entries = taken(2, "2", tuple(entries))
    look = next_look(entries, champion="1", key="new", seed_from="policy 0")
    assert (look.number, look.of_policy) == (4, 6)
    assert next_look(entries, champion="3", key="new", seed_from="policy 0").number == 1


def test_every_look_has_a_seed_of_its_own_which_comes_again() -> None:
    first, second = taken(40, "1", tuple(taken(10))), taken(40, "1", tuple(taken(10)))
    seeds = [each.facts["look"]["seed"] for each in first]  # type: ignore[index, call-overload]
    assert len(set(seeds)) == 50 and seeds == [each.facts["look"]["seed"] for each in second]  # type: ignore[index, call-overload]
    other = next_look([], champion="1", key="k", seed_from="another 0")
    assert other.seed not in seeds


def test_a_number_under_one_is_no_look() -> None:
    with pytest.raises(ValueError, match="look 0"):
        alpha_at(0)


def test_openings_are_counted_by_champion_and_the_same_one_once() -> None:
    entries = [entry("opening", "a", "1"), entry("opening", "b", "1"), entry("opening", "c", "2")]
    numbers = [
        opening_number(entries, champion=champion, key=key)
        for champion, key in (("1", "d"), ("1", "a"), ("2", "d"), ("3", "d"))
    ]
    assert numbers == [3, 1, 2, 1]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return open_workspace(tmp_path_factory.mktemp("looks"))


@pytest.fixture(scope="module")
def policy(workspace: Workspace) -> Policy:
    """With a champion, version 1, and three challengers."""
    import mlflow

    banking = load_policy(ROOT / "configs/policies/banking.yaml")
    client = mlflow.MlflowClient(tracking_uri=workspace.mlflow_uri)
    experiment = client.create_experiment("looks", artifact_location=workspace.artifacts.as_uri())
    for number in range(4):
        folder = workspace.root / f"weights {number}"
        folder.mkdir()
        (folder / "weights").write_text(str(number))
        run = client.create_run(experiment)
        register(
            banking.registered_model,
            folder,
            workspace=workspace,
            digest=f"digest {number}",
            run_id=run.info.run_id,
            tags={},
        )
    open_registry(workspace, banking.registered_model).ensure_champion("1")
    return banking


def ahead(version: str, questions: Sequence[Question]) -> Evaluation:
    """Whatever is rehearsed, the challenger is ahead."""
    return evaluated(judged(400, 80 if version == "1" else 4)).evaluation


@pytest.fixture
def opened(workspace: Workspace, policy: Policy) -> Callable[..., tuple[Look, list[Question], Evidence]]:
    workspace.promotion_record.unlink(missing_ok=True)

    def opened(
        challenger: str,
        *,
        n: int = 60,
        judge_id: str = "judge-1",
        ask: Ask = ahead,
        more: tuple[Question, ...] = (),
    ) -> tuple[Look, list[Question], Evidence]:
        look, questions = looks.open_look(
            Sample(source=policy.questions, source_sha256="s", split="evaluation", n=n, more=list(more)),
            champion="1",
            challenger=challenger,
            judge_id=judge_id,
            policy=policy,
            ask=ask,
            workspace=workspace,
        )
        evidence = Evidence(policy_sha256="p", questions_sha256="q")
        return look, questions, looks.with_look(evidence, look, questions=questions)

    return opened


def test_each_look_draws_other_questions_and_is_in_the_record_before_anything_is_asked(
    opened: Callable[..., tuple[Look, list[Question], Evidence]], workspace: Workspace, policy: Policy
) -> None:
    drawn = [opened(challenger) for challenger in ("2", "3", "4")]
    asked = [{question.question for question in questions} for _, questions, _ in drawn]
    assert [len(each) for each in asked] == [60] * 3
    # Of 60 in 826 some four come again by chance.
    assert max(len(a & b) for a, b in itertools.pairwise(asked)) < 20
    assert [look.alpha for look, _, _ in drawn] == [alpha_at(1), alpha_at(2), alpha_at(3)]
    entries = PromotionRecord(workspace.promotion_record).entries(policy.registered_model)
    assert [(each.kind, each.version) for each in entries] == [("look", v) for v in "234"]
    for each, (look, questions, evidence) in zip(entries, drawn, strict=True):
        assert len(each.facts["questions"]) == len(questions)  # type: ignore[arg-type]
        assert evidence.look == look.of_policy and evidence.alpha == look.alpha and evidence.seed == look.seed
        assert evidence.sample_sha256 == each.facts["sample_sha256"] and len(evidence.sample_sha256) == 64


def test_the_same_look_again_is_no_new_one_and_any_other_is(
    opened: Callable[..., tuple[Look, list[Question], Evidence]], workspace: Workspace
) -> None:
    first = opened("2")
    assert opened("2") == first  # as after a kill, or where all the rest comes from the cache
    assert len(PromotionRecord(workspace.promotion_record).entries()) == 1
    others = [opened("2", n=62), opened("2", judge_id="judge-2"), opened("3")]
    assert [look.number for look, _, _ in others] == [2, 3, 4]
    assert opened("2") == first


def test_questions_of_the_traffic_are_in_the_record_too_and_are_another_look(
    opened: Callable[..., tuple[Look, list[Question], Evidence]], workspace: Workspace
) -> None:
    new = Question(question="Is this of the traffic?", in_scope=True)
    _, questions, _ = opened("2", more=(new,))
    (entry,) = PromotionRecord(workspace.promotion_record).entries()
    assert questions[-1] == new
    assert question_id(new) in entry.facts["questions"]  # type: ignore[operator]
    assert opened("2")[0].number == 2


def test_the_sealed_set_is_opened_once_for_a_look(
    opened: Callable[..., tuple[Look, list[Question], Evidence]], workspace: Workspace, policy: Policy
) -> None:
    first, second = opened("2")[0], opened("3")[0]

    def opening(look: Look, challenger: str) -> int:
        name = policy.registered_model
        return looks.open_sealed(look, champion="1", challenger=challenger, registered_model=name, workspace=workspace)

    assert [opening(first, "2"), opening(first, "2"), opening(second, "3")] == [1, 1, 2]
    kinds = [each.kind for each in PromotionRecord(workspace.promotion_record).entries()]
    assert kinds == ["look", "look", "opening", "opening"]


@pytest.mark.parametrize(("failing", "passed"), [(40, False), (20, True)])
def test_who_fails_the_rehearsal_takes_no_look_and_spends_nothing(
    failing: int,
    passed: bool,
    opened: Callable[..., tuple[Look, list[Question], Evidence]],
    workspace: Workspace,
    policy: Policy,
) -> None:
    record = PromotionRecord(workspace.promotion_record)
    asked: list[str] = []

    def ask(version: str, questions: Sequence[Question]) -> Evaluation:
        asked.append(version)
        assert {question.split for question in questions} == {"calibration"}
        return evaluated(judged(400, 40 if version == "1" else failing)).evaluation

    first, _, _ = opened("2", ask=ask)
    assert first.taken and first.rehearsal is None and asked == []  # the first look needs none
    look, questions, evidence = opened("3", ask=ask)
    assert asked == ["1", "3"] and look.taken is passed and look.rehearsal is not None
    assert {question.split for question in questions} == {"evaluation" if passed else "calibration"}
    assert evidence.look == (2 if passed else None) and evidence.sample_sha256
    assert [entry.kind for entry in record.entries()] == ["look", "look" if passed else "rehearsal"]
    assert opened("3", ask=ask)[:2] == (look, questions) and asked == ["1", "3"]  # and not rehearsed again
    assert opened("4", ask=ask)[0].number == (3 if passed else 2)
