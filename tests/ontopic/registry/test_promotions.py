"""The registry: the champion's alias, who moved it and why, by MLflow's client and by its file alike."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pytest

from ontopic.errors import UserError
from ontopic.registry import promotions
from ontopic.registry.mlflow_client import ClientTables
from ontopic.registry.mlflow_file import FileTables, open_file
from ontopic.registry.promotion_record import PromotionRecord
from ontopic.registry.promotions import ModelRegistry, Promotion, open_registry
from ontopic.registry.registry_tables import RegistryTables
from ontopic.registry.tracking import open_tracking
from ontopic.registry.versions import find, register
from ontopic.state.workspace import Workspace, open_workspace

NAME = "ontopic-test"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
Open = Callable[[Workspace, str], RegistryTables]


def by_file(workspace: Workspace, name: str) -> RegistryTables:
    tables = open_file(workspace.mlflow_file, name)
    assert tables is not None
    return tables


def by_client(workspace: Workspace, name: str) -> RegistryTables:
    return ClientTables(workspace.mlflow_uri, name)


def registry_on(workspace: Workspace, tables: RegistryTables, name: str = NAME) -> ModelRegistry:
    return ModelRegistry(name, tables, record=PromotionRecord(workspace.promotion_record))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A registry with three versions and no champion; a fourth is deleted, of a fifth there are only the remains."""
    workspace = open_workspace(tmp_path_factory.mktemp("registry"))
    open_tracking(workspace, NAME)
    for number in "1234":
        folder = workspace.root / f"model{number}"
        folder.mkdir()
        (folder / "weights").write_text(number)
        with mlflow.start_run() as run:
            register(
                NAME, folder, workspace=workspace, digest=f"digest{number}", run_id=run.info.run_id, tags={"n": number}
            )
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(NAME, "doomed", "4")
    client.delete_model_version(NAME, "4")
    client.create_model_version(NAME, source=str(folder), run_id=run.info.run_id)
    return workspace


def copied(made: Workspace, root: Path) -> Workspace:
    shutil.copy(made.mlflow_file, root)
    return Workspace(root=root, mlflow_uri=f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Workspace:
    """A copy of its own for each test."""
    return copied(made, tmp_path)


@pytest.mark.parametrize("opened", [by_file, by_client])
def test_who_when_and_why_stay_on_the_registry(made: Workspace, workspace: Workspace, opened: Open) -> None:
    registry = registry_on(workspace, opened(workspace, NAME))
    other = registry_on(workspace, opened(workspace, "ontopic-none"), "ontopic-none")
    assert registry.champion() == other.champion() == ""
    assert registry.promotions() == other.promotions() == []
    with pytest.raises(UserError, match="has no champion yet; run"):
        registry.roll_back("ann", why="to see")

    registry.ensure_champion("1")
    registry.ensure_champion("2")
    registry.promote("2", by="the loop", why="passed the gate", tags={"ontopic.gate": "passed"})
    third = registry.promote("3", by="ann", why="é\n<b>" + "x" * 5000)
    assert (third.before, len(third.why)) == ("2", 1000)
    assert registry.version("champion") == "3"
    assert find(NAME, "champion", workspace=workspace).version == "3"

    back = registry.roll_back("the canary", why="it leaks")
    assert (back.version, back.before, back.rollback) == ("2", "3", True)
    assert registry.roll_back("bob", why="that one too").version == "1"
    with pytest.raises(UserError, match="no champion before version 1"):
        registry.roll_back("bob", why="once more")
    # Version 2 takes its place again: from there a rollback is to 1, however it was left before.
    registry.promote("2", by="ann", why="mended")
    assert registry.predecessor("2") == "1"

    found = registry.promotions()
    assert [(each.before, each.version, each.by) for each in found] == [
        ("", "1", "the loop"),
        ("1", "2", "the loop"),
        ("2", "3", "ann"),
        ("3", "2", "the canary"),
        ("2", "1", "bob"),
        ("1", "2", "ann"),
    ]
    assert found[2] == third
    assert [each.at for each in found] == sorted(each.at for each in found)
    tags = mlflow.MlflowClient(workspace.mlflow_uri).get_registered_model(NAME).tags
    assert sum("that one too" in value for value in tags.values()) == 1
    assert registry.tags_of("2")["ontopic.gate"] == "passed"


@pytest.mark.parametrize(("write", "read"), [(by_file, by_client), (by_client, by_file)])
def test_what_one_writes_the_other_reads(workspace: Workspace, write: Open, read: Open) -> None:
    written, seen = write(workspace, NAME), read(workspace, NAME)
    assert seen.versions() == written.versions()
    assert list(seen.versions()) == ["1", "2", "3", "5"]
    whole = {"ontopic.digest": "digest2", "ontopic.whole": "true", "ontopic.complete": "true"}
    assert seen.versions()["2"] == whole | {"n": "2"}
    assert seen.alias("doomed") == written.alias("doomed") == ""
    assert seen.tags() == written.tags() == {}
    for value in ("first", "'); DROP TABLE model_versions; -- é\0<b>", ""):
        written.set_tag("ontopic.promotion.1", value)
        written.set_version_tag("2", "ontopic.gate", value=value)
        assert seen.tags() == written.tags() == {"ontopic.promotion.1": value}
        assert seen.versions()["2"]["ontopic.gate"] == written.versions()["2"]["ontopic.gate"] == value
    for version in ("1", "3", "3"):
        written.set_alias("champion", version)
        assert seen.alias("champion") == written.alias("champion") == version
    assert seen.versions() == written.versions()


def rows(workspace: Workspace) -> dict[str, list[list[object]]]:
    """Everything in the registry's tables, whenever it was written."""
    tables = ("registered_models", "model_versions", "registered_model_tags", "model_version_tags")
    with closing(sqlite3.connect(workspace.mlflow_file)) as database:
        found = {
            table: database.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
            for table in (*tables, "registered_model_aliases")
        }
    timeless = {
        table: [["a time" if isinstance(each, int) and each > NOON.timestamp() else each for each in row] for row in of]
        for table, of in found.items()
    }
    return {table: sorted(of, key=repr) for table, of in timeless.items()}


def test_both_leave_the_same_rows(made: Workspace, tmp_path: Path) -> None:
    found = []
    for opened in (by_file, by_client):
        folder = tmp_path / opened.__name__
        folder.mkdir()
        workspace = copied(made, folder)
        registry = registry_on(workspace, opened(workspace, NAME))
        registry.promote("1", by="ann", why="the first", at=NOON)
        registry.promote("2", by="ann", why="better", at=NOON.replace(hour=13), tags={"ontopic.gate": "passed"})
        registry.roll_back("bob", why="worse", at=NOON.replace(hour=14))
        registry.tag("3", {"n": "changed"})
        registry.challenge("3")
        registry.promote("3", by="ann", why="better still", at=NOON.replace(hour=15))
        registry.challenge("2")
        found.append(rows(workspace))
    assert found[0] == found[1]
    assert found[0] != rows(made)


@pytest.mark.parametrize("opened", [by_file, by_client])
def test_a_version_is_never_champion_and_challenger(workspace: Workspace, opened: Open) -> None:
    tables = opened(workspace, NAME)
    registry = registry_on(workspace, tables)
    registry.promote("1", by="ann", why="the first")
    registry.challenge("2")
    assert registry.version("challenger") == "2"
    registry.promote("3", by="ann", why="better")
    assert tables.alias("challenger") == "2"  # refused or not yet decided on: it stays the challenger
    registry.promote("2", by="ann", why="better")
    assert (registry.champion(), tables.alias("challenger")) == ("2", "")
    with pytest.raises(UserError, match="no version or alias 'challenger'"):
        registry.version("challenger")
    registry.challenge("2")  # a training that is done again gives the champion once more
    assert tables.alias("challenger") == ""
    registry.challenge("3")
    registry.roll_back("bob", why="worse")
    assert (registry.champion(), tables.alias("challenger")) == ("3", "")


@pytest.mark.parametrize("mend", ["promote", "roll back", "open"])
def test_a_registry_whose_champion_is_its_challenger_is_mended(workspace: Workspace, mend: str) -> None:
    tables = by_file(workspace, NAME)
    registry = registry_on(workspace, tables)
    registry.promote("1", by="ann", why="the first")
    registry.promote("2", by="ann", why="better")
    tables.set_alias("challenger", "2")
    with pytest.raises(UserError, match="no version or alias 'challenger'"):
        registry.version("challenger")
    if mend == "promote":
        registry.promote("3", by="ann", why="better")
    elif mend == "roll back":
        registry.roll_back("ann", why="worse")
    else:
        registry.ensure_champion("1")
    assert tables.alias("challenger") == ""


def test_who_and_why_are_cut_to_what_mlflow_takes(workspace: Workspace) -> None:
    done = open_registry(workspace, NAME).promote("1", by="a" * 200_000, why="w" * 200_000)
    assert (len(done.by), len(done.why)) == (200, 1000)


def test_evidence_is_written_first_and_the_alias_last(workspace: Workspace) -> None:
    done: list[str] = []

    class Noted(FileTables):
        def set_alias(self, alias: str, version: str) -> None:
            done.append(f"alias {alias}")

        def set_tag(self, key: str, value: str) -> None:
            entries = len(PromotionRecord(workspace.promotion_record).entries())
            done.append(f"{entries} entry, tag {key}")

        def set_version_tag(self, version: str, key: str, *, value: str) -> None:
            done.append(f"version tag {key}")

    noted = Noted(workspace.mlflow_file, NAME)
    registry_on(workspace, noted).promote("2", by="ann", why="", at=NOON, tags={"gate": "y"})
    tags = [f"1 entry, tag ontopic.{name}" for name in ("record.head", "promotion.20260301T120000000000")]
    assert done == ["version tag gate", *tags, "alias champion"]


def test_a_version_is_named_by_its_number_or_an_alias(workspace: Workspace) -> None:
    registry = open_registry(workspace, NAME)
    ClientTables(workspace.mlflow_uri, NAME).set_alias("challenger", "3")
    assert [registry.version(which) for which in ("base", "challenger", "2")] == ["1", "3", "2"]
    for missing in ("champion", "doomed", "4", "5", "9", "x'; --", ""):  # 5 was never registered to the end
        with pytest.raises(UserError, match=r"has no version or alias .*; its versions are: 1, 2, 3"):
            registry.version(missing)
    with pytest.raises(UserError, match="no model is registered as 'ontopic-none' yet; run"):
        open_registry(workspace, "ontopic-none").version("base")
    with pytest.raises(UserError, match="its versions are: none; run"):
        open_registry(workspace, "ontopic-none").version("champion")


@pytest.mark.parametrize("opened", [by_file, by_client])
@pytest.mark.parametrize(
    ("version", "said"), [("9", "has no version '9'"), ("5", "has no"), ("x'; --", "has no version"), ("", "no ver")]
)
def test_a_version_that_does_not_exist_is_told(workspace: Workspace, opened: Open, version: str, said: str) -> None:
    registry, before = registry_on(workspace, opened(workspace, NAME)), rows(workspace)
    with pytest.raises(UserError, match=said):
        registry.promote(version, by="ann", why="", tags={"a": "b"})
    assert rows(workspace) == before
    if version != "5":
        with pytest.raises(UserError, match=said):
            registry.tag(version, {"a": "b"})


def test_a_predecessor_that_was_deleted_is_told(workspace: Workspace) -> None:
    registry = open_registry(workspace, NAME)
    registry.promote("1", by="ann", why="")
    registry.promote("2", by="ann", why="")
    mlflow.MlflowClient(workspace.mlflow_uri).delete_model_version(NAME, "1")
    with pytest.raises(UserError, match="has no version '1'; its versions are: 2, 3"):
        registry.roll_back("ann", why="")
    assert registry.champion() == "2"


def test_the_champion_is_not_promoted_again(workspace: Workspace) -> None:
    registry = open_registry(workspace, NAME)
    registry.promote("2", by="ann", why="")
    with pytest.raises(UserError, match="is the champion already"):
        registry.promote("2", by="ann", why="", at=NOON)
    assert len(registry.promotions()) == 1


def test_a_version_that_goes_meanwhile_gets_no_alias(workspace: Workspace) -> None:
    tables = by_file(workspace, NAME)
    with pytest.raises(LookupError, match="has no version 4"):
        tables.set_alias("champion", "4")
    with pytest.raises(LookupError, match="has no version 4"):
        tables.set_version_tag("4", "key", value="value")
    assert tables.alias("champion") == ""


def test_what_is_too_long_for_mlflow_is_not_written(workspace: Workspace) -> None:
    tables = by_file(workspace, NAME)
    tables.set_tag("k" * 250, "v" * 100_000)
    for key, value in (("k" * 251, "v"), ("k", "v" * 100_001)):
        with pytest.raises(ValueError, match="too long"):
            tables.set_tag(key, value)
        with pytest.raises(ValueError, match="too long"):
            tables.set_version_tag("1", key, value=value)
    assert [len(value) for value in tables.tags().values()] == [100_000]


def test_who_writes_waits_for_mlflow(workspace: Workspace) -> None:
    registry = open_registry(workspace, NAME)
    with closing(sqlite3.connect(workspace.mlflow_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        promoting = threading.Thread(target=registry.promote, args=("2",), kwargs={"by": "ann", "why": ""})
        promoting.start()
        promoting.join(0.5)
        assert promoting.is_alive()
        other.execute("COMMIT")
    promoting.join()
    assert registry.champion() == "2"


def tables_of(registry: ModelRegistry) -> type:
    return type(registry._tables)


def test_the_file_is_used_where_it_is_ours_and_known(workspace: Workspace) -> None:
    assert tables_of(open_registry(workspace, NAME)) is FileTables
    elsewhere = workspace.model_copy(update={"mlflow_uri": f"sqlite:///{workspace.root}/theirs.db"})
    assert tables_of(open_registry(elsewhere, NAME)) is ClientTables
    with closing(sqlite3.connect(workspace.mlflow_file)) as database:
        database.execute("ALTER TABLE registered_model_aliases ADD COLUMN since INTEGER")
    assert tables_of(open_registry(workspace, NAME)) is ClientTables


@pytest.mark.parametrize("content", [b"", b"this is not a database, and long enough to be seen as such " * 30])
def test_a_file_without_the_tables_is_left_to_mlflow(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    assert open_file(tmp_path / "mlflow.db", NAME) is None


def test_where_there_is_no_file_there_is_no_champion_and_none_is_made(tmp_path: Path) -> None:
    registry = open_registry(Workspace(root=tmp_path, mlflow_uri=f"sqlite:///{tmp_path / 'mlflow.db'}"), NAME)
    assert (registry.champion(), registry.promotions()) == ("", [])
    with pytest.raises(UserError, match=r"has no version '1'; its versions are: none; run .python run\.py. first"):
        registry.promote("1", by="ann", why="")
    assert list(tmp_path.iterdir()) == []


def test_mlflow_is_not_imported_for_a_promotion(workspace: Workspace) -> None:
    code = (
        "import sys; from pathlib import Path; from ontopic.state.workspace import open_workspace\n"
        "from ontopic.registry import promotions, versions\n"
        f"registry = promotions.open_registry(open_workspace(Path(sys.argv[1])), {NAME!r})\n"
        "registry.promote('1', by='a', why=''); registry.promote('2', by='a', why='')\n"
        "registry.roll_back('a', why='')\n"
        "names = {'mlflow', 'torch', 'transformers', 'pandas', 'numpy', 'scipy', 'alembic', 'cryptography'}\n"
        "heavy = names & set(sys.modules)\n"
        "print(registry.champion(), *heavy)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", code, str(workspace.root)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["1"]


def test_a_promotion_of_the_release_before_is_read(workspace: Workspace) -> None:
    before = (
        '{"at": "2026-01-02T03:04:05+00:00", "version": "2", "before": "", "by": "ann", "why": "w", "rollback": false}'
    )
    ClientTables(workspace.mlflow_uri, NAME).set_tag(f"{promotions._PROMOTION}20260102T030405000000", before)
    (found,) = open_registry(workspace, NAME).promotions()
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert found == Promotion(at=at, version="2", before="", by="ann", why="w")
