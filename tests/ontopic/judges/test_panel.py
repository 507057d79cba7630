"""The panel: how votes become a verdict, and how far the judges agree."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from loopback import ROOT, ChatServer, Reply
from pydantic import ValidationError

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice, PanelJudgeSettings
from ontopic.endpoint.account import Account
from ontopic.errors import UserError
from ontopic.judges.judge import Judge
from ontopic.judges.opening import open_judge
from ontopic.judges.panel import PanelJudge, Rule
from ontopic.progress import Advance
from ontopic.records import Outcome, Record, Verdict
from ontopic.state.workspace import Workspace
from ontopic.statistics.agreement import agreement, agreement_of_votes
from ontopic.statistics.rates import Rate

OUTCOMES: dict[str, Outcome] = {"p": "pass", "f": "fail", "u": "unjudged"}


@dataclass
class Scripted:
    """A judge whose verdicts are known: one letter a record (p, f or u)."""

    id: str
    script: str
    in_scope: bool | None = None
    declined: bool | None = None
    score: float | None = None
    account: Account = field(default_factory=Account)

    def judge(self, records: Sequence[Record], advance: Advance | None = None) -> list[Verdict]:
        if advance:
            for _ in records:
                advance(1)
        return [self.verdict(OUTCOMES[letter]) for letter in self.script[: len(records)]]

    def verdict(self, outcome: Outcome) -> Verdict:
        if outcome == "unjudged":
            return Verdict(outcome=outcome, score=None, explanation="", judge_id=self.id, cause="it broke")
        score = float(outcome == "pass") if self.score is None else self.score
        return Verdict(
            outcome=outcome,
            score=score,
            explanation=f"{self.id} says so.",
            judge_id=self.id,
            in_scope=self.in_scope,
            declined=self.declined,
        )


def panel(rule: Rule, *scripts: str) -> PanelJudge:
    return PanelJudge(rule, [Scripted(f"judge-{i}", script) for i, script in enumerate(scripts)])


def judged(judge: Judge, n: int) -> list[Verdict]:
    return judge.judge([Record(question="q", answer="a")] * n)


def verdicts(script: str) -> list[Verdict]:
    return Scripted("judge", script).judge([Record(question="q", answer="a")] * len(script))


@pytest.mark.parametrize(
    ("rule", "letters", "outcome"),
    [
        ("majority", "ppf", "pass"),
        ("majority", "pff", "fail"),
        ("majority", "ppu", "pass"),
        ("majority", "pfu", "unjudged"),
        ("majority", "puu", "unjudged"),
        ("majority", "uuu", "unjudged"),
        ("majority", "pf", "unjudged"),
        ("majority", "pu", "unjudged"),
        ("unanimous", "ppp", "pass"),
        ("unanimous", "ppf", "fail"),
        ("unanimous", "fff", "fail"),
        ("unanimous", "ppu", "pass"),
        ("unanimous", "pfu", "fail"),
        ("unanimous", "puu", "unjudged"),
        ("unanimous", "fuu", "unjudged"),
        ("unanimous", "pu", "unjudged"),
    ],
)
def test_the_rule_makes_one_verdict_of_the_votes(rule: Rule, letters: str, outcome: Outcome) -> None:
    judge = panel(rule, *letters)
    (verdict,) = judged(judge, 1)
    assert verdict.outcome == outcome
    assert verdict.judge_id == judge.id
    assert (verdict.score is None, verdict.cause is None) == (outcome == "unjudged", outcome != "unjudged")


def test_an_unjudged_record_names_the_cause() -> None:
    assert judged(panel("majority", "p", "f"), 1)[0].cause == "the judges are split, 1 to 1"
    (verdict,) = judged(panel("majority", "p", "u", "u"), 1)
    assert verdict.cause == "only 1 of 3 judges could judge it (judge-1: it broke; judge-2: it broke)"


def test_the_explanation_names_who_said_what() -> None:
    (verdict,) = judged(panel("majority", "p", "p", "f"), 1)
    assert verdict.explanation == (
        "2 of 3 pass it. judge-0: pass, judge-0 says so.; judge-1: pass, judge-1 says so.; "
        "judge-2: fail, judge-2 says so."
    )


def test_the_score_is_the_mean_held_on_the_outcomes_side() -> None:
    scores = {"p": 0.6, "f": 0.3}

    def score(rule: Rule, letters: str) -> float | None:
        members = [Scripted(f"{i}", letter, score=scores[letter]) for i, letter in enumerate(letters)]
        return judged(PanelJudge(rule, members), 1)[0].score

    assert score("majority", "ppf") == pytest.approx(0.5)
    assert score("majority", "ppppf") == pytest.approx(0.54)
    assert score("unanimous", "ppp") == pytest.approx(0.6)
    assert 0.4999 < (score("unanimous", "pppppf") or 0) < 0.5


def test_scope_and_declination_are_what_most_say() -> None:
    says = [(True, False), (True, None), (False, None), (None, True)]
    members = [Scripted(f"{i}", "p", scope, declined) for i, (scope, declined) in enumerate(says)]
    (verdict,) = judged(PanelJudge("majority", members), 1)
    assert (verdict.in_scope, verdict.declined) == (True, None)


def test_progress_counts_each_record_once() -> None:
    done: list[int] = []
    panel("majority", "ppppp", "ppppp", "ppppp").judge([Record(question="q", answer="a")] * 5, done.append)
    assert (sum(done), set(done)) == (5, {1})


def test_the_accounts_add_up() -> None:
    def account(*accounts: Account) -> Account:
        return PanelJudge("majority", [Scripted(f"{i}", "", account=a) for i, a in enumerate(accounts)]).account

    paid, local = Account(2, 30, 4, 1, 0.5), Account()
    assert account(paid, local, paid) == Account(4, 60, 8, 2, 1.0)
    assert account(paid, Account(1, 10, 1, 0, None)).usd is None
    assert account(local, local).usd is None


def test_the_id_is_of_the_rule_and_the_members_whatever_their_order() -> None:
    a, b, c = (Scripted(name, "p") for name in "abc")
    ids = {
        PanelJudge("majority", [a, b]).id,
        PanelJudge("unanimous", [a, b]).id,
        PanelJudge("majority", [a, c]).id,
    }
    assert len(ids) == 3
    assert PanelJudge("majority", [b, a]).id in ids
    assert all(name.startswith(("panel-majority-", "panel-unanimous-")) for name in ids)


def test_a_panel_of_one_and_a_double_vote_are_user_errors() -> None:
    with pytest.raises(UserError, match="at least two judges"):
        PanelJudge("majority", [Scripted("a", "p")])
    with pytest.raises(UserError, match="the judge a twice"):
        PanelJudge("majority", [Scripted("a", "p"), Scripted("b", "p"), Scripted("a", "p")])


def test_agreement_counts_all_records_so_far() -> None:
    judge = panel("majority", "pfpf", "pfff", "pfpu")
    judged(judge, 4)
    first = judge.agreement()
    assert first.n == 4
    judged(judge, 4)
    assert judge.agreement().n == 8
    assert judge.agreement().high - judge.agreement().low < first.high - first.low


def test_alpha_is_that_of_the_reference_implementation() -> None:
    random = np.random.default_rng(1)
    letters = random.choice(list("pfu"), size=(4, 200), p=[0.6, 0.3, 0.1])
    codes = np.select([letters == "p", letters == "f"], [1.0, 0.0], np.nan)
    ours = agreement([verdicts("".join(row)) for row in letters])
    assert ours.value == pytest.approx(krippendorff.alpha(codes, level_of_measurement="nominal"))
    assert ours.n == int((np.isfinite(codes).sum(axis=0) >= 2).sum())
    assert ours.low < ours.value < ours.high


def test_known_agreements_give_known_alphas() -> None:
    assert agreement_of_votes({(3, 0): 50, (0, 3): 50}).value == 1.0
    assert agreement_of_votes({(1, 1): 50}).value == pytest.approx(-0.98)  # 1 - 50 / (2 * 50 * 50 / 99)


def test_full_agreement_on_few_records_is_not_certain() -> None:
    few, many = (agreement_of_votes({(2, 0): n, (0, 2): n}) for n in (3, 300))
    assert (few.value, few.high) == (1.0, 1.0)
    assert few.low < 0.5 < 0.95 < many.low < 1.0


def test_where_all_say_the_same_or_one_judges_alone_alpha_is_unknown() -> None:
    for votes, n in (({(2, 0): 9}, 9), ({(1, 0): 9, (0, 1): 9}, 0), ({}, 0)):
        unknown: Rate = agreement_of_votes(votes)
        assert math.isnan(unknown.value)
        assert (unknown.low, unknown.high, unknown.n) == (-1.0, 1.0, n)


def test_the_interval_covers_the_true_alpha() -> None:
    patterns, shares = [(3, 0), (2, 1), (1, 2), (0, 3)], np.array([0.365, 0.135, 0.135, 0.365])
    true = agreement_of_votes({vote: round(share * 10**6) for vote, share in zip(patterns, shares, strict=True)}).value
    samples = np.random.default_rng(0).multinomial(100, shares, size=1200)
    rates = [agreement_of_votes(dict(zip(patterns, sample.tolist(), strict=True))) for sample in samples]
    # Of an interval that covers 90 %, 1,200 samples would say so in all runs but a few in 10,000.
    assert 0.93 <= np.mean([rate.low <= true <= rate.high for rate in rates]) <= 0.98


def test_a_configuration_opens_its_panel(chat_server: ChatServer, banking: Policy, tmp_path: Path) -> None:
    member = {"kind": "openai", "model": "judge-model", "base_url": chat_server.url}
    members = [member, member | {"template": "naive"}]
    settings = PanelJudgeSettings.model_validate({"kind": "panel", "rule": "unanimous", "judges": members})
    chat_server.reply = lambda request: Reply(json.dumps({"explanation": "", "verdict": "pass"}))
    judge = open_judge(
        JudgeChoice(settings=settings, prompts=ROOT / "configs" / "judge_prompts"),
        banking,
        workspace=Workspace(root=tmp_path),
    )
    (verdict,) = judged(judge, 1)
    assert (verdict.outcome, verdict.judge_id) == ("pass", judge.id)
    assert judge.account.requests == 2
    with pytest.raises(ValidationError, match="at least 2 items"):
        PanelJudgeSettings.model_validate({"kind": "panel", "judges": [member]})
