"""Give the command line what people gave it, from outside, and say what came of it.

`python tests/from_outside.py [files] [environments] [servers] [cases]` runs each entry of the YAML file of that name in
tests/outside/ as a process of its own: none may end in a traceback, and each must end and say what its entry asks for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from loopback import ROOT
from loops import LENIENT, write_config
from odd_servers import OddServers
from tqdm import tqdm

ENTRIES = ROOT / "tests" / "outside"
RUN = f"{sys.executable} {ROOT / 'run.py'}"
BASH = shutil.which("bash") or "bash"
MOST_LINES, LONGEST_LINE = 40, 1500
CONTROL = re.compile(r"(?!\x1b\[[0-9;?]*[a-zA-Z])[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TIME_OUT_S = 300
RECORDS = [
    {"question": "How do I freeze my card?", "answer": "Open the card menu in the app and choose Freeze."},
    {"question": "Who won the cup?", "answer": "I'm sorry, I can only help with banking questions."},
]


@dataclass(frozen=True)
class Check:
    """One command of one entry.

    Attributes:
        name: of the kind, the entry and the command.
        shell: what is run, by bash.
        exit: the exit codes that are right; any where there is none.
        says: a regular expression that the output must hold; hides: one that it must not.
        after: looks at what the command left; what is wrong, or an empty text.
    """

    name: str
    shell: str
    variables: dict[str, str]
    exit: tuple[int, ...] = (0,)
    says: str = ""
    hides: str = ""
    after: Callable[[], str] = lambda: ""

    def fault(self) -> str:
        """What is wrong, or an empty text."""
        try:
            done = subprocess.run(
                [BASH, "-c", self.shell], capture_output=True, timeout=TIME_OUT_S, env=self.variables, check=False,
                stdin=subprocess.DEVNULL, cwd=self.variables.get("HERE"),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"did not end in {TIME_OUT_S} s"
        said = (done.stdout + done.stderr).decode(
            "utf-16-le" if ": utf-16-" in self.name else "utf-8", errors="replace"
        )
        if "Traceback (most recent call last)" in said or "Fatal Python error" in said:
            return "a traceback:\n" + said[-1500:]
        if self.exit and done.returncode not in self.exit:
            return f"exit {done.returncode}, not {self.exit}:\n{said[-1500:]}"
        if done.returncode == 1 and "error: " not in said and ">" not in self.shell[-12:]:
            return f"exit 1 without a sentence:\n{said[-1500:]}"
        if self.says and not re.search(self.says, said, re.IGNORECASE):
            return f"does not say {self.says!r}:\n{said[-1500:]}"
        if self.hides and re.search(self.hides, said):
            return f"says {self.hides!r}:\n{said[-1500:]}"
        if done.returncode and (self.exit or not self.says):
            lines = said.splitlines()
            if len(lines) > MOST_LINES or max(map(len, lines), default=0) > LONGEST_LINE:
                return f"{len(lines)} lines, the longest of {max(map(len, lines))} characters:\n{said[:1500]}"
        if found := CONTROL.search(said):
            return f"prints the control character {found.group()!r}:\n{said[-1500:]!r}"
        return self.after()


def variables(**own: str) -> dict[str, str]:
    """The environment of a command: this one without what others set in it."""
    left = ("MLFLOW_", "ZENML_", "ONTOPIC_", "OPENAI_", "NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left)}
    return kept | {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "sk-none", "COLUMNS": "120", "PYTHONPATH": str(ROOT)} | own


def content(entry: dict[str, Any]) -> bytes:
    """The bytes that an entry describes."""
    times = entry.get("times", 1)
    text = entry.get("text", entry.get("content", ""))
    if "then" in entry:
        text += "".join(entry["then"].replace("{n}", str(n)) for n in range(times))
    else:
        text *= times
    return str(text).encode(entry.get("encoding", "utf-8"))


def read_yaml(name: str) -> Any:
    """What the file of a kind holds."""
    return yaml.safe_load((ENTRIES / f"{name}.yaml").read_text())


def write_settings(folder: Path, base_url: str) -> Path:
    """A configuration on the gardening policy whose judge is asked at ``base_url``."""
    settings = yaml.safe_load((ROOT / "configs/gardening.yaml").read_text())
    settings["policy"] = str(ROOT / "configs/policies/gardening.yaml")
    settings["judge_prompts"] = str(ROOT / "configs/judge_prompts")
    endpoint = {"model": "m", "base_url": base_url, "timeout_s": 5, "max_retries": 1}
    settings["judge"] = {"kind": "openai"} | endpoint
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "judge.yaml").write_text(yaml.safe_dump(settings["judge"]))
    return folder / "config.yaml"


def write_records(path: Path, n: int = 2) -> Path:
    """A JSONL file of records, no two of one question."""
    rows = [{**RECORDS[i % 2], "question": f"{RECORDS[i % 2]['question']} ({i})"} for i in range(n)]
    path.write_text("".join(json.dumps(row | {"in_scope": i % 2 == 0}) + "\n" for i, row in enumerate(rows)))
    return path


def files(folder: Path, servers: OddServers) -> Iterator[Check]:
    """Each file with each of its readers, three of its kind."""
    readers = {
        "csv": {
            "judge": "judge --records {file} --out {file}.out --config {config}",
            "evaluate": "evaluate --questions {file} --out {file}.out",
            "send": "traffic send --questions {file} --rate 50 --url {url}",
        },
        "jsonl": {
            "judge": "judge --records {file} --out {file}.out --config {config}",
            "evaluate": "evaluate --questions {file} --out {file}.out",
            "import": "traffic import {file}",
        },
        "yaml": {
            "config": "status --config {file}",
            "policy": "status --config {file}.config.yaml",
            "judge": "calibrate --judge {file}",
        },
    }
    for suffix, entries in read_yaml("files").items():
        for entry in entries:
            for reader, command in readers[suffix].items():
                here = folder / f"{suffix}-{entry['name']}-{reader}"
                config = write_settings(here, servers.url("plain-pass"))
                file = here / f"given.{suffix}"
                file.write_bytes(content(entry))
                named = yaml.safe_load(config.read_text()) | {"policy": str(file)}
                (here / f"given.{suffix}.config.yaml").write_text(yaml.safe_dump(named))
                filled = command.format(file=file, config=config, url=servers.url("plain-pass"))
                shell = f"{RUN} {filled} --state {here / 'state'}"
                exits = () if reader in entry.get("reads", []) else (1,)
                # There is no champion, which `evaluate` may say first.
                says = "" if reader == "evaluate" else entry.get("says", "")
                yield Check(f"files: {here.name}", shell, variables(), exit=exits, says=says)


def environments(folder: Path, servers: OddServers) -> Iterator[Check]:
    """Each environment with each of its commands."""
    given = folder / "given"
    config, records = write_settings(given, servers.url("plain-pass")), write_records(folder / "records.jsonl")
    outside = write_settings(folder / "outside", "https://judge.invalid/v1")
    quick, url = ["status", "traffic", "keys make me", "keys list"], servers.url("plain-pass")
    judge = f"{RUN} judge --records {records} --out {{tmp}}/out.jsonl --state {{state}}"
    commands = {
        "quick": " && ".join(f"{RUN} {command} --config {config} --state {{state}}" for command in quick),
        "status": f"{RUN} status --config {config} --state {{state}}",
        "label": f"{RUN} label --config {config} --state {{state}}",
        "alerts-help": f"{RUN} --help && {RUN} alerts --help",
        "judge": f"{judge} --config {config}",
        "judge-outside": f"{judge} --config {outside}",
        "send": f"{RUN} traffic send --questions {records} --rate 50 --url {url} --model m --state {{state}}",
    }  # fmt: skip
    made = folder / "state"
    say = f"{RUN} traffic import {records} --config {config} --state {made}"
    subprocess.run([BASH, "-c", say], check=True, capture_output=True, env=variables())
    may_mount = subprocess.run([BASH, "-c", "unshare -m true"], check=False, capture_output=True).returncode == 0
    for entry in read_yaml("environments"):
        if entry.get("root") and not may_mount:
            continue
        for command in entry.get("commands", ["quick"]):
            tmp = folder / f"{entry['name']}-{command}"
            shutil.copytree(made, tmp / "state")
            filled = commands[command].format(state=tmp / "state", tmp=tmp)
            before = entry.get("shell", "true").format(state=tmp / "state")
            shell = f"{before}; ({filled}) {entry.get('ends', '')}"
            if entry.get("root"):
                shell = f"unshare -m bash -c '{shell}'"
            own = variables(**{k: str(v).format(tmp=tmp) for k, v in entry.get("set", {}).items()})
            for name in entry.get("unset", []):
                own.pop(name, None)
            right = entry.get("exit", 0)
            yield Check(
                f"environments: {tmp.name}", shell, own, exit=() if right == "any" else (right,),
                says=entry.get("says", ""), hides=entry.get("hides", ""),
            )  # fmt: skip


def odd_servers(folder: Path, servers: OddServers) -> Iterator[Check]:
    """Each server as a judge and as what `traffic send` asks."""
    for entry in read_yaml("servers"):
        name = entry["name"]
        here = folder / name
        config, url = write_settings(here, servers.url(name)), servers.url(f"{name}/sent")
        records = write_records(here / "records.jsonl", n=200 if "asked_at_most" in entry else 2)
        judge = f"{RUN} judge --records {records} --out {here}/out.jsonl --config {config} --state {here}/state"
        judged = (0,) if "verdict" in entry else (1,)

        def after(out: Path = here / "out.jsonl", entry: dict[str, Any] = entry) -> str:
            asked = servers.asked[entry["name"]]
            if asked > entry.get("asked_at_most", asked):
                return f"was asked {asked} times"
            found = out.is_file() and [json.loads(line)["verdict"] for line in out.read_text().splitlines()]
            wanted = entry.get("verdict", "unjudged")
            return "" if not found or set(found) == {wanted} else f"the verdicts are {found}, not {wanted}"

        yield Check(f"servers: {name}-judge", judge, variables(), exit=judged, says=entry.get("says", ""), after=after)
        send = f"{RUN} traffic send --questions {records} --rate 50 --url {url} --model m --state {here}/sent"
        yield Check(f"servers: {name}-send", send, variables(), exit=())


def loop_state(folder: Path) -> Path:
    """A folder with a state folder after a whole loop on a tiny setting, and its configuration."""
    here = folder / "loop"
    config = write_config(here, gate=LENIENT)
    command = f"{RUN} --config {config} --state {here / 'state'}"
    done = subprocess.run([BASH, "-c", command], capture_output=True, text=True, env=variables(), check=False)
    if done.returncode:
        sys.exit(f"the loop failed\n{done.stdout}{done.stderr}")
    return here


def cases(folder: Path, servers: OddServers) -> Iterator[Check]:
    """Each case as a script of bash."""
    config = write_settings(folder / "given", servers.url("plain-pass"))
    records = write_records(folder / "records.jsonl", n=12)
    loop: Path | None = None
    for entry in read_yaml("cases"):
        here = folder / entry["name"]
        here.mkdir(parents=True)
        own = variables(HERE=str(here), CONFIG=str(config), RECORDS=str(records), ROOT=str(ROOT), PYTHON=sys.executable)
        own["URL"] = servers.url("").removesuffix("//v1")
        if "state" in entry:
            loop = loop or loop_state(folder)
            own |= {"STATE": str(here / "state"), "LOOP_CONFIG": str(loop / "config.yaml")}
            shutil.copytree(loop / "state", here / "state")
        script = f'set -e\nontopic() {{ {RUN} "$@"; }}\n{entry["run"]}'
        right = entry.get("exit", 0)
        yield Check(
            f"cases: {entry['name']}", script, own, exit=() if right == "any" else (right,),
            says=entry.get("says", ""), hides=entry.get("hides", ""),
        )  # fmt: skip


KINDS = {"files": files, "environments": environments, "servers": odd_servers, "cases": cases}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kinds that are asked for, and print what is wrong; the number of faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="all of them by default")
    parser.add_argument("--only", default="", help="a regular expression for the names of the checks")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ontopic-outside-") as folder, OddServers(read_yaml("servers")) as servers:
        checks = [check for kind in options.kinds or KINDS for check in KINDS[kind](Path(folder) / kind, servers)]
        checks = [check for check in checks if re.search(options.only, check.name)]
        wrong = 0
        with ThreadPoolExecutor(options.processes) as pool:
            faults = tqdm(pool.map(Check.fault, checks), total=len(checks), unit=" checks")
            for check, fault in zip(checks, faults, strict=True):
                if fault:
                    wrong += 1
                    tqdm.write(f"\n=== {check.name}\n    {check.shell}\n{fault}")
    print(f"\n{len(checks) - wrong} of {len(checks)} are right")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
