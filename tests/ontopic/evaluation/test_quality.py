"""Quality of answers: likelihoods as the model's own loss has them, means with their intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from qualities import quality_of
from scipy.stats import ttest_1samp

from ontopic.data.labelled import Question
from ontopic.data.same_question import normalized
from ontopic.evaluation.quality import difference, mean, measure_quality
from ontopic.models.chat_template import chat_prompts
from ontopic.models.generation import generate
from ontopic.models.likelihood import negative_log_likelihood, perplexity
from ontopic.models.loading import LanguageModel, load
from ontopic.records import Record

ASKED = [
    ("How do I freeze my card?", "Open Cards in the app, pick the card and tap Freeze."),
    ("Is there a fee for a replacement?", "Usually not."),
    (
        "I was charged twice at the petrol station on Sunday. What now?",
        "Wait a day, as one is often a hold; then dispute it in the app.",
    ),
]


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LanguageModel:
    return load(model_folder, "float32")


def test_likelihoods_are_the_models_own_losses(model: LanguageModel) -> None:
    conversations = [[{"role": "user", "content": question}] for question, _ in ASKED]
    done: list[int] = []
    found = negative_log_likelihood(model, conversations, answers=[answer for _, answer in ASKED], advance=done.append)
    for (_, answer), prompt, nll in zip(ASKED, chat_prompts(model.tokenizer, conversations), found, strict=True):
        start = len(model.tokenizer(prompt)["input_ids"])
        ids = torch.tensor([model.tokenizer(prompt)["input_ids"] + model.tokenizer(answer)["input_ids"]])
        labels = ids.clone()
        labels[:, :start] = -100
        lm: Any = model.model
        assert nll == pytest.approx(float(lm(input_ids=ids, labels=labels).loss.detach()), abs=1e-4)
    assert sum(done) == len(ASKED)


@pytest.mark.slow
def test_damage_shows_in_the_perplexity(model_folder: Path, model: LanguageModel) -> None:
    before = perplexity(model)
    assert 10 < before < 100
    damaged = load(model_folder, "float32")
    with torch.no_grad():
        for weights in damaged.model.get_decoder().layers[10].parameters():
            weights.zero_()
    assert perplexity(damaged) > 1.2 * before


def test_answers_in_scope_are_measured_by_their_references(model: LanguageModel) -> None:
    questions = [Question(question=q, in_scope=True, reference=r) for q, r in ASKED]
    questions += [Question(question="Tell me a joke", in_scope=False), Question(question="My PIN?", in_scope=True)]
    records = [Record(question=q.question, answer=q.reference or "", finished=i > 0) for i, q in enumerate(questions)]
    same = measure_quality(model, questions, records=records)
    assert same.questions == [normalized(q) for q, _ in ASKED]
    assert same.similarity == pytest.approx([1.0] * 3, abs=0.01)
    assert (same.words[1], same.truncated, same.repeats) == (2, [True, False, False], [False] * 3)
    said = generate(model, [q.messages for q in questions], max_new_tokens=12)
    other = measure_quality(model, questions, records=[Record(question="", answer=answer.text) for answer in said])
    assert difference(same, other).value < 0
    assert other.reference_nll == pytest.approx(same.reference_nll, abs=1e-4)
    assert {"similarity", "reference_nll", "perplexity"} <= set(other.metrics())


def test_a_mean_has_students_interval() -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    found, wanted = mean(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert mean([0.5]).low == -math.inf and math.isnan(mean([]).value)


def test_only_the_same_questions_are_compared() -> None:
    assert difference(quality_of(0.5), quality_of(0.6)).value == pytest.approx(0.1)
    with pytest.raises(ValueError, match="same questions"):
        difference(quality_of(), quality_of(questions=3))
