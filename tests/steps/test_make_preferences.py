"""The step that makes pairs: what people, references and the teacher say of a judged answer comes out as pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from graders import PROMPTS
from loopback import ROOT, ChatServer, Reply

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, LocalJudgeSettings, TeacherSettings, load_settings
from ontopic.data.drawing import drawable
from ontopic.data.held_out import is_held_out
from ontopic.data.labels import LabelStore, labels_of
from ontopic.records import Feedback, Judged, Record, Verdict
from ontopic.registry.tracking import open_tracking
from ontopic.state.workspace import open_workspace
from ontopic.traffic.store import TrafficStore
from ontopic.training.corrections import load_corrections
from ontopic.training.next_preferences import PreferenceTerms
from steps.make_preferences import make_preferences


def test_people_references_and_the_teacher_teach(
    chat_server: ChatServer, banking: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def teaches(request: dict[str, Any]) -> Reply:
        return Reply("Made wrong." if len(request["messages"]) == 1 else "Taught.")

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    chat_server.reply = teaches
    questions = [
        {"question": "Where is the fee shown?", "in_scope": True, "reference": "Before you confirm.", "split": "train"},
        {"question": "Where do I order a telescope?", "in_scope": False, "split": "evaluation"},
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    policy = banking.model_copy(update={"questions": str(tmp_path / "questions.jsonl")})
    workspace = open_workspace(tmp_path / "state")
    drawn = [Record(question=f"How do I change standing order {i}?", answer="Ducks.", id=f"r{i}") for i in range(40)]
    labelled, thumbed, *_ = [r for r in drawable(drawn, "feedback") if not is_held_out(r)]
    asked = Record(question="Where is the fee shown?", answer="Nowhere.", id="fee")
    leak = Record(question="Who won the cup?", answer="Brazil.", id="cup")
    LabelStore(labels_of(policy, workspace)).add(labelled, "fail", by="uncertainty", correction="Under Payments.")
    with TrafficStore(workspace.traffic, policy.registered_model) as traffic:
        traffic.add(thumbed)
        given = Feedback(record_id=thumbed.id, thumb="down", by="branch", correction="Under Transfers.")
        traffic.add_feedback(given)
    said = {"outcome": "fail", "score": 0.1, "explanation": "", "judge_id": "judge", "declined": False}
    verdicts = [Verdict.model_validate(said | {"in_scope": inside}) for inside in (True, True, False)]
    judged = Judged(records=[asked, labelled, leak], verdicts=verdicts)
    settings = load_settings(ROOT / "configs" / "local.yaml").training
    training = settings.model_copy(update={"best_of": 1, "cover": 0, "teaching_keys": ["branch"]})
    teacher = TeacherSettings(model="t", base_url=chat_server.url, wrong_answers=True)
    sha256 = load_corrections(policy, workspace, keys=["branch"]).sha256
    open_tracking(workspace, "test")
    found = {}
    with mlflow.start_run() as run:
        pairs = make_preferences.entrypoint(
            judged=judged,
            champion="1",
            model=load_settings(ROOT / "configs" / "local.yaml").model,
            judge=JudgeChoice(settings=LocalJudgeSettings(kind="local"), prompts=PROMPTS),
            terms=PreferenceTerms(training=training, teacher=teacher, sources_sha256=sha256),
            policy=policy,
            workspace=workspace,
        )
        found = {(pair.source, pair.record_id): (pair.chosen, pair.rejected) for pair in pairs.root}
    over_wrong = {key: answers for key, answers in found.items() if "_over_" in key[0]}
    assert over_wrong == {
        ("correction_over_own_answer", labelled.id): ("Under Payments.", "Ducks."),
        ("correction_over_own_answer", thumbed.id): ("Under Transfers.", "Ducks."),
        ("correction_over_synthetic", ""): ("Under Payments.", "Made wrong."),
        ("teacher_over_own_answer", "fee"): ("Taught.", "Nowhere."),
        ("teacher_over_synthetic", ""): ("Taught.", "Made wrong."),
    }
    params = mlflow.get_run(run.info.run_id).data.params
    assert (params["corrections"], params["corrections_held_apart"]) == ("2", "0")
    assert params["preferences_chosen_correction_over_own_answer"] == "2"
    # What is corrected already, the teacher is not asked for.
    assert sum(len(request["messages"]) == 2 for request in chat_server.requests) == 1
