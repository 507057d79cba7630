"""The judges beside the one that gates: they measure the same traffic and decide nothing, so none may hold it up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, Settings, SideJudgeSettings
from ontopic.errors import UserError
from ontopic.judges.cards.calibration import kept_card
from ontopic.judges.judge import Judge
from ontopic.judges.opening import open_judge
from ontopic.monitoring.closing import Closer, judge_records
from ontopic.monitoring.members import is_sampled
from ontopic.monitoring.side_score import SideScore
from ontopic.monitoring.window import Window
from ontopic.monitoring.windows import WindowStore
from ontopic.records import Judged, Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.statistics.clusters import clustered_rate

_REST_S = 600.0  # of a judge that judged nothing: what it waits for must not keep windows waiting
_LONGEST_CAUSE = 200


class JudgesBeside:
    """The judges that a configuration names under ``judges_beside``, each opened when it is first needed.

    One that cannot be opened, or whose server refuses, leaves its records unjudged, with the cause.

    Args:
        prompts: the folder of the LLM judges' prompts.
        sampling_rate: of `monitoring`: the share of records that is judged at all, in (0, 1].
    """

    def __init__(
        self,
        sides: Sequence[SideJudgeSettings],
        policy: Policy,
        *,
        prompts: Path,
        workspace: Workspace,
        windows: WindowStore,
        sampling_rate: float = 1.0,
    ) -> None:
        self._sides, self._policy, self._prompts = sides, policy, prompts
        self._workspace, self._windows, self._rate = workspace, windows, sampling_rate
        self._opened: dict[str, Judge] = {}
        self._rests: dict[str, tuple[float, str]] = {}

    @property
    def names(self) -> list[str]:
        """As the configuration calls them."""
        return [side.name for side in self._sides]

    def measure(self, records: Sequence[Record], what: str) -> list[SideScore]:
        """What each of them says of its sample of these records; only verdicts that are not kept yet are asked for.

        Args:
            what: the records are, as it stands beside a progress bar.
        """
        return [self._measure(side, records, what=f"{side.name} of {what}") for side in self._sides]

    def add_to(self, window: Window, judged: Judged, *, closer: Closer) -> Window:
        """Write into a closed window, and on its page, what they say of it.

        Args:
            judged: its sampled records, with the verdicts of the judge that gates.
        """
        if not self.names:
            return window
        return closer.add_beside(window, judged, scores=self.measure(judged.records, window.label))

    def _measure(self, side: SideJudgeSettings, records: Sequence[Record], *, what: str) -> SideScore:
        sample = [record for record in records if is_sampled(record.id, self._rate * side.sampling_rate)]
        until, cause = self._rests.get(side.name, (0.0, ""))
        judge: Judge | None = None
        try:
            judge = self._open(side)
            if time.monotonic() >= until:
                judge_records(self._windows.beside, sample, judge=judge, what=what)
                cause = ""
        except UserError as error:
            cause = str(error)
        kept = self._windows.beside.verdicts([record.id for record in sample], judge.id) if judge else {}
        scored = self._score(side.name, sample, kept=kept, judge=judge, cause=cause)
        if sample and scored.unjudged == len(sample) and time.monotonic() >= until:
            self._rests[side.name] = (time.monotonic() + _REST_S, scored.cause)
        return scored

    def _open(self, side: SideJudgeSettings) -> Judge:
        if side.name not in self._opened:
            choice = JudgeChoice(settings=side.judge, prompts=self._prompts)
            self._opened[side.name] = open_judge(choice, self._policy, workspace=self._workspace)
        return self._opened[side.name]

    def _score(
        self, name: str, sample: Sequence[Record], *, kept: dict[str, Verdict], judge: Judge | None, cause: str
    ) -> SideScore:
        judged = [(r, kept[r.id]) for r in sample if r.id in kept and kept[r.id].outcome != "unjudged"]
        causes = Counter(
            (kept[r.id].cause or "no cause given") if r.id in kept else cause
            for r in sample
            if r.id not in kept or kept[r.id].outcome == "unjudged"
        )
        card = kept_card(judge, self._policy, workspace=self._workspace) if judge else None
        return SideScore(
            name=name,
            judge_id=judge.id if judge else "",
            score=clustered_rate([v.outcome == "pass" for _, v in judged], [r.conversation for r, _ in judged]),
            sampled=len(sample),
            unjudged=len(sample) - len(judged),
            cause=causes.most_common(1)[0][0][:_LONGEST_CAUSE] if causes else "",
            card=f"accuracy {card.accuracy}, kappa {card.kappa}" if card and card.accuracy.n else "",
        )


def judges_beside(settings: Settings, policy: Policy, *, workspace: Workspace, windows: WindowStore) -> JudgesBeside:
    """Those that the settings name."""
    return JudgesBeside(
        settings.judges_beside,
        policy,
        prompts=settings.judge_prompts,
        workspace=workspace,
        windows=windows,
        sampling_rate=settings.monitoring.sampling_rate,
    )
