"""Which of two models' answers in scope are the better ones, as an LLM judges them in pairs."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, LLMJudgeSettings
from ontopic.evaluation.answers import Evaluation
from ontopic.progress import progress
from ontopic.state.workspace import Workspace
from ontopic.statistics.rates import Rate, mean


def winners_in_pairs(
    champion: Evaluation, challenger: Evaluation, *, judge: JudgeChoice, policy: Policy, workspace: Workspace
) -> list[str]:
    """For each question in scope ``a`` (the challenger), ``b`` (the champion), ``tie`` or ``unjudged``.

    Empty where the judge is not an LLM; the cosine similarity of the answers to our references stands for it then.

    Args:
        champion, challenger: on the same questions in the same order.
    """
    if not isinstance(judge.settings, LLMJudgeSettings):
        return []
    from ontopic.judges.llm.grading import grade_pairwise, open_grader  # with the client, which a gate need not load

    grader = open_grader("pairwise", judge.settings, policy=policy, prompts=judge.prompts, cache=workspace.verdicts)
    rows = zip(challenger.records, champion.records, challenger.verdicts, strict=True)
    pairs = [(after, before.answer) for after, before, verdict in rows if verdict.in_scope]
    records = [record for record, _ in pairs]
    with progress("answers of both versions, compared", len(records), unit="questions") as advance:
        verdicts = list(
            grade_pairwise(grader, records, benchmark_answers=[answer for _, answer in pairs], advance=advance)
        )
    return [verdict.winner for verdict in verdicts]


def preferred(winners: Sequence[str]) -> Rate:
    """Share of comparisons that the challenger won less the share that it lost; what is unjudged counts for neither.

    Args:
        winners: as ``winners_in_pairs`` gives them.
    """
    worth = {"a": 1, "tie": 0, "b": -1}
    return mean([worth[winner] for winner in winners if winner in worth])
