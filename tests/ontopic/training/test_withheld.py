"""What the guard withheld from users is what training rejects."""

from __future__ import annotations

from ontopic.config.policy import Policy
from ontopic.data.labelled import Question
from ontopic.records import GuardDecision, Judged, Record, Verdict
from ontopic.training.preferences import PairSettings, build_preferences


def test_what_the_guard_withheld_is_what_is_rejected(banking: Policy) -> None:
    stopped = GuardDecision(mode="enforce", stage="answer", withheld="Roses are red.")
    rows = [
        ("a song?", "La la.", None, (False, 0.1)),  # asked again below, where the guard stopped the answer
        ("a song?", banking.refusal, stopped, (False, 0.45)),  # too uncertain without the guard
        ("my card?", banking.refusal, stopped, (True, 0.9)),  # labelled, with a reference
        ("an ode?", banking.refusal, GuardDecision(mode="enforce", stage="question"), (False, 0.1)),
    ]
    judged = Judged(
        records=[
            Record(question=question, answer=answer, id=str(i), guard=guard)
            for i, (question, answer, guard, _) in enumerate(rows)
        ],
        verdicts=[
            Verdict(outcome="pass", score=0.9, explanation="", judge_id="j", in_scope=inside, scope_score=scope)
            for *_, (inside, scope) in rows
        ],
    )
    labelled = [Question(question="my card?", in_scope=True, reference="Freeze it in the app.")]
    pairs = build_preferences(
        judged, labelled=labelled, policy=banking, settings=PairSettings(least_certainty=0.2, in_scope_share=0.5)
    )
    found = {pair.question: (pair.chosen, pair.rejected, pair.record_id) for pair in pairs}
    assert found == {
        "a song?": (banking.refusal, "Roses are red.", "1"),
        "my card?": ("Freeze it in the app.", "Roses are red.", "2"),
    }
