"""Ray Data as the engine of judging: partitions are shared out among worker processes, on one machine or a cluster.

A partition is one task. The worker reads its records itself, so none pass through the process that gives the command.
A worker that dies is started anew and its partition judged again; a partition whose file is whole never is.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ontopic.config.policy import Policy
from ontopic.config.settings import JudgeChoice
from ontopic.data.partitions import Partition, Source
from ontopic.errors import UserError
from ontopic.judges.judge import Judge
from ontopic.judges.judged_partitions import JudgedPartition, judge_partition, judged_before, verdicts_file
from ontopic.judges.opening import open_judge
from ontopic.judges.panel import PanelJudge
from ontopic.state.whole_file import whole_folder
from ontopic.state.workspace import Workspace, open_workspace

_STORE_BYTES = 128 << 20  # Ray's object store, through which a few numbers a partition go
_MOST_TRIES = 4  # of a partition whose worker dies: Ray would try for ever
_LISTENS_S = 10.0  # until a cluster's machine must have taken a connection
_LONGEST_ROOT = 36  # of Ray's folder: the sockets in it have names of 107 characters at most


class Cluster(NamedTuple):
    """Where workers run.

    Attributes:
        address: of a running Ray; empty for one on this machine, which is started and ended.
        workers: how many; a CPU each where ``None``.
    """

    address: str
    workers: int | None = None


@dataclass(frozen=True)
class PackedJudge:
    """A judge as it travels to other machines: its configuration, and the files of those that were learned.

    Keys of LLM servers don't: each machine has them in its own environment.

    Attributes:
        judge_id: that of the judge here.
        learned: the files of learned judges, by folder and name.
    """

    judge_id: str
    choice: JudgeChoice
    policy: Policy
    root: Path
    learned: dict[str, dict[str, bytes]]

    @classmethod
    def of(
        cls, judge: Judge, choice: JudgeChoice, *, policy: Policy, workspace: Workspace, travels: bool
    ) -> PackedJudge:
        """The judge that ``open_judge`` gave.

        Args:
            travels: to machines that may not see the state folder.
        """
        members = judge.judges if isinstance(judge, PanelJudge) else [judge]
        folders = [workspace.judges / each.id for each in members] if travels else []
        learned = {
            folder.name: {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            for folder in folders
            if folder.is_dir()
        }
        return cls(judge.id, choice, policy, workspace.root, learned)

    def open(self) -> Judge:
        """The judge, on the machine that this runs on.

        Raises:
            UserError: there it is another one.
        """
        workspace = open_workspace(self.root)
        for name, files in self.learned.items():
            if not (workspace.judges / name).is_dir():
                with whole_folder(workspace.judges / name) as part:
                    for file, content in files.items():
                        (part / file).write_bytes(content)
        judge = open_judge(self.choice, self.policy, workspace=workspace)
        if judge.id != self.judge_id:
            raise UserError(
                f"on {socket.gethostname()} the judge is {judge.id}, and not {self.judge_id}; have the same release, "
                "policy and labelled data there"
            )
        return judge


class _Worker:
    """What runs in a worker process: judges one partition after another."""

    def __init__(self, source: Source, packed: PackedJudge, *, out: Path) -> None:
        self._source, self._packed, self._out = source, packed, out

    @cached_property
    def _judge(self) -> Judge:
        return self._packed.open()

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        partition, mistake = Partition.model_validate_json(row["partition"]), ""
        tries = verdicts_file(self._out, partition).with_suffix(".tries")
        try:
            tries.parent.mkdir(parents=True, exist_ok=True)
            with tries.open("a") as file:
                file.write(".")
            if tries.stat().st_size > _MOST_TRIES:
                raise UserError(
                    f"a worker died {_MOST_TRIES} times over {partition.name}, maybe for want of memory; let Ray have "
                    "fewer CPUs, such as by taskset"
                )
            done = judge_partition(self._source, partition, judge=self._judge, out=self._out).model_dump_json()
        except UserError as error:  # as a value: Ray would pack it into a traceback
            done, mistake = "", str(error)
        tries.unlink(missing_ok=True)
        return {"done": done, "mistake": mistake, "host": socket.gethostname()}


def judge_with_ray(
    source: Source,
    packed: PackedJudge,
    *,
    partitions: list[Partition],
    out: Path,
    workspace: Workspace,
    cluster: Cluster,
    advance: Callable[[int], object],
) -> tuple[list[JudgedPartition], int]:
    """Judge all partitions that are not judged yet, each into a Parquet file in ``out``.

    Args:
        partitions: of the source.
        advance: called with the number of records done since the last call, those judged before included.

    Returns:
        All partitions, and how many of them an earlier call had judged.

    Raises:
        UserError: what ``judge_partition`` raises; Ray cannot be reached; or a worker's files are
            not seen here.
    """
    found = {each.name: judged_before(out, each, judge_id=packed.judge_id) for each in partitions}
    done = [each for each in found.values() if each is not None]
    left = [each for each in partitions if found[each.name] is None]
    kept = len(done)
    advance(sum(each.n for each in partitions if found[each.name] is not None))
    if not left:
        return done, kept
    for leftover in (*out.rglob(".*.part"), *out.rglob("*.tries")):  # of workers that were killed
        leftover.unlink(missing_ok=True)
    sizes = {each.name: each.n for each in left}
    with _ray(workspace, cluster) as workers:
        given = {"source": source, "packed": packed, "out": out}
        for row in _results(given, left, workers=min(workers, len(left))):
            if row["mistake"]:
                raise UserError(row["mistake"])
            judged = JudgedPartition.model_validate_json(row["done"])
            if not verdicts_file(out, Partition(name=judged.name, source="", n=0, digest="")).is_file():
                where = row["host"]
                raise UserError(f"{out}: what {where} wrote is not seen here; give --out a folder that all share")
            done.append(judged)
            advance(sizes[judged.name])
    return sorted(done, key=lambda each: each.name), kept


def _results(given: dict[str, Any], partitions: list[Partition], *, workers: int) -> Iterator[dict[str, str]]:
    """What the workers return, as it comes."""
    import ray.data

    pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)
    rows = [{"partition": each.model_dump_json()} for each in partitions]
    blocks = ray.data.from_items(rows, override_num_blocks=len(rows))
    worker: Any = _Worker  # Ray makes it and then calls it, which its types do not say
    yield from blocks.map(worker, fn_constructor_kwargs=given, compute=pool, num_cpus=1).iter_rows()


@contextmanager
def _ray(workspace: Workspace, cluster: Cluster) -> Iterator[int]:
    """Ray while this lasts, and how many workers there may be. What it says goes to a log in its folder."""
    with ExitStack() as stack:
        lock = FileLock(workspace.ray_lock)
        try:
            stack.enter_context(lock.acquire(timeout=0))
        except Timeout:
            raise UserError(
                f"another `judge --engine ray` uses {workspace.root}; wait for it, or give another folder with --state"
            ) from None
        shutil.rmtree(workspace.ray, ignore_errors=True)  # of one that was killed
        workspace.ray.mkdir(parents=True)
        stack.callback(shutil.rmtree, workspace.ray, ignore_errors=True)
        stack.enter_context(_silent(workspace.ray / "ray.log"))
        yield stack.enter_context(_started(workspace, cluster))


@contextmanager
def _started(workspace: Workspace, cluster: Cluster) -> Iterator[int]:
    import ray.data

    address = cluster.address
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with _short(workspace.ray) as folder:
        own: dict[str, Any] = {"num_cpus": cluster.workers or len(os.sched_getaffinity(0)), "include_dashboard": False}
        own |= {"_temp_dir": str(folder), "object_store_memory": _STORE_BYTES}
        try:
            _check_listening(address)
            ray.init(address=address or "local", **common, **({} if address else own))
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {address}" if address else "on this machine"
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"Ray cannot be reached {where} ({why}); check --ray-address, and the cluster's token in "
                "RAY_AUTH_TOKEN_PATH"
            ) from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        try:
            cpus = int(ray.cluster_resources().get("CPU", 1))
            yield max(1, min(cluster.workers or cpus, cpus))
        finally:
            ray.shutdown()


def _check_listening(address: str) -> None:
    """Ray itself would try for seven minutes.

    Raises:
        ConnectionError: nothing listens at an address of the form ``[ray://]HOST:PORT``.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_S).close()
    except OSError as error:  # a name that is not known, no route, no answer in time
        raise ConnectionError(str(error)) from error


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A folder under a name that is short enough for the sockets in it."""
    if len(os.fsencode(folder)) <= _LONGEST_ROOT:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ray-") as near:
        link = Path(near) / "r"
        link.symlink_to(folder)
        yield link


@contextmanager
def _silent(log: Path) -> Iterator[None]:
    """Have all that this process prints in a log, but for what is written to ``sys.stderr``: our progress.

    Ray's threads print to ``sys.stdout``, its library to the file descriptors, its loggers to the stream that was
    standard error when they were made.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    disabled = logging.root.manager.disable
    terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")
    with log.open("w", buffering=1, errors="replace") as file, terminal:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            logging.disable(logging.CRITICAL)
            with redirect_stdout(file), redirect_stderr(terminal):
                yield
        finally:
            logging.disable(disabled)
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
