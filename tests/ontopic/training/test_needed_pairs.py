from __future__ import annotations

import pytest
import torch

from ontopic.training.needed_pairs import Needed

# Four pairs of two own tokens each but for the last, behind three that all share.
PLACES = torch.tensor([[3, 4], [5, 6], [7, 8], [9, -1]])
PAIR = torch.tensor([0, 0, 1, 2, 3])
SLOPES = torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])  # norms by pair: 5, 3, 1, 1


@pytest.mark.parametrize(
    ("share", "taken"), [(0.05, [0]), (0.5, [0]), (0.6, [0, 1]), (0.8, [0, 1]), (0.99, [0, 1, 2, 3])]
)
def test_pairs_are_taken_from_the_largest_on(share: float, taken: list[int]) -> None:
    needed, slopes = Needed(share), SLOPES.clone()
    needed.begin(PLACES, 3)
    needed.choose(slopes, PAIR)
    assert needed.pairs is not None and needed.pairs.nonzero().squeeze(1).tolist() == taken
    own = [place for pair in taken for place in PLACES[pair].tolist() if place >= 0]
    assert needed.tokens is not None and needed.tokens.tolist() == [0, 1, 2, *own]
    kept = torch.isin(PAIR, torch.tensor(taken))
    assert torch.equal(slopes[kept], SLOPES[kept]) and not slopes[~kept].any()


def test_all_are_needed_by_default_and_of_a_new_batch() -> None:
    needed, slopes = Needed(), SLOPES.clone()
    needed.begin(PLACES, 3)
    needed.choose(slopes, PAIR)
    assert torch.equal(slopes, SLOPES) and needed.of(SLOPES) is SLOPES
    needed.share = 0.5
    needed.choose(slopes, PAIR)
    assert needed.tokens is not None
    needed.begin(PLACES, 3)
    assert needed.tokens is None and needed.pairs is None


def test_rows_that_are_needed_stand_where_they_did() -> None:
    needed = Needed(0.5)
    needed.begin(PLACES, 3)
    needed.choose(SLOPES.clone(), PAIR)
    states = torch.arange(20.0).view(10, 2)
    whole = needed.whole(needed.of(states), torch.Size([1, 10, 2]))
    assert torch.equal(whole[0, :5], states[:5]) and not whole[0, 5:].any()


def test_where_nothing_has_a_gradient_nothing_breaks() -> None:
    needed, slopes = Needed(0.5), torch.zeros_like(SLOPES)
    needed.begin(PLACES, 3)
    needed.choose(slopes, PAIR)
    assert needed.of(torch.ones(10, 2)).shape == (3, 2)
