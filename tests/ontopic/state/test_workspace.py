"""The state folder: where things are in it, and which MLflow is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ontopic.errors import UserError
from ontopic.state.workspace import Workspace, open_workspace


def test_the_environment_puts_the_store_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Workspace(root=tmp_path).traffic == tmp_path / "traffic.db"
    monkeypatch.setenv("ONTOPIC_TRAFFIC_URL", "postgresql://host/name")
    assert Workspace(root=tmp_path).traffic == "postgresql://host/name"


def test_names_in_the_folder_are_those_of_the_releases_before(tmp_path: Path) -> None:
    workspace = Workspace(root=tmp_path)
    found = {
        name: getattr(workspace, name).relative_to(tmp_path).as_posix()
        for name, value in vars(Workspace).items()
        if isinstance(value, property) and isinstance(getattr(workspace, name), Path)
    }
    assert found == {
        "traffic": "traffic.db",
        "keys": "keys.db",
        "alerts": "alerts.db",
        "reports": "reports",
        "windows": "windows.db",
        "evidently": "evidently",
        "discordant": "discordant",
        "evidence": "evidence",
        "promotion_record": "promotions.jsonl",
        "judges": "judges",
        "verdicts": "verdicts.db",
        "labels": "labels",
        "training": "training",
        "building": "training/whole",
        "preference_edits": "preference-edits",
        "zenml": "zenml",
        "zenml_database": "zenml/local_stores/default_zen_store/zenml.db",
        "demo": "demo",
        "models": "models",
        "registry": "registry",
        "artifacts": "mlartifacts",
        "mlflow_file": "mlflow.db",
        "place": "place",
        "lock": "run.lock",
        "loop": "loop",
        "service": "serving.json",
        "service_log": "serving.log",
        "spool": "spool",
        "bentoml": "bentoml",
        "erasures": "erasures",
        "moved": "moved",
        "ray": "ray",
        "ray_lock": "ray.lock",
        "user_key": "user.key",
    }


def test_mlflow_is_the_users_or_that_of_the_last_stack_or_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "a state"
    own = open_workspace(root)
    assert (own.root, own.mlflow_uri, own.owns_mlflow) == (root, f"sqlite:///{root}/mlflow.db", True)
    theirs = own.tracked_by("http://stack:5000")
    assert (theirs.mlflow_uri, theirs.owns_mlflow) == ("http://stack:5000", False)
    assert open_workspace(root) == theirs  # the commands after the loop
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:5000")
    assert open_workspace(root).mlflow_uri == "http://mine:5000"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert theirs.tracked_by(None) == own
    assert open_workspace(root) == own


def test_telemetry_is_off_unless_the_user_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZENML_ANALYTICS_OPT_IN", raising=False)
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "False")
    open_workspace(tmp_path)
    assert (os.environ["ZENML_ANALYTICS_OPT_IN"], os.environ["BENTOML_DO_NOT_TRACK"]) == ("false", "False")


def test_a_folder_is_made_where_that_is_wanted(tmp_path: Path) -> None:
    assert not open_workspace(tmp_path / "a" / "b", make=False).is_made
    assert list(tmp_path.iterdir()) == []
    made = open_workspace(tmp_path / "a" / "b")
    assert made.root.is_dir() and not made.is_made  # nothing is kept in it yet
    made.labels.mkdir()
    assert made.is_made


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a file", "is no folder"),
        ("a file/below", "cannot be the state folder"),
        ("what?", "has a character in its name"),
        ("a\nb", "has a character in its name"),
        ("\udcff", "has a character in its name"),
        ("x" * 300, "cannot be the state folder"),
    ],
)
def test_what_cannot_be_a_state_folder_is_said(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(UserError, match=said) as raised:
        open_workspace(tmp_path / name)
    str(raised.value).encode()


def test_a_home_that_is_not_known_is_said() -> None:
    with pytest.raises(UserError, match="cannot be the state folder"):
        open_workspace(Path("~no-such-user/state"))
