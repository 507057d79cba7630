"""The command ``calibrate``: judges and judge prompts on the same labelled records, and one comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from loopback import ROOT, ChatServer, Reply
from typer.testing import CliRunner, Result

from ontopic.config.policy import load_policy
from ontopic.config.settings import LLMJudgeSettings, LocalJudgeSettings
from ontopic.data.labelled import LabelledRecord
from ontopic.errors import UserError
from ontopic.judges.cards.calibration import Measured
from ontopic.judges.cards.card import criteria_sha256, judge_card
from ontopic.judges.cards.choices import (
    judge_variants,
    load_judge_settings,
    read_prompts,
    selected_judges,
    single_templates,
)
from ontopic.judges.cards.comparison import difference_in_words, rank, right_verdicts_compared
from ontopic.records import Outcome, Verdict

PROMPTS = {
    "rubric": "{{fence}} {{ question }} {{answer}} {{fence}}",
    "naive": "{{fence}} {{question}} {{answer}} {{fence}}",
    "pairwise": "{{fence}} {{question}} {{answer_a}} {{answer_b}} {{fence}}",
    "reference": "{{fence}} {{question}} {{answer}} {{reference}} {{fence}}",
    "tone": "{{fence}} {{answer}} {{fence}}",
}
LLM = LLMJudgeSettings(kind="openai", model="m", template="rubric")
LOCAL = LocalJudgeSettings(kind="local")


def measured(judge_id: str, said: str) -> Measured:
    """Records labelled pass with a judge's verdicts on them: ``p``, ``f`` or ``u``."""
    outcomes: dict[str, Outcome] = {"p": "pass", "f": "fail", "u": "unjudged"}
    records = [LabelledRecord(question=f"q{i}", answer="a", label="pass") for i in range(len(said))]
    verdicts = [Verdict(outcome=outcomes[letter], score=None, explanation="", judge_id=judge_id) for letter in said]
    return Measured(card=judge_card(judge_id, records, verdicts=verdicts), records=records, verdicts=verdicts)


def test_a_judge_of_few_records_is_not_the_best_by_luck() -> None:
    lucky, good, poor = (
        measured("lucky", "pp" + 38 * "u"),
        measured("good", 38 * "p" + "ff"),
        measured("poor", 40 * "f"),
    )
    assert [m.card.judge_id for m in rank([poor, lucky, good])] == ["good", "lucky", "poor"]


def test_two_judges_are_compared_in_pairs_of_records_that_both_judged() -> None:
    first, second = measured("first", 20 * "p" + "ffpu"), measured("second", 10 * "p" + 10 * "f" + "pfup")
    difference = right_verdicts_compared(first, second)
    assert (difference.wins, difference.losses, difference.n) == (10, 1, 22)
    assert difference.p_value == pytest.approx(2 * (1 + 11) / 2**11)
    assert difference.difference == pytest.approx(9 / 22)
    with pytest.raises(ValueError, match="same labelled records"):
        right_verdicts_compared(first, measured("third", "p"))


def test_the_difference_is_said_in_words() -> None:
    good, bad = measured("good", 40 * "p"), measured("bad", 25 * "p" + 15 * "f")
    assert difference_in_words([bad, good]).startswith("good is right more often than bad: of the 40 records")
    near = measured("near", 39 * "p" + "f")
    assert difference_in_words([near, good]).startswith("good and near cannot be told apart: ")
    assert "nothing to compare" in difference_in_words([good])
    assert "no record in common" in difference_in_words([measured("a", "pu"), measured("b", "up")])


def test_only_prompts_that_grade_one_answer_by_itself_are_variants() -> None:
    assert single_templates(PROMPTS) == ["naive", "rubric"]
    variants = judge_variants(LLM, PROMPTS)
    assert [v.template for v in variants if isinstance(v, LLMJudgeSettings)] == ["rubric", "naive"]
    assert judge_variants(LOCAL, PROMPTS) == [LOCAL]
    assert set(single_templates(read_prompts(ROOT / "configs" / "judge_prompts"))) == {"naive", "rubric"}


def test_judges_and_prompts_are_crossed() -> None:
    other = LLM.model_copy(update={"model": "other"})
    assert selected_judges(LOCAL, [LLM, other], templates=[], prompts=PROMPTS) == [LLM, other]
    crossed = selected_judges(LOCAL, [LLM, other, LOCAL], templates=["naive", "tone", "naive"], prompts=PROMPTS)
    assert [(j.model, j.template, j.grading) for j in crossed if isinstance(j, LLMJudgeSettings)] == [
        ("m", "naive", "single"),
        ("m", "tone", "custom"),
        ("other", "naive", "single"),
        ("other", "tone", "custom"),
    ]
    assert crossed[-1] == LOCAL
    with pytest.raises(UserError, match="--template is for judges of kind openai"):
        selected_judges(LOCAL, [], templates=["naive"], prompts=PROMPTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: openai\nmodel: m\nmodle: x", "unknown key 'modle'; the valid keys there are model, "),
        ("kind: openai", "the key 'model' is missing"),
        ("kind: oracle", "'kind' is wrong"),
        ("model: m", "the key 'kind' is missing"),
        ("- a", "must hold keys and values"),
    ],
)
def test_a_mistake_in_a_judges_file_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "judge.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        load_judge_settings(path)
    assert str(raised.value).startswith(str(path))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrate")


@pytest.fixture
def config(tmp_path: Path, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with an LLM judge, a policy with 24 labelled records, and a server that judges them."""
    monkeypatch.syspath_prepend(str(ROOT))
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_TRACKING_URI", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "")  # what the command sets goes with the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("COLUMNS", "160")

    def reply(request: dict[str, Any]) -> Reply:
        prompt = request["messages"][-1]["content"]
        careful = "You judge whether" in prompt  # the other prompt makes this judge pass everything
        if careful and "no verdict please" in prompt:
            return Reply("I cannot say.")
        verdict = "fail" if careful and "BAD" in prompt else "pass"
        usage = {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}
        return Reply(json.dumps({"explanation": "So.", "verdict": verdict}), parts={"usage": usage})

    chat_server.reply = reply
    rows = [
        {"question": f"question {i}?", "answer": "BAD" if i % 2 else "fine", "label": "fail" if i % 2 else "pass"}
        for i in range(24)
    ]
    rows[0]["answer"] = "no verdict please"
    rows[1] |= {"answer": "fine", "kind": "leak"}
    records = "".join(json.dumps(row | {"split": "calibration"}) + "\n" for row in rows)
    (tmp_path / "records.jsonl").write_text(records)
    (tmp_path / "questions.jsonl").write_text(json.dumps({"question": "q", "in_scope": True, "split": "train"}) + "\n")
    policy = yaml.safe_load((ROOT / "configs/policies/gardening.yaml").read_text())
    policy |= {"name": "tiny", "questions": "questions.jsonl", "records": "records.jsonl"}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text())
    judge = {"kind": "openai", "model": "judge-1", "base_url": chat_server.url}
    judge |= {"usd_per_million_prompt_tokens": 2.0, "usd_per_million_completion_tokens": 10.0}
    settings |= {"policy": "policy.yaml", "judge": judge, "judge_prompts": str(ROOT / "configs/judge_prompts")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "config.yaml"


def calibrate(config: Path, state: Path, *arguments: str) -> Result:
    import run

    command = ["calibrate", "--config", str(config), "--state", str(state), *arguments]
    return CliRunner().invoke(run.app, command, catch_exceptions=True)


def test_the_configured_judge_is_compared_with_its_other_prompts(
    config: Path, state: Path, chat_server: ChatServer, capfd: pytest.CaptureFixture[str]
) -> None:
    done = calibrate(config, state)
    out = done.output + capfd.readouterr().out
    assert done.exit_code == 0, (done.exception, out)
    assert "Judges on the 24 labelled records of the calibration split" in out
    assert out.index("openai-judge-1-rubric-") < out.index("openai-judge-1-naive-")
    assert "is right more often than" in out
    assert "Open next:" in out
    for line in out.split("Open next:")[1].splitlines():
        if ".html" in line:
            page = Path(line.split(". ", 1)[1].strip())
            assert page.is_relative_to(state)
            assert "</html>" in page.read_text(encoding="utf-8")
    assert "judges-compared-ontopic-tiny.html" in out

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{state}/mlflow.db")
    experiment = client.get_experiment_by_name("ontopic-tiny")
    assert experiment
    runs = {run.data.params["template"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"rubric", "naive"}
    rubric = runs["rubric"].data
    assert rubric.tags["stage"] == "calibration"
    assert rubric.params["model"] == "judge-1"
    assert rubric.params["judge_id"].startswith("openai-judge-1-rubric-")
    assert rubric.params["criteria_sha256"] == criteria_sha256(load_policy(config.parent / "policy.yaml"))
    assert rubric.metrics["accuracy"] == pytest.approx(22 / 23)
    assert rubric.metrics["unjudged"] == 1
    assert rubric.metrics["usd_per_1000"] == pytest.approx(1.2, rel=0.05)
    assert runs["naive"].data.metrics["specificity"] == 0.0
    kept = {file.path for file in client.list_artifacts(runs["rubric"].info.run_id)}
    assert kept == {"judge_card.json", f"judge-card-ontopic-tiny-{rubric.params['judge_id']}.html"}

    # Again: the cards are there, and only the record that was left unjudged is asked for.
    asked = len(chat_server.requests)
    again = calibrate(config, state, "--json")
    assert again.exit_code == 0
    assert len(chat_server.requests) - asked == 1
    told = json.loads(again.stdout)
    assert [card["judge_id"].split("-")[3] for card in told["cards"]] == ["rubric", "naive"]
    assert told["cards"][0]["accuracy"]["n"] == 23 and told["told_the_scope"] == [] and told["guard"] is None
    assert all(Path(page).is_file() for page in told["pages"])


def test_given_judges_prompts_and_records_are_measured(
    config: Path, state: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judge = yaml.safe_load(config.read_text())["judge"] | {"model": "judge-2"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(judge))
    (tmp_path / "mine.jsonl").write_text(
        '{"question": "a?", "answer": "fine", "label": "pass"}\n{"question": "b?", "answer": "BAD", "label": "fail"}\n'
        '{"question": "c?", "answer": "without a label"}\n'
    )
    arguments = ["--judge", str(tmp_path / "other.yaml"), "--template", "rubric"]
    done = calibrate(config, state, *arguments, "--records", str(tmp_path / "mine.jsonl"))
    out = done.output + capfd.readouterr().out
    assert done.exit_code == 0, (done.exception, out)
    assert "openai-judge-2-rubric-" in out
    assert "judge-1" not in out
    assert "on the 2 labelled records of" in out
    assert not list((state / "judges").glob("openai-judge-2*"))  # a card is kept of the calibration split alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records", "bare.jsonl"], "holds no record with a label"),
        (["--records", "missing.jsonl"], "no such file"),
        (["--records", "bare.jsonl", "--split", "evaluation"], "exclude each other"),
        (
            ["--split", "evaluation"],
            "the evaluation split of policy 'tiny' has 0 labelled records and 0 questions",
        ),
        (["--template", "pairwise"], "placeholder"),
        (["--template", "missing"], "missing.txt"),
        (["--judge", "missing.yaml"], "missing.yaml"),
    ],
)
def test_a_mistake_is_one_sentence_and_asks_nothing(
    config: Path,
    state: Path,
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(config.parent)
    (config.parent / "bare.jsonl").write_text('{"question": "a?", "answer": "fine"}\n')
    done = calibrate(config, state, *arguments)
    assert isinstance(done.exception, UserError)
    assert message in str(done.exception)
    assert chat_server.requests == []


def judge(config: Path, state: Path, *arguments: str) -> Result:
    import run

    command = ["judge", "--config", str(config), "--state", str(state), *arguments]
    return CliRunner().invoke(run.app, command, catch_exceptions=True)


NONE_JUDGED = "the judge judged none of the {} records: the judge's reply holds no verdict; see to it and run again"


def test_a_judge_that_judged_nothing_is_an_error(config: Path, tmp_path: Path, chat_server: ChatServer) -> None:
    chat_server.reply = lambda request: Reply("I cannot say.")
    done = calibrate(config, tmp_path / "state")
    assert isinstance(done.exception, UserError)
    assert str(done.exception) == NONE_JUDGED.format("24 labelled")


@pytest.mark.parametrize("label", [{}, {"label": "pass"}])
def test_records_of_which_none_was_judged_are_written_and_an_error(
    config: Path, tmp_path: Path, chat_server: ChatServer, label: dict[str, str]
) -> None:
    chat_server.reply = lambda request: Reply("I cannot say.")
    rows = [{"question": f"question {i}?", "answer": "fine"} | label for i in range(4)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    done = judge(config, tmp_path / "state", "--records", str(tmp_path / "mine.jsonl"), "--out", str(out))
    assert isinstance(done.exception, UserError)
    assert str(done.exception) == NONE_JUDGED.format("4")
    assert "nan" not in done.output
    assert "[-1.000, 1.000]" not in done.output
    assert [json.loads(line)["verdict"] for line in out.read_text().splitlines()] == ["unjudged"] * 4


def test_how_many_records_are_unjudged_is_said(config: Path, tmp_path: Path, chat_server: ChatServer) -> None:
    rows = [{"question": "a?", "answer": "no verdict please"}, {"question": "b?", "answer": "fine"}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--records", str(tmp_path / "mine.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    done = judge(config, tmp_path / "state", *arguments)
    assert done.exit_code == 0, done.exception
    assert "1 unjudged (1 the judge's reply holds no verdict)" in done.output
    told = json.loads(judge(config, tmp_path / "state", *arguments, "--json").stdout)
    assert (told["records"], told["unjudged"]) == (2, {"the judge's reply holds no verdict": 1})
    assert told["out"] == str(tmp_path / "out.jsonl") and told["card"] is None


@pytest.mark.parametrize("command", ["judge", "calibrate"])
def test_a_wrong_key_is_said_once_and_ends_the_command(
    config: Path, tmp_path: Path, chat_server: ChatServer, command: str
) -> None:
    chat_server.reply = lambda request: Reply("Incorrect API key provided.", status=401)
    rows = [{"question": f"question {i}?", "answer": "fine", "label": "pass"} for i in range(300)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given, out = ["--records", str(tmp_path / "mine.jsonl")], tmp_path / "out.jsonl"
    if command == "judge":
        done = judge(config, tmp_path / "state", *given, "--out", str(out))
        assert len(out.read_text().splitlines()) == 300
    else:
        done = calibrate(config, tmp_path / "state", *given)
    assert isinstance(done.exception, UserError)
    told = f"{chat_server.url} does not take the key in OPENAI_API_KEY (401: Incorrect API key provided. (test))"
    assert str(done.exception).startswith(told)
    assert len(chat_server.requests) <= 32  # as many as are sent at once
