"""The commands ``approve`` and ``reject``, and ``promote`` where approval is asked for, on a state folder."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bank import Bank, open_bank
from loopback import ROOT
from typer.testing import Result

from ontopic.errors import UserError
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.sign_off import SignOff
from ontopic.state.whole_file import folder_sha256

DAY = timedelta(days=1)


@pytest.fixture
def bank(state_before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return open_bank(state_before, tmp_path)


def test_one_person_approves_and_it_is_the_champion_at_once(bank: Bank) -> None:
    wait = bank.wait()
    assert "version 2 passed the gate against version 1 and waits for one person" in shown(bank.called("status"))
    done = bank.called("approve", "challenger", "--why", "read the page\n", "--by", "bob")
    assert done.output == "version 2 is the champion in place of 1, approved by bob\n", done.exception
    last = bank.registry.promotions()[-1]
    assert (bank.registry.champion(), last.by, last.why) == ("2", "bob", "approved: read the page")
    assert bank.kinds() == ["gate", "waiting", "approval", "promotion"]
    gate, waiting, approval, promotion = bank.record.entries()
    for entry in (approval, promotion):
        assert entry.facts["gate_sha256"] == gate.sha256 == wait.terms.gate_sha256
        assert entry.facts["waiting"] == waiting.sha256
        assert entry.facts["weights_sha256"] == folder_sha256(bank.weights.parent)
    assert (approval.by, promotion.facts["approvals"]) == ("bob", [approval.sha256])
    assert approval.facts["account"]
    assert "waits" not in shown(bank.called("status")).replace("wait for theirs", "")


def test_two_persons_of_whom_one_trained_it(bank: Bank) -> None:
    bank.configure(approval="two")
    bank.wait()
    first = bank.called("approve", "2", "--why", "mine", "--by", "ann").output
    assert first.startswith("ann approves version 2, gate ")
    assert "waits for another person who did not train it to approve it until" in first
    assert bank.registry.champion() == "1"
    assert "ann approved it" in shown(bank.called("status"))
    assert "approved by ann and bob" in bank.called("approve", "2", "--why", "seen", "--by", "bob").output
    assert bank.registry.promotions()[-1].why == "approved: mine; seen"


def test_who_is_rejected_stays_a_challenger(bank: Bank) -> None:
    bank.wait()
    done = bank.called("reject", "2", "--why", "it is rude", "--by", "bob")
    assert done.output == "version 2 is rejected by bob; version 1 stays the champion\n"
    assert (bank.registry.champion(), bank.registry.version("challenger")) == ("1", "2")
    again = str(bank.called("approve", "2", "--why", "w", "--by", "cat").exception)
    assert "does not wait for approval: bob rejected it, it is rude (" in again
    assert bank.kinds() == ["gate", "waiting", "rejection"]


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("9", "--why", "w"), "'ontopic-banking' has no version or alias '9'; its versions are: 1, 2"),
        (("1", "--why", "w"), "version 1 of 'ontopic-banking' does not wait for approval; `python run.py status`"),
        (("2", "--why", " "), "--why is empty"),
        (("2", "--why", "w", "--by", " "), "--by is empty"),
    ],
    ids=["no version", "does not wait", "why", "by"],
)
def test_a_mistake_is_one_sentence(bank: Bank, verb: str, arguments: tuple[str, ...], said: str) -> None:
    bank.wait()
    failed(bank, (verb, *arguments), said)
    assert bank.kinds() == ["gate", "waiting"]


def test_the_wrong_person_is_told(bank: Bank) -> None:
    bank.configure(approval="two")
    bank.wait()
    bank.called("approve", "2", "--why", "w", "--by", "bob")
    failed(bank, ("approve", "2", "--why", "w", "--by", "Bob"), "Bob has approved version 2 already; another person")
    bank.configure(approval="one")
    bank.wait()
    failed(bank, ("approve", "2", "--why", "w", "--by", "ann"), "ann trained version 2 and cannot be its only approver")
    assert bank.registry.champion() == "1"


def change_weights(bank: Bank) -> None:
    bank.weights.write_text("others")


def lose_weights(bank: Bank) -> None:
    bank.weights.unlink()
    bank.weights.parent.rmdir()


def change_policy(bank: Bank) -> None:
    path = bank.config.parent / "policy.yaml"
    path.write_text(path.read_text().replace("leak: 0.2", "leak: 0.9"))


def move_champion(bank: Bank) -> None:
    bank.registry.ensure_champion("1")
    name = bank.policy.registered_model
    bank.registry._tables.delete_alias("champion")  # as in MLflow's own pages
    assert open_registry(bank.workspace, name).champion() == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda bank: bank.gate(), "the gate was run again on version 2 meanwhile (entry 4 of the promotion record)"),
        (change_weights, "the weights of version 2 have changed since the gate"),
        (lose_weights, "version 2 or its weights are gone"),
        (change_policy, "the policy has changed since the gate"),
        (move_champion, "the gate held it against version 1, and the champion is none now"),
    ],
    ids=["gate", "weights", "no weights", "policy", "champion"],
)
def test_what_changed_meanwhile_voids_what_was_approved(bank: Bank, change: Any, said: str) -> None:
    bank.configure(approval="two")
    bank.wait()
    assert bank.called("approve", "2", "--why", "w", "--by", "bob").exit_code == 0
    change(bank)
    failed(
        bank,
        ("approve", "2", "--why", "w", "--by", "cat"),
        f"version 2 of 'ontopic-banking' waits for approval no longer: {said}",
    )
    assert bank.record.entries()[-1].kind == "expiry" and bank.record.entries()[-1].why == said
    failed(
        bank,
        ("approve", "2", "--why", "w", "--by", "cat"),
        f"version 2 of 'ontopic-banking' does not wait for approval: {said}",
    )
    assert bank.registry.champion() != "2"


def test_an_approval_that_has_expired_is_none(bank: Bank) -> None:
    bank.configure(approval="two", expires="2d")
    asked = datetime.now(UTC) - 2 * DAY
    bank.wait(asked)
    bank.sign_off(asked + DAY).approve("2", by="bob", why="w", account="bob")
    said = f"nobody had decided by {asked + 2 * DAY:%Y-%m-%d %H:%M} UTC (promotion.expires)"
    failed(
        bank,
        ("approve", "2", "--why", "w", "--by", "cat"),
        f"version 2 of 'ontopic-banking' waits for approval no longer: {said}",
    )
    assert bank.registry.champion() == "1"
    bank.wait()  # the next gate; the old approval does not count for it
    bank.called("approve", "2", "--why", "w", "--by", "cat")
    assert bank.registry.champion() == "1"


def test_by_hand_approval_is_gone_round_only_where_it_is_said(bank: Bank) -> None:
    wrong = "version 2 needs approval (promotion.approval), which is given by python run.py approve 2"
    failed(bank, ("promote", "2", "--why", "w"), wrong)
    bank.wait()
    bank.configure(approval="automatic")  # another configuration does not help what waits
    failed(bank, ("promote", "2", "--why", "w"), wrong)
    done = bank.called("promote", "2", "--why", "an outage", "--by", "eve", "--override")
    assert "version 2 is the champion in place of 1, by eve; its gate: passed" in done.output
    assert bank.registry.promotions()[-1].why == "override of the approval: an outage"
    last = bank.record.entries()[-1]
    assert (last.kind, last.by, last.why) == ("promotion", "eve", "override of the approval: an outage")
    assert (last.facts["override"], last.facts["before"], last.facts["gate"]) == (True, "1", "passed")
    assert bank.sign_off().waiting() == []
    failed(bank, ("promote", "2", "--why", "w"), "version 2 of 'ontopic-banking' is the champion already")
    failed(
        bank, ("approve", "2", "--why", "w"), "version 2 of 'ontopic-banking' does not wait for approval: eve promoted"
    )


@pytest.mark.parametrize("approval", ["one", "two"])
def test_many_who_approve_at_once_are_heard_one_after_the_other(bank: Bank, approval: str) -> None:
    bank.configure(approval=approval)
    bank.wait()

    def approve(by: str) -> str:
        try:
            wait, promoted = bank.sign_off().approve("2", by=by, why="w", account=by)
        except UserError as error:
            return str(error)
        return f"{len(wait.approved_by)} {promoted}"

    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(approve, [f"person {i % 6}" for i in range(12)]))
    needed = 1 if approval == "one" else 2
    assert sorted(each for each in said if each[0].isdigit()) == [f"{i + 1} {i + 1 == needed}" for i in range(needed)]
    assert bank.kinds() == ["gate", "waiting", *["approval"] * needed, "promotion"]
    assert len({entry.by for entry in bank.record.entries() if entry.kind == "approval"}) == needed
    assert bank.registry.champion() == "2"


def killed(bank: Bank, when: str) -> None:
    """Approve in a process that ends at some point of the promotion."""

    def end(*_: Any, **given: Any) -> None:
        if when == "after it":
            made(*_, **given)
        os._exit(9)

    made = ModelRegistry._made
    if when == "before its entry":
        SignOff._promote = end  # type: ignore[method-assign, assignment]
    else:
        ModelRegistry._made = end  # type: ignore[method-assign, assignment]
    bank.sign_off().approve("2", by="bob", why="w", account="bob")


@pytest.mark.parametrize("when", ["before its entry", "before the alias moves", "after it"])
@pytest.mark.parametrize("mended_by", ["settle", "approve"])
def test_a_promotion_that_was_killed_is_completed(bank: Bank, when: str, mended_by: str) -> None:
    bank.wait()
    victim = multiprocessing.get_context("fork").Process(target=killed, args=(bank, when))
    victim.start()
    victim.join()
    assert victim.exitcode == 9
    assert bank.kinds() == ["gate", "waiting", "approval", *(["promotion"] * (when != "before its entry"))]
    assert bank.registry.champion() == ("2" if when == "after it" else "1")
    if mended_by == "settle":
        assert [entry.by for entry in bank.sign_off().settle().promoted] == ["bob"] * (when != "after it")
    else:
        bank.called("approve", "2", "--why", "w", "--by", "bob")
    assert (bank.registry.champion(), bank.registry.promotions()[-1].by) == ("2", "bob")
    assert bank.kinds() == ["gate", "waiting", "approval", "promotion"]
    before = bank.registry.promotions()
    assert bank.sign_off().settle().promoted == []
    bank.registry.roll_back("the canary", why="worse")  # which no later look undoes
    assert bank.sign_off().settle().promoted == []
    assert (bank.registry.champion(), bank.registry.promotions()[:-1]) == ("1", before)


def test_what_was_approved_and_changed_before_it_was_promoted_is_not_promoted(bank: Bank) -> None:
    wait = bank.wait()
    facts = {"waiting": wait.entry.sha256}
    bank.record.add("approval", bank.policy.registered_model, version="2", by="bob", why="w", facts=facts)
    change_weights(bank)
    settled = bank.sign_off().settle()
    assert [why for _, why in settled.ended] == ["the weights of version 2 have changed since the gate"]
    assert bank.registry.champion() == "1"


def test_a_look_leaves_what_waits_and_ends_what_has_expired(bank: Bank) -> None:
    assert bank.sign_off().settle().waiting == []
    assert not Path(f"{bank.workspace.promotion_record}.deciding").exists()
    now = datetime.now(UTC)
    bank.wait(now)
    assert [wait.version for wait in bank.sign_off(now + 6 * DAY).settle().waiting] == ["2"]
    (over,) = bank.sign_off(now + 7 * DAY).settle().ended
    assert "(promotion.expires)" in over[1]
    assert bank.kinds() == ["gate", "waiting", "expiry"]
    assert bank.sign_off(now + 8 * DAY).settle().ended == []


def test_status_says_what_is_void(bank: Bank) -> None:
    bank.wait()
    bank.gate()
    assert "void of version 2: the gate was run again on version 2 meanwhile" in shown(bank.called("status"))
    assert bank.kinds() == ["gate", "waiting", "gate"]  # who only looks writes nothing


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_it_imports_no_framework(bank: Bank, verb: str) -> None:
    bank.wait()
    code = (
        "import json, runpy, sys\n"
        "sys.argv[0] = 'run.py'\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "heavy = {'torch', 'transformers', 'evidently', 'zenml', 'mlflow', 'bentoml', 'sklearn', 'scipy', 'pandas'}\n"
        "print('imported:', *heavy & set(sys.modules))"
    )
    options = ["--why", "w", "--by", "bob", "--config", str(bank.config), "--state", str(bank.workspace.root)]
    command = [sys.executable, "-c", code, verb, "2", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def failed(bank: Bank, arguments: tuple[str, ...], said: str) -> None:
    done = bank.called(*arguments)
    assert isinstance(done.exception, UserError), (done.exception, done.output)
    assert str(done.exception).startswith(said)
    assert "\n" not in str(done.exception)


def shown(result: Result) -> str:
    return " ".join(result.output.split())
