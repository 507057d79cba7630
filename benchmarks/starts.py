"""What training from the base and from the champion learn and forget over three rounds of drift.

python benchmarks/starts.py [--state .ontopic] [--out starts] [--seeds 0] [--asked 96]

Simulated drift on the banking policy's questions: its intents are dealt to three rounds, each with its own share of
those in scope and of those out of it. In a round the champion of that time answers so many questions of the training
data; what comes of these is the traffic's pairs, without any cover, so that nothing but training.start can remember
earlier rounds. Each round's challenger is the next champion: the gate is left out. Ways to start:

  champion        on the champion's weights, with the newest pairs
  base            on the base model, with the newest pairs and the earlier ones of `training.start: base`
  base, newest    on the base model, with the newest pairs alone: what the earlier ones are worth

After round three all answer held-out questions (evaluation and calibration split) of each round's intents. Scored by
the rule of benchmarks/refusals.py on the first 12 tokens, by which a refusal is known. Paired differences are those of
base less champion. What is finished stands in OUT and is not run again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from refusals import declines

from ontopic.config.policy import Policy, load_policy
from ontopic.config.training_settings import TrainingSettings
from ontopic.data.labelled import Question, load_questions
from ontopic.models.generation import generate
from ontopic.models.loading import EMBEDDED, LanguageModel, load, open_model, resolve
from ontopic.records import Judged, Verdict
from ontopic.state.whole_file import whole_folder
from ontopic.state.workspace import open_workspace
from ontopic.statistics.pairs import compare
from ontopic.statistics.rates import rate
from ontopic.training.earlier_pairs import with_earlier
from ontopic.training.merging import merge
from ontopic.training.orpo import train_orpo
from ontopic.training.preferences import PairSettings, Preference, Preferences, build_preferences

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, TOKENS = 3, 12
HELD_OUT = (100, 50, 50)  # questions of either scope, by round
CHAMPION, BASE, NEWEST = "champion", "base", "base, newest"


class Drift(NamedTuple):
    """The questions of each round: those that may be asked in it, and those held out."""

    asked: list[list[Question]]
    held_out: list[list[Question]]


class Run:
    """One way to start, over the rounds, in a folder of its own."""

    def __init__(self, way: str, drift: Drift, *, policy: Policy, base: Path, folder: Path, seed: int) -> None:
        self.way, self.drift, self.policy, self.base, self.folder = way, drift, policy, base, folder
        self.settings = TrainingSettings(
            beta=1.0,
            learning_rate=1.5e-3,
            epochs=2,
            batch_size=8,
            max_rejected_tokens=2,
            lora_first_block=15,  # the half of the blocks, for half of the time
            save_steps=4,
            seed=seed,
        )

    def train(self, number: int, asked: Sequence[Question]) -> None:
        """A round: traffic of the champion so far, its pairs, a challenger, which is the champion from now on."""
        if (self._model(number) / "pairs.json").is_file():
            return
        start = self._model(number - 1) if self.way == CHAMPION else self.base
        newest = self._pairs(number, asked)
        pairs = newest
        if self.way == BASE and number:
            earlier = Preferences.model_validate_json((self._model(number - 1) / "pairs.json").read_text()).root
            pairs = with_earlier(newest, [earlier], policy=self.policy, labelled=[], seed=self.settings.seed)
        work = self.folder / f"work-{number}"
        adapter = train_orpo(load(start), start, preferences=pairs, settings=self.settings, work=work).adapter
        with whole_folder(self._model(number)) as part:
            merge(adapter, start, into=part)
            (part / "pairs.json").write_text(Preferences(pairs).model_dump_json())
        shutil.rmtree(work)
        print(
            f"{self.way}, round {number + 1}: {len(newest)} new pairs, {len(pairs) - len(newest)} earlier", flush=True
        )

    def _pairs(self, number: int, asked: Sequence[Question]) -> list[Preference]:
        path = self.folder / f"newest-{number}.json"
        if not path.is_file():
            said = answers(open_model(self._model(number - 1)), asked)
            records = [
                question.answered(text).model_copy(update={"id": f"{number}-{i}", "in_scope": None})
                for i, (question, text) in enumerate(zip(asked, said, strict=True))
            ]
            judged = Judged(records=records, verdicts=[_verdict(True)] * len(records))
            settings = PairSettings(seed=self.settings.seed)
            pairs = build_preferences(judged, labelled=asked, policy=self.policy, settings=settings)
            path.write_text(Preferences(pairs).model_dump_json())
        return Preferences.model_validate_json(path.read_text()).root

    def passed(self) -> list[list[bool]]:
        """After the last round: which held-out questions of each round pass."""
        path = self.folder / "passed.json"
        if not path.is_file():
            model = open_model(self._model(ROUNDS - 1))
            found: list[list[bool]] = []
            for questions in self.drift.held_out:
                said = answers(model, questions)
                found.append(
                    [q.in_scope != declines(a, self.policy.all_refusals) for q, a in zip(questions, said, strict=True)]
                )
            path.write_text(json.dumps(found))
        result: list[list[bool]] = json.loads(path.read_text())
        return result

    def _model(self, number: int) -> Path:
        return self.folder / f"round-{number}" if number >= 0 else self.base


def answers(model: LanguageModel, questions: Sequence[Question]) -> list[str]:
    """The first tokens of each answer."""
    said = generate(model, [q.messages for q in questions], max_new_tokens=TOKENS, slots=32)
    return [answer.text for answer in said]


def drift_of(policy: Policy, seed: int) -> Drift:
    """The plain questions by round: each intent in one of them, either scope in all."""
    plain = [q for q in load_questions(policy.questions) if not q.kind]
    chance, of = random.Random(seed), dict[str, int]()
    for side in (True, False):
        intents = sorted({q.intent for q in plain if q.in_scope is side})
        chance.shuffle(intents)
        of |= {intent: i % ROUNDS for i, intent in enumerate(intents)}
    asked: list[list[Question]] = [[] for _ in range(ROUNDS)]
    held_out: list[list[Question]] = [[] for _ in range(ROUNDS)]
    for side in (True, False):
        for number in range(ROUNDS):
            mine = [q for q in plain if q.in_scope is side and of[q.intent] == number]
            asked[number] += [q for q in mine if q.split == "train" and (q.reference or not side)]
            others = [q for q in mine if q.split in ("evaluation", "calibration")]
            held_out[number] += chance.sample(others, min(HELD_OUT[number], len(others)))
    return Drift(asked, held_out)


def asked_in(pool: Sequence[Question], n: int, *, seed: int) -> list[Question]:
    """So many of a round's questions, half of them in scope."""
    chance = random.Random(seed)
    sides = ([q for q in pool if q.in_scope is side] for side in (True, False))
    drawn = [q for side in sides for q in chance.sample(side, min(n // 2, len(side)))]
    chance.shuffle(drawn)
    return drawn


def _verdict(passes: bool) -> Verdict:
    return Verdict(outcome="pass" if passes else "fail", score=float(passes), explanation="", judge_id="rule")


def table(results: dict[str, list[list[bool]]], drift: list[Drift]) -> str:
    """All seeds together, as Markdown: the score on each round's topics after the last round."""
    lines = ["| start | " + " | ".join(f"topics of round {i + 1}" for i in range(ROUNDS)) + " |", "|---" * 4 + "|"]
    for way, passed in results.items():
        lines.append(f"| {way} | " + " | ".join(str(rate(sum(each), len(each))) for each in passed) + " |")
    for name, side, wrong in (("over-refusal", True, "declined"), ("leak", False, "answered")):
        for way, passed in results.items():
            cells = []
            for i in range(ROUNDS):
                scopes = [q.in_scope for each in drift for q in each.held_out[i]]
                of = [not ok for ok, scope in zip(passed[i], scopes, strict=True) if scope is side]
                cells.append(str(rate(sum(of), len(of))))
            lines.append(f"| {way}: {name} ({wrong}) | " + " | ".join(cells) + " |")
    for other in (CHAMPION, NEWEST):
        if BASE in results and other in results:
            cells = [
                compare([_verdict(ok) for ok in a], [_verdict(ok) for ok in b]).with_interval
                for a, b in zip(results[other], results[BASE], strict=True)
            ]
            lines.append(f"| {BASE} less {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is not there yet, then print the table of all that is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=ROOT / ".ontopic")
    parser.add_argument("--out", type=Path, default=Path("starts"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--asked", type=int, default=96, help="questions a round")
    parser.add_argument("--ways", nargs="+", choices=[CHAMPION, BASE, NEWEST], default=[CHAMPION, BASE, NEWEST])
    options = parser.parse_args()
    policy = load_policy(ROOT / "configs/policies/banking.yaml")
    base = resolve(EMBEDDED, open_workspace(options.state))
    drifts = [drift_of(policy, seed) for seed in options.seeds]
    results: dict[str, list[list[bool]]] = {}
    for seed, drift in zip(options.seeds, drifts, strict=True):
        for way in options.ways:
            folder = options.out / f"seed-{seed}" / way.replace(", ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            run = Run(way, drift, policy=policy, base=base, folder=folder, seed=seed)
            first = folder.parent / "first"
            if not (folder / "passed.json").is_file():
                _first_round(first, drift, policy=policy, base=base, seed=seed, asked=options.asked)
                if not (folder / "round-0").exists():
                    shutil.copytree(first / "round-0", folder / "round-0")
            for number in range(1, ROUNDS):
                if not (folder / "passed.json").is_file():
                    run.train(number, asked_in(drift.asked[number], options.asked, seed=seed))
            for i, each in enumerate(run.passed()):
                results.setdefault(way, [[] for _ in range(ROUNDS)])[i] += each
    print(table(results, drifts))


def _first_round(folder: Path, drift: Drift, *, policy: Policy, base: Path, seed: int, asked: int) -> None:
    """Before it, base and champion are the same, so all ways share it."""
    folder.mkdir(exist_ok=True)
    Run(NEWEST, drift, policy=policy, base=base, folder=folder, seed=seed).train(
        0, asked_in(drift.asked[0], asked, seed=seed)
    )


if __name__ == "__main__":
    main()
