from __future__ import annotations

from pathlib import Path

import pytest

from ontopic.state.whole_file import folder_sha256, whole_folder


def test_a_folder_is_there_whole_and_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    for text, name in (("1", "one"), ("2", "two")):
        with whole_folder(folder) as part:
            (part / name).write_text(text)
            assert not (folder / name).exists()
        assert {path.name: path.read_text() for path in folder.iterdir()} == {name: text}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_whose_writing_fails_changes_nothing(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "kept") as part:
        (part / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "kept") as part:
        (part / "file").write_text("new")
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "new") as part:
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").read_text() == "old"


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, files in enumerate(
        ({"a": "1", "b/c": "2"}, {"b/c": "2", "a": "1"}, {"a": "1", "b/d": "2"}, {"a": "12"})
    ):
        folder = tmp_path / str(number)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        digests.add(folder_sha256(folder))
    assert len(digests) == 3  # the order of writing does not count
    (tmp_path / "empty").mkdir()
    # As every release computed it: registries hold such digests.
    assert folder_sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert folder_sha256(tmp_path / "3") == "28ba44f74a465cf97d3a8eeeae71bfcba2b6d2abd4e10b8cfca40fe267013594"
