"""An adapter names its base by what that is, not by where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ontopic.models.adapter_base import CONFIG, name_base


@pytest.mark.parametrize(("digest", "named"), [("ab12", "sha256:ab12"), (None, None)])
def test_a_saved_adapter_names_no_path(tmp_path: Path, digest: str | None, named: str | None) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"base_model_name_or_path": str(tmp_path), "r": 16}))
    for name in ("README.md", "training_args.bin", "adapter_model.safetensors"):
        (tmp_path / name).write_text(str(tmp_path))
    name_base(tmp_path, digest)
    assert json.loads((tmp_path / CONFIG).read_text()) == {"base_model_name_or_path": named, "r": 16}
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, "adapter_model.safetensors"}
