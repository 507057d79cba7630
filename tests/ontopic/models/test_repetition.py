from __future__ import annotations

import pytest

from ontopic.models.repetition import repeats_itself


@pytest.mark.parametrize(
    ("answer", "repeats"),
    [
        ("Open the app. Then open the card.", False),
        ("yes please yes please yes please", True),
        ("You can open the app. You can open the web.", False),
        ("You can open the app. You can open the web. You can open the door.", True),
    ],
)
def test_repetition_is_four_words_thrice_or_two_in_a_row(answer: str, repeats: bool) -> None:
    assert repeats_itself(answer) is repeats
