"""LLM judges among the scorers of an MLflow experiment: the same prompt and model, for MLflow to ask by itself."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ontopic.endpoint.client import shown_url
from ontopic.judges.cards.card import JudgeCard
from ontopic.judges.llm.judge import LLMJudge
from ontopic.judges.llm.templates import policy_values

if TYPE_CHECKING:
    from mlflow.genai.judges.base import Judge as MlflowJudge
    from mlflow.genai.scorers import Scorer

_NOT_IN_NAMES = re.compile(r"[^\w .:/-]")  # which MLflow takes in no metric's name
_ANSWER_FORM = """

In place of that JSON object, reply in the form that is asked for elsewhere, with the result `yes` where the verdict is
pass and `no` where it is fail."""


def instructions_judge(judge: LLMJudge, card: JudgeCard) -> MlflowJudge:
    """A judge of MLflow's own kind that asks the same model with the same prompt on a row's ``inputs`` and ``outputs``.

    MLflow puts those into a message of their own and wants its own form of reply, so its verdicts are not the judge's,
    and its description says of whom the card's figures are. MLflow keeps neither key nor address: it takes
    ``OPENAI_API_KEY`` and ``OPENAI_BASE_URL`` where it asks.

    Args:
        card: of the judge.
    """
    from mlflow.genai.judges import make_judge

    grader = judge.grader
    template, model, server = grader.template, grader.endpoint.settings.model, grader.endpoint.base_url
    asked_at = f" at {shown_url(server)}" if server else ""
    # Whose lines the fence keeps apart, MLflow sends in another message: any that stays the same will do.
    fence = hashlib.sha256(template.text.encode()).hexdigest()[:16]
    texts = {"conversation": "{{ inputs }}", "question": "{{ inputs }}", "answer": "{{ outputs }}"}
    given = {key: value.replace("{{", "{ {") for key, value in policy_values(grader.policy).items()}
    return make_judge(
        name=_NOT_IN_NAMES.sub("-", f"{template.name} by {model}"),
        instructions=template.filled(given | texts, fence=fence) + _ANSWER_FORM,
        model=f"openai:/{model}",
        description=(
            f"The prompt and model of OnTopic's judge {judge.id}{asked_at}, which has on {card.n:,} labelled records: "
            f"{card.in_line}. MLflow asks it in another form, and of this there is no card."
        ),
        feedback_value_type=Literal["yes", "no"],
        generate_rationale_first=True,
    )


def register_scorers(measured: Sequence[tuple[LLMJudge, JudgeCard]]) -> list[str]:
    """Put LLM judges among the scorers of the active experiment, each as a new version where it differs from its
    newest one. A server that keeps no scorers, such as one of an older release, is said: nothing depends on them.

    Returns:
        The names of those that are there.
    """
    from mlflow.exceptions import MlflowException

    made = [instructions_judge(judge, card) for judge, card in measured]
    try:
        for each in made:
            newest = _newest(each.name)
            if newest is None or newest.model_dump() != each.model_dump():
                each.register()
    except (MlflowException, NotImplementedError, OSError) as error:
        print(f"MLflow keeps no judges as scorers ({str(error).partition(chr(10))[0][:200]})", file=sys.stderr)
        return []
    return [each.name for each in made]


def _newest(name: str) -> Scorer | None:
    from mlflow.exceptions import MlflowException
    from mlflow.genai.scorers import get_scorer

    try:
        return get_scorer(name=name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
