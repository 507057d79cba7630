"""Which judges and judge prompts are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from ontopic.config.settings import (
    DeepEvalJudgeSettings,
    JudgeSettings,
    LLMJudgeSettings,
    LocalJudgeSettings,
    PanelJudgeSettings,
)
from ontopic.config.yaml_file import read_yaml
from ontopic.errors import UserError
from ontopic.judges.llm.templates import load_template


def judge_variants(judge: JudgeSettings, prompts: Mapping[str, str]) -> list[JudgeSettings]:
    """The judge as it is set and, where it asks an LLM with a prompt, with every other prompt of single grading.

    Args:
        prompts: the templates by name.
    """
    if not isinstance(judge, LLMJudgeSettings):
        return [judge]
    return [
        judge,
        *(with_template(judge, name, prompts=prompts) for name in single_templates(prompts) if name != judge.template),
    ]


def with_template(judge: LLMJudgeSettings, name: str, *, prompts: Mapping[str, str]) -> LLMJudgeSettings:
    """The judge with another prompt, graded as that prompt asks for."""
    grading = "single" if name in single_templates(prompts) else "custom"
    return judge.model_copy(update={"template": name, "grading": grading})


def single_templates(prompts: Mapping[str, str]) -> list[str]:
    """Names of the prompts that grade one answer by itself, and not against another or a reference."""
    return sorted(name for name, template in prompts.items() if _is_single(template))


def _is_single(template: str) -> bool:
    named = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", template))
    asks = bool({"conversation", "question"} & named)
    return asks and "answer" in named and not {"answer_a", "answer_b", "reference"} & named


def read_prompts(folder: Path) -> dict[str, str]:
    """The judge prompts of a folder by name.

    Raises:
        UserError: one cannot be read.
    """
    prompts = {}
    for path in sorted(folder.glob("*.txt")):
        try:
            prompts[path.stem] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: the judge prompt cannot be read ({error})") from error
    return prompts


def selected_judges(
    configured: JudgeSettings, given: Sequence[JudgeSettings], *, templates: Iterable[str], prompts: Mapping[str, str]
) -> list[JudgeSettings]:
    """What ``calibrate`` measures: the given judges, else the configured one; LLMs with each of ``templates``.

    Without both, the configured judge in all its variants.

    Raises:
        UserError: templates are named, but no judge takes one.
    """
    names = list(dict.fromkeys(templates))
    if not names:
        return list(given) or judge_variants(configured, prompts)
    judges = list(given) or [configured]
    if not any(isinstance(judge, LLMJudgeSettings) for judge in judges):
        raise UserError("--template is for judges of kind openai; name one with --judge or in the configuration")
    selected: list[JudgeSettings] = []
    for judge in judges:
        if isinstance(judge, LLMJudgeSettings):
            selected += [with_template(judge, name, prompts=prompts) for name in names]
        else:
            selected.append(judge)
    return selected


def check_templates(judges: Iterable[JudgeSettings], folder: Path) -> None:
    """See that the prompts that judges name are there and fit their grading, before anything is opened or asked.

    Raises:
        UserError: one is missing, or lacks a placeholder.
    """
    for judge in judges:
        if isinstance(judge, LLMJudgeSettings):
            load_template(folder / f"{judge.template}.txt", judge.grading)


class _Kind(BaseModel):
    kind: Literal["local", "openai", "deepeval", "panel"]


_SETTINGS: dict[str, type[JudgeSettings]] = {
    "local": LocalJudgeSettings,
    "openai": LLMJudgeSettings,
    "deepeval": DeepEvalJudgeSettings,
    "panel": PanelJudgeSettings,
}


def load_judge_settings(path: Path) -> JudgeSettings:
    """One judge's settings from a file of their own, with the keys of a configuration's section ``judge``.

    Raises:
        UserError: the file is missing, is not YAML, or has an unknown, missing or mistyped key.
    """
    return read_yaml(path, _SETTINGS[read_yaml(path, _Kind).kind])
