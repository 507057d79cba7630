"""Batches of texts of like length, so that little of a batch is padding."""

from __future__ import annotations

import random
from collections.abc import Sequence


def batches_of_like_length(
    lengths: Sequence[int], size: int, *, chance: random.Random, at_a_time: int
) -> list[list[int]]:
    """All indices of ``lengths`` once, in batches of ``size`` in random order.

    Args:
        at_a_time: so many batches are made of one random sample; the more, the more alike are a batch's lengths. The
            sample's last batch may be smaller.
    """
    order = list(range(len(lengths)))
    chance.shuffle(order)
    batches = []
    for start in range(0, len(order), size * at_a_time):
        group = sorted(order[start : start + size * at_a_time], key=lengths.__getitem__)
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    chance.shuffle(batches)
    return batches


def packed_by_tokens(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """All indices of ``lengths`` once, the shortest first, in batches as large as fit.

    Args:
        most_tokens: of a batch, padding included; a text that is longer is a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and lengths[index] * (len(batches[-1]) + 1) <= most_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def batches_of_one_length(lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """All indices of ``lengths`` once, the shortest first, in batches of one length that are as large as fit.

    Args:
        most_tokens: of a batch; a text that is longer is a batch of its own.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length, last = lengths[index], batches[-1] if batches else []
        if last and lengths[last[0]] == length and length * (len(last) + 1) <= most_tokens:
            last.append(index)
        else:
            batches.append([index])
    return batches
