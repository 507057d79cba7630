"""What a predecessor answers to the requests of its successor's traffic, and the verdicts on that."""

from __future__ import annotations

from collections.abc import Sequence

from ontopic.config.model_settings import ModelSettings
from ontopic.config.settings import Settings
from ontopic.judges.guard.card import kept_guard
from ontopic.judges.judge import Judge
from ontopic.models.answer import Sampling, sampling_of
from ontopic.models.generation import answer_requests
from ontopic.models.loading import LanguageModel, open_model
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

    def verdicts(
        self, records: Sequence[Record], version: str, *, judge: Judge, answered: Sequence[Record] = ()
    ) -> list[Verdict]:
        """A verdict on what a version answers to each of these requests.

        Args:
            answered: the records as that version has answered them already; it is asked where there are none.
        """
        missing, known = self.missing(records, version, judge=judge), {record.id: record for record in answered}
        if missing and answered:
            self._judge([known[record.id] for record in missing], version, judge=judge)
        elif missing:
            folder = find(self._registered_model, version, workspace=self._workspace).folder
            model = open_model(folder, self._model_settings.answering_precision)
            with progress(f"version {version} on its successor's traffic", len(missing), unit="records") as advance:
                for start in range(0, len(missing), _AT_ONCE):
                    part = missing[start : start + _AT_ONCE]
                    given = answered_by(model, part, settings=self._model_settings, advance=advance)
                    self._judge(given, version, judge=judge)
        kept = self._actions.replayed([record.id for record in records], version, judge_id=judge.id)
        return [kept[record.id] for record in records]

    def _judge(self, answered: Sequence[Record], version: str, *, judge: Judge) -> None:
        """Have a version's answers judged, and keep the verdicts."""
        verdicts = judge.judge(self._behind_guard(answered))
        self._actions.add_replays([record.id for record in answered], version, verdicts=verdicts)

    def _behind_guard(self, answered: Sequence[Record]) -> list[Record]:
        """What users would have got: where the successor's answer went through the guard, so does this one."""
        guarded = [record.guard is not None and record.guard.mode == "enforce" for record in answered]
        if not any(guarded):
            return list(answered)
        guard = kept_guard(self._registered_model, self._workspace)
        protected = guard.protected(answered)
        return [p if through else own for p, own, through in zip(protected, answered, guarded, strict=True)]


def answered_by(
    model: LanguageModel, records: Sequence[Record], *, settings: ModelSettings, advance: Advance | None = None
) -> list[Record]:
    """These records with the answers of another model to their requests.

    It gets the request that was answered: all its messages, token limit, temperature, top_p, seed and stop texts. Where
    a record knows only the question, it gets that, and the likeliest answer of the configured length counts.
    """
    unknown = Sampling(settings.max_new_tokens)
    answers = answer_requests(
        model,
        [(record.request, sampling_of(record.parameters) if record.parameters else unknown) for record in records],
        slots=settings.batch_size,
        advance=advance,
    )
    return [
        record.model_copy(update={"answer": answer.text, "finished": answer.finished})
        for record, answer in zip(records, answers, strict=True)
    ]
