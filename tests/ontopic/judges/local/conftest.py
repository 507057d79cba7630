"""Fixtures of the embedded judge's tests."""

from __future__ import annotations

import pytest

from ontopic.judges.judge import Judge
from ontopic.judges.local.judge import LocalJudge
from ontopic.models.sentence_encoder import SentenceEncoder, load_sentence_encoder


@pytest.fixture(scope="module")
def judge(local_judge: Judge) -> LocalJudge:
    assert isinstance(local_judge, LocalJudge)
    return local_judge


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return load_sentence_encoder()
