from __future__ import annotations

import itertools
import random

import pytest

from ontopic.models.batches import batches_of_like_length, batches_of_one_length, packed_by_tokens


@pytest.mark.parametrize(
    ("lengths", "most_tokens", "batches"),
    [
        ([], 10, []),
        ([3, 1, 2], 6, [[1, 2], [0]]),  # a third text would make it three rows of 3 tokens
        ([3, 1, 2], 9, [[1, 2, 0]]),
        ([5, 5, 5], 10, [[0, 1], [2]]),
        ([50, 1, 40], 10, [[1], [2], [0]]),
        ([0, 0], 1, [[0, 1]]),
    ],
)
def test_texts_are_packed_up_to_so_many_tokens_with_padding(
    lengths: list[int], most_tokens: int, batches: list[list[int]]
) -> None:
    assert packed_by_tokens(lengths, most_tokens) == batches


def test_a_packed_batch_is_as_large_as_fits() -> None:
    chance = random.Random(1)
    lengths = [chance.randint(1, 60) for _ in range(500)]
    batches = packed_by_tokens(lengths, 256)
    assert sorted(index for batch in batches for index in batch) == list(range(500))
    for batch, following in itertools.pairwise(batches):
        assert max(lengths[i] for i in batch) * len(batch) <= 256
        assert lengths[following[0]] * (len(batch) + 1) > 256


@pytest.mark.parametrize(
    ("lengths", "most_tokens", "batches"),
    [
        ([], 10, []),
        ([3, 1, 3], 6, [[1], [0, 2]]),
        ([3, 1, 3], 5, [[1], [0], [2]]),
        ([50, 2, 50, 2, 2], 6, [[1, 3, 4], [0], [2]]),
    ],
)
def test_texts_of_one_length_come_together(lengths: list[int], most_tokens: int, batches: list[list[int]]) -> None:
    assert batches_of_one_length(lengths, most_tokens) == batches


def test_random_batches_hold_each_text_once_and_are_of_like_length() -> None:
    chance = random.Random(2)
    lengths = [chance.randint(1, 1000) for _ in range(640)]
    batches = batches_of_like_length(lengths, 8, chance=random.Random(3), at_a_time=80)
    assert sorted(index for batch in batches for index in batch) == list(range(640))
    assert {len(batch) for batch in batches} == {8}
    assert max(max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches) < 200
    assert batches != batches_of_like_length(lengths, 8, chance=random.Random(4), at_a_time=80)
