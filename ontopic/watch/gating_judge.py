"""The judge that gates, and its card, opened when they are first needed: training the embedded one takes a while, and
so does importing it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from ontopic.judges.cards.card import JudgeCard
    from ontopic.judges.cards.traffic_card import TrafficLabels
    from ontopic.judges.judge import Judge


class GatingJudge:
    """The judge that the settings choose, and its card on the calibration split."""

    def __init__(self, choice: JudgeChoice, policy: Policy, *, workspace: Workspace) -> None:
        self._choice, self._policy, self._workspace = choice, policy, workspace

    @cached_property
    def judge(self) -> Judge:
        """The judge; opened once."""
        from ontopic.judges.opening import open_judge

        return open_judge(self._choice, self._policy, workspace=self._workspace)

    @cached_property
    def card(self) -> JudgeCard:
        """Its card on records whose scope it isn't told, as traffic's isn't; measured once where none is kept that is
        current."""
        from ontopic.judges.cards.calibration import card_of

        return card_of(self.judge, self._policy, workspace=self._workspace)

    @cached_property
    def gate_card(self) -> JudgeCard:
        """Its card as it judges in the gate, told the scope; measured once where none is kept that is current."""
        from ontopic.judges.cards.calibration import gate_card_of

        return gate_card_of(self.judge, self._policy, workspace=self._workspace)

    def labels(self) -> TrafficLabels:
        """The labelled traffic with its verdicts, as it is now: a person may label while this runs."""
        from ontopic.judges.cards.traffic_card import labelled_traffic

        return labelled_traffic(self._policy, self._workspace, judge=lambda: self.judge)
