"""What is known of a score: by which labels it is corrected, and why it may not be known where it stands."""

from __future__ import annotations

import pytest
from values import replace
from word_judge import CARD, WordJudge, labelled_traffic

from ontopic.config.policy import Policy
from ontopic.judges.cards.traffic_card import LEAST_LABELS, TrafficLabels
from ontopic.monitoring.standing import WindowLimits, limits_of, standing
from ontopic.monitoring.unknown_error import score_if
from ontopic.monitoring.window import Counts, window_result
from ontopic.records import Judged, Record
from ontopic.statistics.correction import corrected
from ontopic.statistics.rates import rate

LIMITS = WindowLimits(threshold=0.9)


def judged(passes: int, fails: int, unjudged: int = 0, **of_all: str) -> Judged:
    answers = ["good"] * passes + ["bad"] * fails + ["?"] * unjudged
    records = [
        Record(question="q?", answer=answer, id=f"r{i}", model_version="1", **of_all)  # type: ignore[arg-type]
        for i, answer in enumerate(answers)
    ]
    return Judged(records=records, verdicts=WordJudge().judge(records))


def merged(first: TrafficLabels, second: TrafficLabels) -> TrafficLabels:
    rows = {"records": first.records + second.records, "verdicts": first.verdicts + second.verdicts}
    return replace(first, **rows)


@pytest.mark.parametrize(("n", "unjudged", "expected"), [(49, 0, "49 judged records are fewer than 50"), (50, 0, "")])
def test_a_window_of_few_records_is_unknown(n: int, unjudged: int, expected: str) -> None:
    for sample in (judged(n, 0, unjudged), judged(0, n, unjudged)):
        found = window_result(sample, CARD, limits=LIMITS, counts=Counts(n=n))
        assert found.unknown_because.startswith(expected)
        assert (found.status == "unknown") == bool(expected)
    assert standing(judged(3, 0), CARD, limits=replace(LIMITS, least_records=3)).unknown_because == ""


def test_the_policy_says_how_few_and_how_much_unjudged(banking: Policy) -> None:
    assert limits_of(banking) == WindowLimits(threshold=0.85, least_records=50, most_unjudged=0.05)
    own = banking.model_copy(update={"alert_threshold": 0.7, "least_records": 9, "most_unjudged": 0.2})
    assert limits_of(own) == WindowLimits(threshold=0.7, least_records=9, most_unjudged=0.2)


def test_where_too_much_is_unjudged_nothing_is_known() -> None:
    assert standing(judged(95, 0, 5), CARD, limits=LIMITS).unknown_because == ""
    assert (
        "5.1% of the records are unjudged, more than 5%"
        in standing(judged(94, 0, 5), CARD, limits=LIMITS).unknown_because
    )
    assert standing(judged(0, 0, 90), CARD, limits=LIMITS).unknown_because == "no record could be judged"


@pytest.mark.parametrize("n", [100, 10])  # few records are no reason to believe it
@pytest.mark.parametrize("right", [(50, 100), (55, 100)])
def test_a_judge_not_shown_to_be_better_than_chance_on_traffic_says_nothing(right: tuple[int, int], n: int) -> None:
    found = standing(judged(n // 2, n // 2), CARD, limits=LIMITS, labels=labelled_traffic(right, right))
    assert found.unknown_because.startswith("on labelled traffic the judge is not shown to be better than chance")
    assert not found.allows_alarm


@pytest.mark.parametrize("n", [100, 10])
def test_nor_does_one_at_chance_on_its_own_records(n: int) -> None:
    at_chance = replace(CARD, sensitivity=rate(50, 100), specificity=rate(50, 100))
    found = standing(judged(n // 2, n // 2), at_chance, limits=LIMITS)
    assert found.unknown_because.startswith("on its labelled records the judge is not shown to be better than chance")
    assert not found.allows_alarm


def test_templates_correct_nothing() -> None:
    found = standing(judged(90, 10), CARD, limits=LIMITS)
    assert (found.score, found.is_corrected, found.labels) == (rate(90, 100), False, 0)
    assert found.in_words.startswith(
        "uncorrected: the judge's error on this traffic is unknown, as none of its records carries a random label. "
        "Label 200 more: python run.py label --by random -n 200."
    )


def test_too_few_labels_correct_nothing_and_the_missing_ones_are_asked_for() -> None:
    few = labelled_traffic((90, 100), (90, LEAST_LABELS - 101))
    found = standing(judged(90, 10), CARD, limits=LIMITS, labels=few, version="1")
    assert (found.score, found.is_corrected) == (rate(90, 100), False)
    assert "199 of its records carry a random label. Label 1 more: python run.py label --by random -n 1." in (
        found.in_words
    )


def test_labels_of_the_same_version_come_first_and_others_fill_up() -> None:
    own, other = labelled_traffic((140, 150), (4, 10)), labelled_traffic((50, 100), (50, 100), version="0")
    assert own.card("1") is None
    card = merged(own, other).card("1")
    assert card and card.origin == "traffic"
    assert (card.sensitivity.n + card.specificity.n, card.sensitivity.n) == (LEAST_LABELS, 150 + 40)
    enough = merged(labelled_traffic((180, 190), (6, 10)), other).card("1")
    assert enough and (enough.sensitivity, enough.specificity) == (rate(180, 190), rate(6, 10))


def test_labels_of_these_very_records_give_the_efficient_estimate() -> None:
    sample, labels = judged(900, 100), labelled_traffic((180, 190), (6, 10))
    inside = [record.model_copy(update={"record_id": f"r{i}"}) for i, record in enumerate(labels.records)]
    # The judge passes 180 + 4 of these 200; make its verdicts in the window say so.
    order = sorted(range(200), key=lambda i: labels.verdicts[i].outcome == "fail")
    inside = [inside[i] for i in order]
    for row, place in enumerate([*range(184), *range(984, 1000)]):
        inside[row] = inside[row].model_copy(update={"record_id": f"r{place}"})
    of_them = replace(labels, records=inside, verdicts=[labels.verdicts[i] for i in order])
    found = standing(sample, CARD, limits=LIMITS, labels=of_them, version="1")
    assert found.score.n == 1000
    assert found.score.value == pytest.approx(0.9 * 180 / 184 + 0.1 * 10 / 16, abs=1e-4)
    alone = rate(188, 200)  # the labels by themselves, about that score
    assert found.score.high - found.score.low < alone.high - alone.low
    elsewhere = standing(sample, CARD, limits=LIMITS, labels=labels, version="1").score
    assert elsewhere == corrected(rate(900, 1000), rate(180, 190), specificity=rate(6, 10))


def test_the_interval_of_real_queries_holds_their_true_score() -> None:
    """591 queries that nobody here wrote: the judge had 557 of 567 good answers right and 8 of 24 bad ones."""
    truth, labels = 567 / 591, labelled_traffic((557, 567), (8, 24))
    sample = judged(573, 18)
    right = standing(sample, CARD, limits=LIMITS, labels=labels, version="1")
    assert right.is_corrected and right.score.low <= truth <= right.score.high
    assert right.unknown_because == ""
    ids = [record.model_copy(update={"record_id": f"r{i}"}) for i, record in enumerate(labels.records)]
    same = standing(sample, CARD, limits=LIMITS, labels=replace(labels, records=ids), version="1")
    assert same.score.value == pytest.approx(truth) and same.score.low <= truth <= same.score.high
    raw = standing(sample, CARD, limits=LIMITS)
    assert not raw.is_corrected and raw.score.low <= truth <= raw.score.high


def test_a_card_that_no_score_reconciles_with_the_traffic_makes_it_unknown() -> None:
    """The card of templates of these queries' judge: 475 of 509 and 281 of 309, which claimed 1.000 [0.993, 1.000]."""
    labels = labelled_traffic((475, 509), (281, 309))
    result = window_result(judged(573, 18), CARD, limits=LIMITS, counts=Counts(n=591), labels=labels)
    assert (result.status, result.is_misfit) == ("unknown", True)
    assert result.unknown_because.startswith("the judge's card does not fit this traffic: it passes 0.970")
    low = window_result(
        judged(2, 98), CARD, limits=LIMITS, counts=Counts(n=100), labels=labelled_traffic((90, 100), (70, 100))
    )
    assert (low.status, low.is_misfit) == ("unknown", True)  # fewer than it passes of bad ones
    fits = window_result(judged(550, 41), CARD, limits=LIMITS, counts=Counts(n=591), labels=labels)
    assert not fits.is_misfit


def test_records_of_one_conversation_widen_the_interval() -> None:
    apart, together = judged(80, 40), judged(80, 40, conversation="c")
    assert standing(together, CARD, limits=LIMITS).score.low < standing(apart, CARD, limits=LIMITS).score.low - 0.1
    groups = [record.model_copy(update={"conversation": f"c{i // 5}"}) for i, record in enumerate(apart.records)]
    alike = Judged(records=groups, verdicts=apart.verdicts)
    for labels in (None, labelled_traffic()):
        wide, narrow = (standing(each, CARD, limits=LIMITS, labels=labels, version="1") for each in (alike, apart))
        assert wide.score.value == pytest.approx(narrow.score.value, abs=0.02)
        assert wide.score.high - wide.score.low > 1.5 * (narrow.score.high - narrow.score.low)
        assert wide.score.n == 120


def test_what_an_unknown_error_could_make_of_a_score() -> None:
    assert score_if(0.9, 1.0, specificity=1.0) == pytest.approx(0.9)
    assert score_if(0.9, 1.0, specificity=0.5) == pytest.approx(0.8)
    assert score_if(0.9, 0.9, specificity=0.7) == pytest.approx(1.0)
    assert score_if(0.97, 0.9, specificity=0.9) is None
    assert score_if(0.9, 0.5, specificity=0.5) is None
