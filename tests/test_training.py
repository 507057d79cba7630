"""Training: a run that was killed goes on from its last whole checkpoint."""

from __future__ import annotations

from pathlib import Path

from ontopic.models import load
from ontopic.preferences import Preference
from ontopic.settings import TrainingSettings
from ontopic.training import TrainingResult, preference_row, train_orpo

PAIRS = [
    Preference("how do I block my card", "Freeze it in the app.", "I can only help with banking.", True, "own", "1"),
    Preference("tell me a joke", "I can only help with banking.", "Why did the chicken cross", False, "refusal", "2"),
]


def train(model_folder: Path, work: Path, max_steps: int, logged: dict[int, dict[str, float]]) -> TrainingResult:
    settings = TrainingSettings(
        beta=1.0, learning_rate=1e-3, epochs=1, batch_size=2, max_rejected_tokens=4, max_steps=max_steps, save_steps=1
    )

    def log(metrics: dict[str, float], step: int) -> None:
        logged[step] = logged.get(step, {}) | metrics

    return train_orpo(load(model_folder), model_folder, PAIRS, settings, work, log)


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(model_folder: Path, tmp_path: Path) -> None:
    first: dict[int, dict[str, float]] = {}
    assert train(model_folder, tmp_path / "work", 2, first).resumed_from == 0
    # What a kill leaves while the third checkpoint is written: the adapter, and not yet the trainer's state.
    half = tmp_path / "work" / "checkpoints" / "checkpoint-3"
    half.mkdir()
    (half / "adapter_config.json").write_text("{")

    second: dict[int, dict[str, float]] = {}
    result = train(model_folder, tmp_path / "work", 4, second)
    assert (result.resumed_from, result.steps) == (2, 4)
    assert [step for step, metrics in sorted(second.items()) if "loss" in metrics] == [3, 4]
    assert {"loss", "rewards/margins", "log_odds_ratio", "learning_rate", "tokens_per_second"} <= set(second[4])
    assert load(result.adapter).digest


def test_a_rejected_answer_is_cut_after_it_departs_from_the_chosen_one(model_folder: Path) -> None:
    model = load(model_folder)
    refusal = "I'm sorry, I can only help with banking questions."
    said = f"{refusal} But here is a joke: why did the chicken cross the road?"
    assert preference_row(model, Preference("joke", refusal, said, False, "", ""), 3)["rejected"] == (
        f"{refusal} But here is"
    )
    row = preference_row(model, Preference("joke", refusal, "Why did the chicken cross?", False, "", ""), 3)
    assert (row["rejected"], row["chosen"]) == ("Why did the", refusal)
