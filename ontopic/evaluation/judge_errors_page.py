"""The part of the gate's page on the judge's errors, and on questions whose scope only the judge has said."""

from __future__ import annotations

from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import table_data, text_widget

from ontopic.data.labelled import SCOPE_BY_JUDGE
from ontopic.evaluation.answers import Evaluation
from ontopic.evaluation.gate import JUDGE_ERRORS, Decision
from ontopic.reports.page import plain_markdown
from ontopic.statistics.pairs import compare


def judge_errors_widgets(decision: Decision, champion: Evaluation, *, challenger: Evaluation) -> list[BaseWidgetInfo]:
    """What people's labels say of the judge, or that they say nothing yet; and the improvement on labelled scopes."""
    widgets = []
    if (errors := decision.judge_errors) is not None:
        _, said = errors.verdict(decision.limits.improvement)
        widgets.append(text_widget(title=JUDGE_ERRORS, text=plain_markdown(said)))
        if (found := errors.found) is not None:
            rows = [
                [name, str(getattr(found.champion, name)), str(getattr(found.challenger, name)), f"{p:.2g}"]
                for name, p in (("sensitivity", found.p_sensitivity), ("specificity", found.p_specificity))
            ]
            columns = ["", "Champion", "Challenger", "p that they are the same"]
            widgets.append(table_data(title="The judge against people's labels", column_names=columns, data=rows))
    labelled = [i for i, question in enumerate(champion.questions) if question.kind != SCOPE_BY_JUDGE]
    if others := len(champion.questions) - len(labelled):
        without = compare([champion.verdicts[i] for i in labelled], [challenger.verdicts[i] for i in labelled])
        text = (
            f"{others:,} of the {len(champion.questions):,} questions come from traffic. Whether they are in scope is "
            "the judge's own opinion and no label, so on them the judge agrees with itself. Without them the "
            f"improvement is {without.with_interval} (n = {without.n:,})."
        )
        widgets.append(text_widget(title="Questions without a scope label", text=plain_markdown(text)))
    return widgets
