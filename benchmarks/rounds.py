"""Rounds of retraining: what each costs to register, and what its version costs to load, whole and as adapters.

python benchmarks/rounds.py [--rounds 5] [--steps 2] [--repeats 3] [--model embedded] [--state FOLDER]

Each round trains an adapter of the version before with ORPO, merges it and registers the whole. The base, the first
round's version and the last one's are then loaded in processes of their own, in turns and in float32: the registered
folder, and the base with all adapters up to it merged one after the other, as versions were before they were registered
whole. Both answer the same questions greedily, and the answers are compared. A turn before those that count has the
files read into memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ontopic.config.training_settings import TrainingSettings
from ontopic.models import loading
from ontopic.models.adapter_base import ADAPTER
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import RegisteredModel
from ontopic.state.workspace import Workspace, open_workspace
from ontopic.training.orpo import train_orpo
from ontopic.training.preferences import Preference
from ontopic.training.registering import register_base, register_trained

NAME = "ontopic-rounds"
QUESTIONS = ["how do I block my card", "tell me a joke", "what is my balance", "who won the match", "close my account"]


def pairs(number: int) -> list[Preference]:
    """Eight pairs that are others each round."""
    refusal = "I can only help with banking."
    return [
        Preference(
            question=f"{question} (round {number}, {place})",
            chosen=refusal if place % 2 else f"You can do that in the app, in step {number}.",
            rejected="Once upon a time there was a" if place % 2 else refusal,
            in_scope=place % 2 == 0,
            source="refusal" if place % 2 else "own",
            record_id=str(place),
        )
        for place, question in enumerate((QUESTIONS * 2)[:8])
    ]


def trained(base: RegisteredModel, *, number: int, steps: int, workspace: Workspace) -> tuple[RegisteredModel, float]:
    """The next version, and the seconds that it took to merge and register it."""
    import mlflow

    settings = TrainingSettings(
        beta=1.0, learning_rate=1e-3, epochs=1, batch_size=4, max_rejected_tokens=20, max_steps=steps, save_steps=steps
    )
    work = workspace.training / str(number)
    model = loading.load(base.folder, "float32")
    adapter = train_orpo(model, base.folder, preferences=pairs(number), settings=settings, work=work).adapter
    del model
    began = time.perf_counter()
    with mlflow.start_run() as run:
        version = register_trained(
            adapter, base, precision="float32", workspace=workspace, run_id=run.info.run_id, tags={}
        )
    return version, time.perf_counter() - began


def loaded(folders: list[Path]) -> dict[str, object]:
    """Load a base with adapters merged one after the other; seconds, peak memory in MB, greedy answers."""
    import peft  # not of the time to load

    from ontopic.models.generation import generate

    began = time.perf_counter()
    model = loading.load(folders[0], "float32")
    for adapter in folders[1:]:
        merged = peft.PeftModel.from_pretrained(model.model, str(adapter)).merge_and_unload()
        model = loading.LanguageModel(merged.eval(), model.tokenizer, digest=model.digest)
    seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    answers = [answer.text for answer in generate(model, chats, max_new_tokens=24)]
    return {"seconds": seconds, "peak_mb": peak, "answers": answers}


def measured(folders: list[Path]) -> dict[str, object]:
    """``loaded`` in a process of its own."""
    command = [sys.executable, __file__, "--load", json.dumps([str(folder) for folder in folders])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default=loading.EMBEDDED)
    parser.add_argument("--state", type=Path, help="where the model is converted to; a temporary folder by default")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(loaded([Path(folder) for folder in json.loads(options.load)])))
        return
    with tempfile.TemporaryDirectory() as temporary:
        workspace = open_workspace(options.state or Path(temporary))
        versions, seconds = rounds(options, workspace)
        report(options, versions, seconds)
        inodes = {path.stat().st_ino: path.stat().st_size for path in workspace.root.rglob("*") if path.is_file()}
        print(f"the state folder takes {sum(inodes.values()) / 2**20:.0f} MB")


def rounds(options: argparse.Namespace, workspace: Workspace) -> tuple[list[RegisteredModel], list[float]]:
    """All versions, and the seconds that each took to register."""
    import mlflow

    open_tracking(workspace, NAME)
    folder = loading.resolve(options.model, workspace)
    began = time.perf_counter()
    with mlflow.start_run() as run:
        versions = [register_base(NAME, folder, workspace=workspace, run_id=run.info.run_id, tags={})]
    seconds = [time.perf_counter() - began]
    for number in range(options.rounds):
        version, took = trained(versions[-1], number=number + 2, steps=options.steps, workspace=workspace)
        versions.append(version)
        seconds.append(took)
    return versions, seconds


def report(options: argparse.Namespace, versions: list[RegisteredModel], seconds: list[float]) -> None:
    """Print a line a version."""
    sides = {
        version.version: (
            [version.folder],
            [versions[0].folder, *(each.folder / ADAPTER for each in versions[1 : number + 1])],
        )
        for number, version in enumerate(versions)
        if number in (0, 1, len(versions) - 1)
    }
    took = dict(zip((version.version for version in versions), seconds, strict=True))
    found: dict[tuple[str, int], list[dict[str, object]]] = {}
    for turn in range(options.repeats + 1):
        for version, both in sides.items():
            for side, folders in enumerate(both):
                if turn:
                    found.setdefault((version, side), []).append(measured(folders))
                else:
                    measured(folders)
    print("version | registered in s | loaded in s: whole, as adapters | peak MB: whole, as adapters | same answers")
    for version in sides:
        whole, stacked = found[version, 0], found[version, 1]
        times = [statistics.median(float(str(each["seconds"])) for each in side) for side in (whole, stacked)]
        peaks = [statistics.median(float(str(each["peak_mb"])) for each in side) for side in (whole, stacked)]
        same = sum(
            one == other
            for one, other in zip(whole[0]["answers"], stacked[0]["answers"], strict=True)  # type: ignore
        )
        print(
            f"{version:>7} | {took[version]:15.1f} | {times[0]:.2f}, {times[1]:.2f} "
            f"| {peaks[0]:.0f}, {peaks[1]:.0f} | {same} of {len(QUESTIONS)}"
        )


if __name__ == "__main__":
    main()
