"""Opening the judge that a configuration names."""

from __future__ import annotations

from ontopic.config.policy import Policy
from ontopic.config.settings import DeepEvalJudgeSettings, JudgeChoice, LLMJudgeSettings, PanelJudgeSettings
from ontopic.data.labelled import load_questions, load_records
from ontopic.data.labels import labels_of, load_labels
from ontopic.judges.judge import Judge
from ontopic.judges.llm.deepeval import DeepEvalJudge
from ontopic.judges.llm.judge import LLMJudge
from ontopic.judges.llm.templates import load_template
from ontopic.judges.llm.verdict_cache import VerdictCache
from ontopic.judges.local.at_hand import judge_at_hand, share_judge
from ontopic.judges.local.judge import load_local_judge, local_judge_id, save_local_judge
from ontopic.judges.local.training import train_local_judge
from ontopic.judges.panel import PanelJudge
from ontopic.state.workspace import Workspace


def open_judge(choice: JudgeChoice, policy: Policy, *, workspace: Workspace) -> Judge:
    """The judge that the configuration names; a local one is trained on first use and kept in the state folder.

    Raises:
        UserError: labelled data, prompt or key is missing or malformed.
    """
    settings = choice.settings
    if isinstance(settings, LLMJudgeSettings):
        template = load_template(choice.prompts / f"{settings.template}.txt", settings.grading)
        return LLMJudge(settings, template, policy=policy, cache=VerdictCache(workspace.verdicts))
    if isinstance(settings, PanelJudgeSettings):
        members = [choice.model_copy(update={"settings": member}) for member in settings.judges]
        return PanelJudge(settings.rule, [open_judge(member, policy, workspace=workspace) for member in members])
    if isinstance(settings, DeepEvalJudgeSettings):
        return DeepEvalJudge(settings, policy)
    known = load_questions(policy.questions, languages=policy.languages)
    questions = [q for q in known if q.split in ("train", "judge")]
    records = load_records(policy.records, split="train", questions=policy.questions)
    records += load_labels(labels_of(policy, workspace), "train")
    judge_id = local_judge_id(policy, questions, records=records)
    folder = judge_at_hand(judge_id, workspace)
    if folder is None:
        folder = workspace.judges / judge_id
        save_local_judge(train_local_judge(policy, questions, records=records), folder)
    share_judge(folder, workspace)
    return load_local_judge(folder)
