"""What of a model's text is its reply."""

from __future__ import annotations

import pytest

from ontopic.endpoint.reasoning import without_reasoning

REPLY = "Open the card menu."


@pytest.mark.parametrize(
    "text",
    [
        REPLY,
        f"<think>Hm.</think>\n\n{REPLY}",
        f"Hm.\n</think>\n{REPLY}",
        f"<think>One.</think> draft <think>Two.</think> {REPLY}",
        f"<THINK>Hm.</THINK>{REPLY}",
        f"<thinking>Hm.</thinking>{REPLY}",
        f"<reasoning>Hm.</reasoning>{REPLY}",
        f'<think depth="2">Hm.</ think >{REPLY}',
        f"[THINK]Hm.[/THINK]{REPLY}",
        f"◁think▷Hm.◁/think▷{REPLY}",
        f"<|begin_of_thought|>Hm.<|end_of_thought|><|begin_of_solution|>{REPLY}<|end_of_solution|>",
        f"<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>{REPLY}<|END_RESPONSE|>",
        f"<think>Hm.</think><answer>{REPLY}</answer>",
        f"<answer>{REPLY}",
        f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>{REPLY}<|return|>",
        f"<|channel|>final <|constrain|>json<|message|>{REPLY}",
        f"analysisWe need to say it.assistantfinal{REPLY}",
        f"Here is my thought process: Hm. Here is my response: {REPLY}",
        f"{REPLY}<|im_end|>",
        f"{REPLY}</s>\n",
    ],
)
def test_the_reply_is_what_follows_the_reasoning(text: str) -> None:
    assert without_reasoning(text) == REPLY


@pytest.mark.parametrize(
    "text",
    [
        "<think>Perhaps",
        "<think>One.</think> well <think>Two",
        "Well. <reasoning>Perhaps",
        "[THINK]Perhaps",
        "<|channel|>analysis<|message|>Perhaps",
        "<|channel|>final<|message|>Draft.<|end|><|start|>assistant<|channel|>analysis<|message|>Perhaps",
        "analysisWe need to",
        "Here is my thought process: Perhaps",
    ],
)
def test_reasoning_that_does_not_end_leaves_no_reply(text: str) -> None:
    assert without_reasoning(text) is None


def test_nothing_after_the_reasoning_is_an_empty_reply() -> None:
    assert without_reasoning("<think>Hm.</think>\n") == ""


@pytest.mark.parametrize(
    "text",
    [
        '{"explanation": "It says </think> itself.", "verdict": "fail"}',
        "An analysis of your costs is in the app.",
        "analysis of costs",
        "2 < 3 and <thinker> is no tag",
    ],
)
def test_what_is_no_reasoning_stays(text: str) -> None:
    assert without_reasoning(text) == text
