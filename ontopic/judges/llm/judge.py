"""A judge behind an OpenAI-compatible endpoint: OpenAI, vLLM, Ollama, llama.cpp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ontopic.config.policy import Policy
from ontopic.config.settings import LLMJudgeSettings
from ontopic.endpoint.account import Account
from ontopic.endpoint.endpoint import Endpoint
from ontopic.judges.llm.grading import Grader, grade_custom, grade_single
from ontopic.judges.llm.templates import Template
from ontopic.judges.llm.verdict_cache import VerdictCache
from ontopic.progress import Advance
from ontopic.records import Record, Verdict


class LLMJudge:
    """Asks an LLM for a verdict on each record, many at once; see ``Endpoint`` and ``grade_single`` for how.

    Several threads may use one judge.

    Args:
        settings: the endpoint, the kind of grading, and whether to weigh verdicts.
        template: the prompt, of that kind of grading.
        policy: fills the prompt.
        cache: of verdicts; where ``None``, they are kept for one call.

    Attributes:
        grader: who is asked, and with what.

    Raises:
        UserError: a budget in dollars without a price.
    """

    def __init__(
        self, settings: LLMJudgeSettings, template: Template, *, policy: Policy, cache: VerdictCache | None = None
    ) -> None:
        self.grader = Grader(Endpoint(settings), template, policy, settings.weighted, cache)
        self._grade = grade_custom if settings.grading == "custom" else grade_single
        self.id = self.grader.id

    @property
    def account(self) -> Account:
        """What the judge has used so far."""
        return self.grader.endpoint.account

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        """See ``Judge.judge``.

        Raises:
            UserError: no API key, or an unusable cache.
        """
        return list(self.judge_stream(records, advance))

    def judge_stream(self, records: Iterable[Record], advance: Advance | None = None) -> Iterator[Verdict]:
        """As ``judge``, for a stream of any length: reads a little ahead, and holds no more than that in memory."""
        return self._grade(self.grader, records, advance=advance)
