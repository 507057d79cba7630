"""An adapter finds its base by where it stands, not by where it was made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ontopic.errors import UserError
from ontopic.models.adapter_base import CONFIG, base_folder, name_base_from


def adapter(folder: Path, base: str | Path) -> Path:
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps({"base_model_name_or_path": str(base), "r": 16}))
    for name in ("README.md", "training_args.bin", "adapter_model.safetensors"):
        (folder / name).write_text(str(base))
    return folder


def test_a_saved_adapter_names_no_absolute_path(tmp_path: Path) -> None:
    base = tmp_path / "state" / "registry" / "a model" / "1"
    base.mkdir(parents=True)
    saved = adapter(tmp_path / "state" / "training" / "0" / ".adapter-part", base)
    place = saved.with_name("adapter")
    name_base_from(place, saved)
    saved.rename(place)
    assert {path.name for path in place.iterdir()} == {CONFIG, "adapter_model.safetensors"}
    assert str(tmp_path) not in (place / CONFIG).read_text()
    assert json.loads((place / CONFIG).read_text())["r"] == 16
    assert base_folder(place).resolve() == base
    (tmp_path / "state").rename(tmp_path / "moved")
    assert base_folder(tmp_path / "moved/training/0/adapter").resolve() == tmp_path / "moved/registry/a model/1"


@pytest.mark.parametrize("named", ["/elsewhere/registry/a model/1", "../../../registry/a model/1", "../1", "gone/1"])
def test_a_registered_adapter_takes_the_version_beside_it(tmp_path: Path, named: str) -> None:
    version = adapter(tmp_path / "registry" / "a model" / "2", named)
    base = version.with_name("1")
    base.mkdir()
    assert base_folder(version) == base


def test_a_base_outside_the_state_folder_is_found_by_its_path(tmp_path: Path) -> None:
    base = tmp_path / "hub" / "snapshot"
    base.mkdir(parents=True)
    assert base_folder(adapter(tmp_path / "registry" / "a model" / "2", base)) == base
    base.rmdir()
    with pytest.raises(UserError, match=r"2 is an adapter of the model in .*snapshot, which is not there"):
        base_folder(tmp_path / "registry" / "a model" / "2")
