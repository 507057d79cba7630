"""A local judge and a guard's card that another machine has learned and measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlalchemy as sql

from ontopic.errors import UserError
from ontopic.judges.local.at_hand import guard_at_hand, judge_at_hand, share_judge
from ontopic.state.workspace import Workspace

NAME, JUDGE = "ontopic-test", "local-0123456789ab"
CONTENT = os.urandom(100_000)


@pytest.fixture
def learned(anywhere: Workspace) -> Workspace:
    """A machine on which a judge was learned, and the guard measured with it."""
    folder = anywhere.judges / JUDGE
    folder.mkdir(parents=True)
    (folder / "judge.joblib").write_bytes(CONTENT)
    share_judge(folder, anywhere)
    share_judge(folder, anywhere)  # as each time that it is opened
    anywhere.files.write(anywhere.guard(NAME), b'{"judge_id": "%s"}' % JUDGE.encode())
    return anywhere


def test_a_judge_is_fetched_once_where_the_state_is_shared(learned: Workspace, tmp_path: Path) -> None:
    other = Workspace(root=tmp_path / "another machine")
    assert judge_at_hand(JUDGE, learned) == learned.judges / JUDGE
    assert judge_at_hand("local-other", learned) is judge_at_hand("local-other", other) is None
    folder = judge_at_hand(JUDGE, other)
    if learned.state_url is None:
        assert folder is None and not other.judges.exists()
        return
    assert folder is not None and (folder / "judge.joblib").read_bytes() == CONTENT
    made = (folder / "judge.joblib").stat().st_ino
    assert judge_at_hand(JUDGE, other) == folder and (folder / "judge.joblib").stat().st_ino == made


def test_a_guards_card_comes_with_its_judge_and_as_it_is_by_now(learned: Workspace, tmp_path: Path) -> None:
    other = Workspace(root=tmp_path / "another machine")
    assert guard_at_hand("ontopic-other", learned) is None
    assert guard_at_hand(NAME, learned) == learned.guard(NAME)
    if learned.state_url is None:
        assert guard_at_hand(NAME, other) is None
        return
    assert guard_at_hand(NAME, other) == other.guard(NAME)
    assert (other.judges / JUDGE / "judge.joblib").read_bytes() == CONTENT
    changed = b'{"judge_id": "%s", "budget": 0.1}' % JUDGE.encode()
    learned.files.write(learned.guard(NAME), changed)
    assert guard_at_hand(NAME, other) == other.guard(NAME)
    assert other.guard(NAME).read_bytes() == changed


def test_a_judge_that_was_changed_in_the_database_is_not_opened(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ontopic.state.database import open_state
    from ontopic.state.shared import FILES

    monkeypatch.setenv("ONTOPIC_STATE_URL", postgres_database)
    learned, other = Workspace(root=tmp_path / "a"), Workspace(root=tmp_path / "b")
    (learned.judges / JUDGE).mkdir(parents=True)
    (learned.judges / JUDGE / "judge.joblib").write_bytes(CONTENT)
    share_judge(learned.judges / JUDGE, learned)
    with open_state(postgres_database).begin() as connection:
        connection.execute(sql.update(FILES).values(sha256="0" * 64))
    with pytest.raises(UserError, match=rf"judges/{JUDGE}/judge\.joblib: was changed after it was stored"):
        judge_at_hand(JUDGE, other)
    assert not (other.judges / JUDGE).exists()


def test_of_the_encoder_only_what_was_tuned_is_stored(tmp_path: Path) -> None:
    """An earlier release wrote all of it."""
    from safetensors.torch import load, save

    from ontopic.judges.local.judge import tuned_part
    from ontopic.models.sentence_encoder import load_sentence_encoder

    weights = {name: weight.clone() for name, weight in load_sentence_encoder().model.state_dict().items()}
    name = next(name for name in weights if name.startswith("encoder.layer.5"))
    weights[name] += 1
    kept = load(tuned_part(save(weights)))
    assert list(kept) == [name] and bool((kept[name] == weights[name]).all())
