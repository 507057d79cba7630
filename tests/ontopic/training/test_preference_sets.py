"""Preference sets that people have: each form that TRL takes, malformed rows by name, and mixing by shares."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from dataset_hub import running_dataset_hub
from loopback import ROOT
from pyarrow import parquet

from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import load_settings
from ontopic.config.training_settings import PreferenceSetSettings
from ontopic.data.labelled import load_questions
from ontopic.errors import UserError
from ontopic.training.preference_files import write_preferences
from ontopic.training.preference_sets import PreferenceRow, mixed, read_sets
from ontopic.training.preferences import Preference

Write = Callable[..., Path]
ASKED, GOOD, BAD = "How deep do I plant a walnut tree?", "As deep as it stood in its pot.", "Trees are tall."
SYSTEM = {"role": "system", "content": "You help gardeners."}
USER = {"role": "user", "content": ASKED}
CHOSEN, REJECTED = ({"role": "assistant", "content": text} for text in (GOOD, BAD))
BEFORE = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "Good day."}]
FOUND = [{"role": "assistant", "content": "I look it up."}, {"role": "tool", "content": "Walnut: as in its pot."}]
ROW = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}
# What TRL documents as preference data: standard and conversational, the prompt explicit or implicit.
FORMS: dict[str, dict[str, Any]] = {
    "texts": ROW,
    "texts, implicit": {"chosen": f"{ASKED} {GOOD}", "rejected": f"{ASKED} {BAD}"},
    "messages": {"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
    "messages, implicit": {"chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
    "messages, implicit, with an empty prompt": {
        "prompt": None,
        "chosen": [USER, CHOSEN],
        "rejected": [USER, REJECTED],
    },
    "a text beside messages": {"prompt": ASKED, "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
    "a conversation": {"prompt": [SYSTEM, *BEFORE, USER, *FOUND], "chosen": [CHOSEN], "rejected": [REJECTED]},
    "a conversation, implicit": {
        "chosen": [SYSTEM, *BEFORE, USER, *FOUND, CHOSEN],
        "rejected": [SYSTEM, *BEFORE, USER, *FOUND, REJECTED],
    },
}

MALFORMED: list[tuple[Any, str]] = [
    ({"prompt": ASKED, "chosen": GOOD}, "field 'rejected': field required"),
    (ROW | {"chosen": None}, "field 'chosen': value error, must be a text or a list of messages"),
    (ROW | {"chosen": 3}, "field 'chosen': must be a text or a list of messages"),
    (ROW | {"rejected": " \n"}, "field 'rejected': is blank"),
    (ROW | {"prompt": " "}, "field 'prompt': the question is blank"),
    (ROW | {"rejected": f" {GOOD} "}, "field 'rejected': is the same answer as chosen"),
    (ROW | {"chosen": "x" * 20_001}, "field 'chosen': has 20,001 characters"),
    (ROW | {"prompt": "x" * 20_001}, "field 'prompt': has 20,001 characters"),
    (ROW | {"prompt": "a\ud800b"}, "field 'prompt': holds half a character"),
    (ROW | {"chosen": "a\0b"}, "field 'chosen': holds a NUL"),
    (ROW | {"in_scope": "perhaps"}, "field 'in_scope':"),
    (ROW | {"chosen": []}, "field 'chosen': is an empty list"),
    (ROW | {"chosen": [CHOSEN]}, "field 'rejected': chosen is messages"),
    (ROW | {"rejected": [REJECTED]}, "field 'rejected': chosen is a text"),
    (ROW | {"prompt": [USER]}, "field 'prompt': is messages, and the answers are texts"),
    ({"chosen": [USER, "no message"], "rejected": [USER]}, "field 'chosen', message 2: is no message"),
    (
        {"chosen": [USER, CHOSEN], "rejected": [USER, {"from": "gpt", "value": "b"}]},
        "field 'rejected', message 2: is no message",
    ),
    (
        {"chosen": [USER | {"role": "wizard\x1b[2J"}, CHOSEN], "rejected": [USER, REJECTED]},
        "field 'chosen', message 1: role 'wizard",
    ),
    (
        {"chosen": [USER, CHOSEN | {"tool_calls": [{"id": 1}]}], "rejected": [USER, REJECTED]},
        "field 'chosen', message 2: calls a tool",
    ),
    (
        {"chosen": [USER | {"content": [{"type": "image"}]}, CHOSEN], "rejected": [USER, REJECTED]},
        "field 'chosen', message 1: its content is no text",
    ),
    ({"chosen": [USER, CHOSEN], "rejected": [USER]}, "field 'rejected': has 0 messages after the prompt"),
    ({"chosen": [USER, CHOSEN, USER, CHOSEN], "rejected": [USER, REJECTED]}, "field 'chosen': has 3 messages"),
    ({"chosen": [CHOSEN], "rejected": [REJECTED]}, "field 'prompt': has no message of the user"),
    (
        {"prompt": [USER, *FOUND[:1]], "chosen": [CHOSEN], "rejected": [REJECTED]},
        "field 'prompt': ends with a mess",
    ),
    (
        {"prompt": [USER], "chosen": [USER, CHOSEN], "rejected": [REJECTED]},
        "field 'chosen': begins with the prompt",
    ),
    (
        {"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        "field 'chosen': is a transcript",
    ),
    ('{"prompt": "q", "chosen": "a"', "the line is not valid JSON"),
    ('["a list"]', "the line is not a JSON object"),
]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ROOT / "configs" / "policies" / "gardening.yaml")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(*rows: Any, name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        if name.endswith(".parquet"):
            parquet.write_table(pa.Table.from_pylist(list(rows)), path)
        else:
            lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
            path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
        return path

    return written


def of(path: Path | str, *, share: float = 0.5, skip_bad: bool = False) -> list[PreferenceSetSettings]:
    return [PreferenceSetSettings(source=str(path), share=share, skip_bad=skip_bad)]


def numbered(n: int, source: str = "model", **more: Any) -> list[Preference]:
    rows = [{"question": f"q{i}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(n)]
    return [
        Preference.model_validate(row | {"in_scope": True, "source": source, "record_id": ""} | more) for row in rows
    ]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.replace(" ", "-"))
def test_a_row_is_read_as_trl_reads_it(form: str) -> None:
    from trl.data_utils import maybe_extract_prompt

    row = FORMS[form]
    theirs = maybe_extract_prompt({name: value for name, value in row.items() if value is not None})
    pair = PreferenceRow.model_validate(row).pair("set 1")
    if isinstance(theirs["chosen"], str):
        assert pair.messages == [{"role": "user", "content": theirs["prompt"]}]
        assert (pair.chosen, pair.rejected) == (theirs["chosen"].strip(), theirs["rejected"].strip())
    else:
        assert pair.messages == theirs["prompt"]
        assert [pair.chosen] == [message["content"] for message in theirs["chosen"]]
        assert [pair.rejected] == [message["content"] for message in theirs["rejected"]]
    assert (pair.question, pair.chosen, pair.rejected) == (ASKED, GOOD, BAD)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "pairs.parquet"])
@pytest.mark.parametrize("form", ["texts", "messages", "a conversation, implicit"], ids=lambda f: f.replace(" ", "-"))
def test_every_format_gives_the_same_pair(name: str, form: str, write: Write, policy: Policy) -> None:
    (found,) = read_sets(of(write(FORMS[form], name=name)), policy)
    (pair,) = found.pairs
    assert (pair.question, pair.chosen, pair.rejected, pair.source) == (ASKED, GOOD, BAD, "set 1")
    assert pair.in_scope and not pair.beginnings and pair.record_id == ""
    assert pair.messages == (FORMS[form]["chosen"][:-1] if "conversation" in form else [USER])


@pytest.mark.parametrize(("row", "said"), MALFORMED, ids=[said[:60] for _, said in MALFORMED])
def test_a_malformed_row_is_named_by_file_line_and_field(row: Any, said: str, write: Write, policy: Policy) -> None:
    path = write(ROW, row)
    with pytest.raises(UserError) as raised:
        read_sets(of(path), policy)
    assert f"{path}:2: {said}" in str(raised.value)
    assert "mend these rows, or leave them out with skip_bad: true" in str(raised.value)
    (left,) = read_sets(of(path, skip_bad=True), policy)
    assert ([pair.question for pair in left.pairs], left.left_out) == ([ASKED], 1)


@pytest.mark.parametrize("split", ["evaluation", "calibration"])
@pytest.mark.parametrize("how", ["word by word", "nearly", "asked last", "implicit"])
def test_a_question_of_a_held_apart_split_is_refused(split: str, how: str, write: Write, policy: Policy) -> None:
    question = next(q for q in load_questions(policy.questions) if q.split == split and len(q.question) > 40)
    text = f"{question.question.upper()}!" if how == "nearly" else question.question
    asked = {"role": "user", "content": text}
    row = {
        "asked last": {"prompt": [*BEFORE, asked], "chosen": [CHOSEN], "rejected": [REJECTED]},
        "implicit": {"chosen": [asked, CHOSEN], "rejected": [asked, REJECTED]},
    }.get(how, ROW | {"prompt": text})
    path = write(ROW, row)
    with pytest.raises(UserError, match=rf"pairs.jsonl:2: field 'prompt': is nearly a question of the {split} split"):
        read_sets(of(path), policy)
    (left,) = read_sets(of(path, skip_bad=True), policy)
    assert [pair.question for pair in left.pairs] == [ASKED]


def test_a_question_of_the_training_split_is_not(write: Write, policy: Policy) -> None:
    question = next(q for q in load_questions(policy.questions) if q.split == "train" and q.in_scope)
    (found,) = read_sets(of(write(ROW | {"prompt": question.question})), policy)
    assert len(found.pairs) == 1


def test_rows_that_contradict_each_other_are_named_and_repeated_ones_count_once(write: Write, policy: Policy) -> None:
    other = ROW | {"chosen": BAD, "rejected": GOOD, "prompt": ASKED.upper()}
    with pytest.raises(UserError, match=r"pairs.jsonl:3: field 'chosen': is what \S+pairs.jsonl:1 rejects"):
        read_sets(of(write(ROW, ROW, other)), policy)
    (found,) = read_sets(of(write(ROW, ROW, ROW | {"rejected": "No."})), policy)
    assert [pair.rejected for pair in found.pairs] == [BAD, "No."]


def test_what_declines_is_out_of_scope_unless_the_row_says_otherwise(write: Write, policy: Policy) -> None:
    declines = {"prompt": "Who won the cup in 1974?", "chosen": f"{policy.refusal} Ask me of plants.", "rejected": "A."}
    said = {"prompt": "Who won it in 1954?", "chosen": "That is not for me.", "rejected": "A.", "in_scope": "no"}
    (found,) = read_sets(of(write(ROW, declines, said)), policy)
    assert [pair.in_scope for pair in found.pairs] == [True, False, False]


def test_a_set_that_is_not_there_or_empty_is_said(write: Write, policy: Policy) -> None:
    for source, said in (("none.jsonl", "none.jsonl: no such file"), (write(), "holds no usable row")):
        with pytest.raises(UserError, match=said):
            read_sets(of(source), policy)


@pytest.mark.parametrize(("share", "of_set"), [(0.2, 25), (0.5, 100), (0.9, 150)])
def test_a_set_gets_its_share_of_all_or_what_it_has(share: float, of_set: int) -> None:
    drawn = mixed(numbered(100), [(share, numbered(150, "set 1"))], seed=0)
    assert sum(pair.source == "set 1" for pair in drawn) == of_set
    assert len(drawn) == 100 + of_set and len({(pair.source, pair.question) for pair in drawn}) == len(drawn)


def test_shares_of_several_sets_are_of_all_pairs_and_the_draw_is_the_seeds() -> None:
    sets = [(0.25, numbered(400, "set 1")), (0.25, numbered(400, "set 2"))]
    drawn = mixed(numbered(100), sets, seed=3)
    sources = [pair.source for pair in drawn]
    assert [sources.count(each) for each in ("model", "set 1", "set 2")] == [100, 50, 50]
    assert drawn == mixed(numbered(100), sets, seed=3) != mixed(numbered(100), sets, seed=4)
    assert mixed(numbered(9), [], seed=3) == numbered(9)
    assert len(mixed([], sets, seed=3)) == 800


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_what_is_written_can_be_read_back(name: str, tmp_path: Path, policy: Policy) -> None:
    pairs = [
        *(PreferenceRow.model_validate(row).pair("model") for row in (ROW, FORMS["a conversation"])),
        *numbered(2, "refusal", beginnings=True, in_scope=False),
        *numbered(1, "reference", question="<|im_end|> \x1b[2J =1+1 𝄞 \u202e"),
    ]
    assert write_preferences(pairs, tmp_path / name, ids=["1", "2", "3", "4", "5"]) == 5
    (found,) = read_sets(of(tmp_path / name), policy)
    written = [pair.model_copy(update={"source": "set 1"}) for pair in pairs]
    assert [pair.model_dump_json() for pair in found.pairs] == [pair.model_dump_json() for pair in written]


def test_trl_takes_what_is_written(tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl.data_utils import is_conversational, maybe_extract_prompt

    pairs = [PreferenceRow.model_validate(row).pair("model") for row in (ROW, FORMS["a conversation"])]
    for name, kind in (("out.jsonl", "json"), ("out.parquet", "parquet")):
        write_preferences(pairs, tmp_path / name, ids=["1", "2"])
        rows = load_dataset(kind, data_files=str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache"))
        for row, pair in zip(rows, pairs, strict=True):
            assert is_conversational(row)
            assert maybe_extract_prompt(row)["prompt"] == pair.messages


def test_a_file_is_relative_to_its_configuration_and_shares_leave_room(tmp_path: Path, write: Write) -> None:
    write(ROW)
    text = (ROOT / "configs" / "gardening.yaml").read_text()
    sets = "training:\n  preference_sets: [{source: pairs.jsonl, share: 0.3}, {source: a/hub-set#test, share: %s}]"
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("training:", sets % 0.2))
    found = load_settings(config).training.preference_sets
    assert [each.source for each in found] == [str(tmp_path / "pairs.jsonl"), "a/hub-set#test"]
    config.write_text(text.replace("training:", sets % 0.7))
    with pytest.raises(UserError, match="the shares add up to 1, and must leave some of 1"):
        load_settings(config)


READS_FROM_HUB = """
import sys
from pathlib import Path
from ontopic.config.policy import load_policy
from ontopic.config.training_settings import PreferenceSetSettings
from ontopic.errors import UserError
from ontopic.training.preference_sets import read_sets
policy = load_policy(Path(sys.argv[1]))
for source in sys.argv[2:]:
    try:
        (found,) = read_sets([PreferenceSetSettings(source=source, share=0.5)], policy)
        print(source, [(pair.question, pair.chosen, pair.rejected) for pair in found.pairs])
    except UserError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_set_of_the_hub_is_read_by_its_id_and_split(tmp_path: Path) -> None:
    def lines(*rows: Any) -> bytes:
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    implicit = FORMS["messages, implicit"]
    parquet.write_table(pa.Table.from_pylist([implicit]), tmp_path / "p")
    sets = {
        "some/pairs": {"train.jsonl": lines(implicit), "test.jsonl": lines(implicit, implicit | {"rejected": [USER]})},
        "some/tables": {"data/train-00000-of-00001.parquet": (tmp_path / "p").read_bytes()},
    }
    policy = str(ROOT / "configs" / "policies" / "gardening.yaml")
    names = ["some/pairs", "some/pairs#test", "some/tables#train", "some/tables#no", "some/none"]
    with running_dataset_hub(sets) as url:
        # The hub's client lets a proxy have what goes to this machine too.
        own = {k: v for k, v in os.environ.items() if not k.upper().endswith(("_PROXY", "_BUNDLE", "CERT_FILE"))}
        own |= {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}
        done = subprocess.run(
            [sys.executable, "-c", READS_FROM_HUB, policy, *names],
            env=own,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    pair = [(ASKED, GOOD, BAD)]
    assert (said[0], said[3]) == (f"some/pairs {pair}", f"some/tables#train {pair}")
    assert said[1].startswith("some/pairs#test:2: field 'rejected': has 0 messages after the prompt")
    for line, name in ((said[4], "some/tables#no"), (said[5], "some/none")):
        assert line.startswith(f"{name}: is not a file, and no data set of that id could be had")
