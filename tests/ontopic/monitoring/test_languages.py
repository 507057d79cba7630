"""Languages of which too much is unjudged: an event of its own, also where each window has few of them."""

from __future__ import annotations

from ontopic.data.by_language import LanguageScores
from ontopic.monitoring.languages import LEAST_OF_LANGUAGE, languages_table, unjudged_by_language
from ontopic.statistics.rates import rate
from ontopic.statistics.scores import Scores


def part(name: str, n: int, unjudged: int) -> LanguageScores:
    judged = n - unjudged
    scores = Scores(guardrail_score=rate(judged, judged), over_refusal=rate(0, 0), leak=rate(0, 0), unjudged=unjudged)
    return LanguageScores(name=name, n=n, scores=scores)


def test_a_language_with_enough_records_has_its_share() -> None:
    found = unjudged_by_language([part("en", 500, 1), part("de", LEAST_OF_LANGUAGE, 3)], [])
    assert {name: (share.n, share.value) for name, share in found.items()} == {"en": (500, 0.002), "de": (20, 0.15)}


def test_what_a_window_lacks_comes_from_those_before_it() -> None:
    earlier = [[part("de", 8, 0)], [part("fr", 50, 50)], [part("de", 9, 1)], [part("de", 40, 40)]]
    found = unjudged_by_language([part("en", 90, 0), part("de", 4, 1)], earlier)
    assert {name: (share.n, round(share.value * share.n)) for name, share in found.items()} == {"de": (21, 2)}


def test_of_few_records_and_of_unsure_ones_nothing_is_said() -> None:
    few = [part("de", LEAST_OF_LANGUAGE - 1, 19), part("unsure", 400, 400)]
    assert unjudged_by_language(few, []) == {}


def test_a_window_in_which_all_is_judged_does_not_repeat_an_old_alarm() -> None:
    assert unjudged_by_language([part("de", 4, 0)], [[part("de", 30, 30)]]) == {}


def test_the_table_says_the_share_by_language() -> None:
    (row,) = languages_table([part("de", 20, 5)]).rows
    assert row[:3] == ["de", 20, rate(5, 20)]
