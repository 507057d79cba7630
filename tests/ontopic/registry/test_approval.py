"""Who must approve what, until when, and what makes it void: all read off the promotion record's entries."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ontopic.config.watch_settings import PromotionSettings
from ontopic.errors import UserError
from ontopic.registry.approval import Present, Terms, Waiting, objection, trainers, undecided, void, waiting
from ontopic.registry.promotion_record import Entry, EntryKind, PromotionRecord

NAME = "ontopic-test"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ONE, TWO, AUTOMATIC = (PromotionSettings.model_validate({"approval": each}) for each in ("one", "two", "automatic"))
PRESENT = Present(champion="1", weights=("w",), policy_sha256="p")


class Log:
    """A promotion record that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.record = PromotionRecord(folder / "promotions.jsonl")

    def add(self, kind: EntryKind, by: str = "ann", *, version: str = "2", days: float = 0, **facts: Any) -> Entry:
        return self.record.add(kind, NAME, version=version, by=by, why="w", facts=facts, at=NOON + days * DAY)

    def gate(self, version: str = "2", days: float = 0) -> Entry:
        return self.add("gate", "the gate", version=version, days=days, weights_sha256="w", trained_by="ann")

    def wait(self, settings: PromotionSettings = ONE, days: float = 0, **changed: Any) -> Entry:
        version = changed.pop("version", "2")
        terms = {
            "approval": settings.approval,
            "until": NOON + days * DAY + settings.expires,
            "champion": "1",
            "gate_sha256": self.gate(version, days).sha256,
            "weights_sha256": "w",
            "policy_sha256": "p",
            "trained_by": ("ann",),
        }
        facts = Terms.model_validate(terms | changed).model_dump(mode="json")
        return self.add("waiting", version=version, days=days, **facts)

    def decide(self, kind: EntryKind, wait: Entry, by: str = "bob", days: float = 0.1) -> Entry:
        return self.add(kind, by, version=wait.version, days=days, waiting=wait.sha256)

    def found(self, settings: PromotionSettings = ONE, days: float = 1) -> list[Waiting]:
        return waiting(self.record.entries(NAME), NOON + days * DAY, settings=settings)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_nothing_waits_where_nothing_was_asked(log: Log) -> None:
    assert log.found() == []
    log.gate()
    log.add("promotion")
    assert log.found() == []


@pytest.mark.parametrize("settings", [ONE, TWO], ids=lambda settings: settings.approval)
@pytest.mark.parametrize("trained_by", [("ann",), ("ann", "Bob")], ids="-".join)
@pytest.mark.parametrize("order", list(itertools.permutations(("ann", "bob", "cat"))), ids="-".join)
def test_whoever_approves_in_whatever_order(
    log: Log, settings: PromotionSettings, trained_by: tuple[str, ...], order: tuple[str, ...]
) -> None:
    entry, given = log.wait(settings, trained_by=trained_by), list[str]()
    trained = {name.lower() for name in trained_by}
    for by in order:
        (wait,) = log.found(settings)
        if wait.is_approved:
            break
        # The rule in the words: one, who did not train it; or two different, of whom at most one trained it.
        pair = {*given, by}
        wrong = settings.approval == "one" and by in trained
        wrong |= settings.approval == "two" and len(pair & trained) > 1
        assert (objection(wait, by) is not None) == wrong
        if not wrong:
            log.decide("approval", entry, by)
            given.append(by)
    (wait,) = log.found(settings)
    assert wait.approved_by == tuple(given)
    assert wait.is_approved == (len(given) == (1 if settings.approval == "one" else 2) and bool(set(given) - trained))
    assert wait.is_approved


def test_approvals_that_no_command_would_take_do_not_promote(log: Log) -> None:
    entry = log.wait(TWO, trained_by=("ann", "bob"))
    for by in ("ann", "ANN ", "bob", "ann"):
        log.decide("approval", entry, by)
        assert not log.found(TWO)[0].is_approved
    assert log.found(TWO)[0].approved_by == ("ann", "bob")
    log.decide("approval", entry, "cat")
    assert log.found(TWO)[0].is_approved


@pytest.mark.parametrize("again", ["bob", "BOB", " bob ", "ｂｏｂ"])
def test_the_same_person_counts_once_however_written(log: Log, again: str) -> None:
    entry = log.wait(TWO)
    log.decide("approval", entry)
    log.decide("approval", entry, again)
    (wait,) = log.found(TWO)
    assert not wait.is_approved
    assert objection(wait, again) == f"{again} has approved version 2 already; another person must"
    assert objection(wait, " ANN") is None  # she trained it, and may be one of two


def test_what_is_said_of_who_trained_it(log: Log) -> None:
    log.wait(ONE)
    said = "Ann trained version 2 and cannot be its only approver; another person must approve it"
    assert objection(log.found()[0], "Ann") == said
    assert (
        "waits for one person who did not train it to approve it until 2026-03-08 12:00 UTC" in log.found()[0].in_words
    )
    log.decide("approval", log.wait(TWO), "ann")
    (wait,) = log.found(TWO)
    assert "waits for another person who did not train it to" in wait.in_words
    assert 'UTC; ann approved it: python run.py approve 2 --why "...", or reject' in wait.in_words
    log.decide("approval", wait.entry)
    said = "version 2 is approved by ann and bob, and the next look of the loop or watch promotes it"
    assert log.found(TWO)[0].in_words == said


@pytest.mark.parametrize("kind", ["rejection", "expiry", "promotion", "rollout"])
def test_what_ends_a_wait(log: Log, kind: EntryKind) -> None:
    entry, other = log.wait(), log.wait(version="3")
    log.decide(kind, entry)
    assert [wait.version for wait in log.found()] == ["3"]
    log.decide("approval", entry)  # too late
    assert [wait.entry for wait in log.found()] == [other]
    again = log.wait(days=1)  # the next gate has it wait anew
    assert [wait.entry for wait in log.found()] == [other, again]


@pytest.mark.parametrize("kind", ["approval", "rejection", "expiry"])
def test_what_was_decided_of_an_earlier_wait_or_another_version_does_not_count(log: Log, kind: EntryKind) -> None:
    first, other = log.wait(), log.wait(version="3")
    second = log.wait(days=0.5)
    log.decide(kind, first)
    log.add(kind, "bob", version="2", waiting=other.sha256)
    log.add(kind, "bob", version="2")
    if kind != "approval":
        assert [wait.entry for wait in log.found()] == [other, second]
    assert [wait.approved_by for wait in log.found() if wait.version == "2"] == [()]


def test_other_models_and_refusals_and_rollbacks_change_nothing(log: Log) -> None:
    entry = log.wait()
    log.add("refusal", version="3")
    log.add("rollback", version="2")
    log.record.add("promotion", "ontopic-other", version="2", by="x", why="", facts={})
    assert [wait.entry for wait in log.found()] == [entry]


@pytest.mark.parametrize(
    ("days", "waits"), [(0, True), (6.9999, True), (7, False), (8, False)], ids=["0", "before", "at", "after"]
)
def test_it_expires_and_so_does_what_was_approved(log: Log, days: float, waits: bool) -> None:
    log.decide("approval", log.wait(TWO), days=6.5)
    assert bool(log.found(TWO, days=days)) == waits
    assert len(undecided(log.record.entries(NAME), settings=TWO)) == 1  # until an entry says so


def test_stricter_settings_hold_at_once_and_laxer_ones_for_the_next(log: Log) -> None:
    log.wait(ONE)
    (wait,) = log.found(TWO)
    assert wait.needed == 2
    log.wait(TWO)
    for settings in (ONE, AUTOMATIC):
        assert log.found(settings)[0].needed == 2
    shorter, longer = (ONE.model_copy(update={"expires": n * DAY}) for n in (2, 30))
    assert log.found(shorter)[0].until == NOON + 2 * DAY
    assert log.found(longer)[0].until == NOON + 7 * DAY


@pytest.mark.parametrize(
    ("present", "said"),
    [
        ({}, None),
        ({"champion": "3"}, "the gate held it against version 1, and the champion is version 3 now"),
        ({"champion": ""}, "the gate held it against version 1, and the champion is none now"),
        ({"weights": ("x",)}, "the weights of version 2 have changed since the gate"),
        ({"weights": ("w", "x")}, "the weights of version 2 have changed since the gate"),
        ({"weights": ()}, "version 2 or its weights are gone"),
        ({"policy_sha256": "q"}, "the policy has changed since the gate"),
    ],
    ids=lambda value: "-".join(value) or "same" if isinstance(value, dict) else "",
)
def test_what_changed_meanwhile_makes_it_void(log: Log, present: dict[str, Any], said: str | None) -> None:
    log.wait()
    entries = log.record.entries(NAME)
    assert void(log.found()[0], entries, present=PRESENT.model_copy(update=present)) == said


def test_a_gate_that_ran_again_makes_it_void(log: Log) -> None:
    log.wait()
    log.gate(version="3")
    assert void(log.found()[0], log.record.entries(NAME), present=PRESENT) is None
    log.gate()
    said = void(log.found()[0], log.record.entries(NAME), present=PRESENT)
    assert said == "the gate was run again on version 2 meanwhile (entry 4 of the promotion record)"


def test_a_gate_that_is_not_in_the_record_lets_nothing_pass(log: Log) -> None:
    log.wait(gate_sha256="0" * 64)
    said = void(log.found()[0], log.record.entries(NAME), present=PRESENT)
    assert said == "the gate's entry 000000000000 is not in the promotion record"


@pytest.mark.parametrize(
    ("number", "before", "after"), [(1, '"the gate"', '"no gate"'), (2, '"two"', '"one"'), (3, "bob", "eve")]
)
def test_a_changed_line_makes_it_void(log: Log, number: int, before: str, after: str) -> None:
    log.decide("approval", log.wait(TWO))
    lines = log.record.kept.path.read_text().splitlines()
    assert before in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(before, after)
    log.record.kept.path.write_text("\n".join(lines) + "\n")
    said = void(log.found(TWO)[0], log.record.entries(NAME), present=PRESENT)
    assert said == f"entry {number} of the promotion record was changed after it was written"


def test_a_wait_that_says_nothing_is_told(log: Log) -> None:
    log.add("waiting", until="soon")
    with pytest.raises(UserError, match="entry 1 of the promotion record does not say what waits"):
        log.found()


def test_who_trained_the_same_weights_before_is_remembered(log: Log) -> None:
    log.add("gate", weights_sha256="w", trained_by="ann")
    log.add("gate", weights_sha256="other", trained_by="dan")
    log.add("gate", weights_sha256="w", trained_by=None)
    log.add("gate")
    assert trainers(log.record.entries(NAME), "w", also="bob") == ("ann", "bob")
    log.wait(trained_by=("ann", "bob"))
    assert trainers(log.record.entries(NAME), "w", also="cat") == ("ann", "bob", "cat")
