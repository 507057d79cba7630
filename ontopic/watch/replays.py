"""What a predecessor answers to the requests of its successor's traffic, and the verdicts on that."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.config.settings import Settings
from ontopic.judges.judge import Judge
from ontopic.models.answer import Sampling, sampling_of
from ontopic.models.generation import answer_requests
from ontopic.models.loading import LanguageModel, load
from ontopic.progress import Advance, progress
from ontopic.records import Record, Verdict
from ontopic.registry.versions import find
from ontopic.state.workspace import Workspace
from ontopic.watch.actions import ActionStore

_AT_ONCE = 256  # a kill loses at most so many verdicts


class Replays:
    """Verdicts on one version's answers to requests that another one answered.

    They are kept; what could not be judged is asked again.

    Args:
        registered_model: whose versions they are.
    """

    def __init__(
        self, settings: Settings, registered_model: str, *, workspace: Workspace, actions: ActionStore
    ) -> None:
        self._model_settings, self._registered_model = settings.model, registered_model
        self._workspace, self._actions = workspace, actions

    def missing(self, records: Sequence[Record], version: str, *, judge: Judge) -> list[Record]:
        """Those of which there is no verdict on this version's answer."""
        known = self._actions.replayed([record.id for record in records], version, judge_id=judge.id)
        return [r for r in records if r.id not in known or known[r.id].outcome == "unjudged"]

    def verdicts(self, records: Sequence[Record], version: str, *, judge: Judge) -> list[Verdict]:
        """A verdict on what a version answers to each of these requests.

        It gets the request that was answered: all its messages, token limit, temperature, top_p, seed and stop texts.
        Where a record knows only the question, it gets that, and the most likely answer counts.
        """
        if missing := self.missing(records, version, judge=judge):
            folder = find(self._registered_model, version, workspace=self._workspace).folder
            model = load(folder, self._model_settings.precision)
            with progress(f"version {version} on its successor's traffic", len(missing), unit="records") as advance:
                for start in range(0, len(missing), _AT_ONCE):
                    part = missing[start : start + _AT_ONCE]
                    found = judge.judge(self._answered(model, part, advance=advance))
                    self._actions.add_replays([record.id for record in part], version, verdicts=found)
        known = self._actions.replayed([record.id for record in records], version, judge_id=judge.id)
        return [known[record.id] for record in records]

    def _answered(self, model: LanguageModel, records: Sequence[Record], *, advance: Advance) -> list[Record]:
        unknown = Sampling(self._model_settings.max_new_tokens)
        answers = answer_requests(
            model,
            [(r.request, sampling_of(r.parameters) if r.parameters else unknown) for r in records],
            slots=self._model_settings.batch_size,
            advance=advance,
        )
        return [
            record.model_copy(update={"answer": answer.text, "finished": answer.finished})
            for record, answer in zip(records, answers, strict=True)
        ]
