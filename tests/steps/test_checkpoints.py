"""A training that is killed goes on elsewhere from what is in the artifact store, to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from loopback import ROOT
from object_store import BUCKET, object_store
from safetensors.torch import load_file
from whole_models import tiny_model
from zenml.artifact_stores import BaseArtifactStore
from zenml.enums import StackComponentType

from ontopic.config.training_settings import TrainingSettings
from ontopic.models.loading import load
from ontopic.training.orpo import TrainingResult, train_orpo
from ontopic.training.preferences import Preference
from steps.checkpoints import KeptCheckpoints

SETTINGS = TrainingSettings.model_validate(
    {"beta": 0.5, "learning_rate": 1e-2, "epochs": 2, "batch_size": 2, "max_rejected_tokens": 4, "save_steps": 1}
)
PAIRS = [
    Preference(
        question=f"{question} {i}",
        chosen="Open the app and tap Cards.",
        rejected="I can only help with banking.",
        in_scope=True,
        source="",
        record_id="",
    )
    for i in range(3)
    for question in ("How do I block my card?", "What is an IBAN?")
]
VICTIM = """
import os, signal, sys
from pathlib import Path
import test_checkpoints as here
kept = here.KeptCheckpoints(here.s3_store(sys.argv[3]), "inputs")

def keep(checkpoint):
    kept.keep(checkpoint)
    if checkpoint.name == "checkpoint-4":
        os.kill(os.getpid(), signal.SIGKILL)

here.trained(Path(sys.argv[1]), Path(sys.argv[2]), keep)
"""


def s3_store(endpoint: str) -> BaseArtifactStore:
    from zenml.integrations.s3.artifact_stores import S3ArtifactStore
    from zenml.integrations.s3.flavors.s3_artifact_store_flavor import S3ArtifactStoreConfig

    now = datetime.now(UTC)
    return S3ArtifactStore(
        name="s3", id=uuid4(), flavor="s3", type=StackComponentType.ARTIFACT_STORE, user=uuid4(),
        created=now, updated=now, environment={}, secrets=[],
        config=S3ArtifactStoreConfig(
            path=f"s3://{BUCKET}/zenml", key="one", secret="two", client_kwargs={"endpoint_url": endpoint}
        ),
    )  # fmt: skip


def trained(model: Path, work: Path, keep: object = None) -> TrainingResult:
    return train_orpo(
        load(model, "float32"),
        model,
        preferences=PAIRS,
        settings=SETTINGS,
        work=work,
        keep_checkpoint=keep,  # type: ignore[arg-type]
    )


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("s3fs", reason="the extra cluster is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with object_store() as environment:
        yield environment["MLFLOW_S3_ENDPOINT_URL"]


@pytest.mark.slow
def test_a_killed_training_goes_on_where_no_file_of_it_is(endpoint: str, model_folder: Path, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny", model_folder)
    whole = trained(model, tmp_path / "whole")
    (tmp_path / "victim.py").write_text(VICTIM)
    victim = subprocess.run(
        [sys.executable, str(tmp_path / "victim.py"), str(model), str(tmp_path / "first"), endpoint],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}:{ROOT / 'tests'}", "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr[-2000:]
    (tmp_path / "first").rename(tmp_path / "gone")
    store = s3_store(endpoint)
    kept = KeptCheckpoints(store, "inputs")
    kept.fetch(tmp_path / "second" / "checkpoints")
    assert [path.name for path in (tmp_path / "second" / "checkpoints").iterdir()] == ["checkpoint-4"]
    second = trained(model, tmp_path / "second", kept.keep)
    assert (second.resumed_from, second.steps) == (4, whole.steps) == (4, 6)
    first, other = (load_file(each.adapter / "adapter_model.safetensors") for each in (whole, second))
    assert first.keys() == other.keys()
    assert all((first[name] == other[name]).all() for name in first)
    assert [Path(str(name)).name for name in store.listdir(f"s3://{BUCKET}/zenml/checkpoints/inputs")] == [
        f"checkpoint-{whole.steps}.tar"
    ]
    kept.remove()
    kept.fetch(tmp_path / "third")
    assert not (tmp_path / "third").exists()
