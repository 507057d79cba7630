"""Erasing traffic everywhere it went: the places, in what order, and what is said and entered of it.

What is to go is written down first, in a file of the state folder. So an erasure that was killed is finished by the
next one. Beside a loop or `watch` that holds the folder, the file stays, and these go through the places once more when
they have written what they were working on.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import typer
from filelock import Timeout

from ontopic.commands.locking import nobody_works
from ontopic.commands.options import Project, account
from ontopic.errors import UserError
from ontopic.state import shared_erasing
from ontopic.state.erased_files import (
    BINARY,
    UNREADABLE,
    checkpoint,
    erase_from_database,
    erase_from_file,
    holds,
    left_of,
    scrub,
)
from ontopic.state.erasing import Erasing, Order
from ontopic.state.workspace import Workspace, is_there

RECORDS = "records"
"""How the traffic's records are called among what was erased."""
_WAIT_S = 600  # as long as another erasure may take
_BY_RECORD = ("members", "replays")  # tables of windows.db that go by records' ids
_IN_WORDS = {
    "alerts.db": "alerts",
    "discordant": "pairs of answers to label",
    "evidently": "snapshots of the dashboard",
    "judges": "files of judges",
    "mlartifacts": "files of MLflow's runs",
    "mlflow.db": "MLflow's database",
    "reports": "pages",
    "windows.db": "windows' results and actions",
    "zenml": "files of ZenML's artifacts and its database",
}


def erase(
    workspace: Workspace, collect: Callable[[Erasing], Order | None], *, tell: Callable[[str], object]
) -> dict[str, int]:
    """Finish what was begun, then erase what ``collect`` writes down; returns how much was erased, by place.

    Args:
        collect: returns ``None`` where there is nothing.
        tell: called with a line for the reader.

    Raises:
        UserError: another erasure runs, or the traffic store can't be opened.
    """
    workspace.root.mkdir(parents=True, exist_ok=True)
    try:
        with workspace.lines(workspace.erasures).lock("lock", timeout_s=_WAIT_S):
            _finish(workspace, tell=tell, alone=False)
            with Erasing(workspace.erasures / f"{uuid.uuid4().hex}.db") as erasing:
                try:
                    if (order := collect(erasing)) is None:
                        return {}
                    erasing.begin(order)
                finally:
                    if erasing.order is None:
                        erasing.end()
                return _carry_out(workspace, erasing, tell=tell, alone=False)
    except Timeout:
        raise UserError(f"another erasure is at work in {workspace.root}; wait for it") from None


def order_of(erasing: Erasing, what: str, *, project: Project, of_person: bool) -> Order | None:
    """The order of what is collected; ``None`` where that is nothing. The policy's own words stay everywhere.

    Args:
        what: it is, for the auditor.
    """
    if not erasing.n():
        return None
    _add_corrections(project.workspace, erasing)
    erasing.spare(project.policy.all_refusals)
    return Order(by=account(), what=what, registered_model=project.policy.registered_model, of_person=of_person)


def _add_corrections(workspace: Workspace, erasing: Erasing) -> None:
    """What labellers wrote in the place of these records' answers goes where it was taught from, but for what they
    wrote of others too."""
    from ontopic.data.labels import LabelStore

    for path in workspace.lines_in(workspace.labels):
        corrected = [row for row in LabelStore(workspace.lines(path)).labels() if row.correction]
        erasing.add((), {row.correction for row in corrected if erasing.has_id(row.record_id)})
        erasing.spare(row.correction for row in corrected if not erasing.has_id(row.record_id))


def confirm(what: str) -> None:
    """Ask whether to go on.

    Raises:
        UserError: the answer is no, or nobody is there to be asked.
    """
    if not sys.stdin.isatty():
        raise UserError(f"{what}; nobody is there to say yes: give --yes")
    if not typer.confirm(f"{what}. Go on?"):
        raise UserError("nothing was erased")


def finish(workspace: Workspace, *, tell: Callable[[str], object]) -> None:
    """Finish the erasures that were begun, for who holds the lock of the state folder; not while one is at work."""
    shared_erasing.fetch(workspace)
    if not workspace.erasures.is_dir() or not any(workspace.erasures.glob("*.db")):
        return
    try:
        with workspace.lines(workspace.erasures).lock("lock", timeout_s=0):
            _finish(workspace, tell=tell, alone=True)
    except Timeout:
        return


def _finish(workspace: Workspace, *, tell: Callable[[str], object], alone: bool) -> None:
    """What was only being collected is dropped, as nothing of it has gone yet.

    Args:
        alone: whether the caller holds the lock of the state folder.
    """
    shared_erasing.fetch(workspace)
    for path in sorted(workspace.erasures.glob("*.db")) if workspace.erasures.is_dir() else ():
        with Erasing(path) as erasing:
            order = erasing.order
            if order is None:
                erasing.end()
                continue
            if not order.carried_out:
                tell("an erasure that was begun and not finished is finished first")
            _carry_out(workspace, erasing, tell=tell, alone=alone)


def _carry_out(workspace: Workspace, erasing: Erasing, *, tell: Callable[[str], object], alone: bool) -> dict[str, int]:
    """Go through all places, enter it in the promotion record, and say what is left."""
    with ExitStack() as held:
        alone = alone or held.enter_context(nobody_works(workspace))
        order = erasing.order
        assert order is not None  # noqa: S101 (whoever calls has seen to it)
        shared_erasing.share(workspace, erasing)
        _traffic(workspace, erasing, order=order, last=False)
        for place in _PLACES:
            place(workspace, erasing)
        _traffic(workspace, erasing, order=order, last=True)
        counts = erasing.counts()
        if counts or not order.carried_out:
            _enter(workspace, erasing, order=order)
            for line in _in_words(erasing):
                tell(line)
        erasing.begin(order.model_copy(update={"carried_out": True}))
        if alone:
            shared_erasing.end(workspace, erasing)
        else:
            shared_erasing.hand_over(workspace, erasing)
            tell("a loop or watch is at work in this folder; it erases once more what it is writing now")
        return counts


def _traffic(workspace: Workspace, erasing: Erasing, *, order: Order, last: bool) -> None:
    """The store and the spools, at first and once more at the end, for what a service stored meanwhile."""
    from ontopic.traffic.erasure import erase_records, erase_spooled, spare_others
    from ontopic.traffic.store import TrafficStore

    for folder in spools(workspace):
        erase_spooled(folder, erasing)
    if not is_there(workspace.traffic):
        return
    with TrafficStore(workspace.traffic) as store:
        erase_records(store, erasing, repeated=order.of_person)
        if not last:
            spare_others(store, erasing, repeated=order.of_person)
        elif order.of_person:
            store.scrub()


def _windows(workspace: Workspace, erasing: Erasing) -> None:
    if not is_there(workspace.windows):
        return
    from ontopic.monitoring.windows import WindowStore
    from ontopic.watch.actions import ActionStore

    of_person = erasing.order is not None and erasing.order.of_person

    with WindowStore(workspace.windows, "") as windows, ActionStore(workspace.windows, "") as actions:
        for ids in erasing.ids():
            erasing.count("verdicts in windows", windows.forget(ids))
            erasing.count("verdicts on predecessors' answers", actions.forget(ids))
    if workspace.state_url is not None:
        _shared_texts(workspace.state_url, erasing, of_person=of_person)
        return
    with closing(sqlite3.connect(workspace.windows, timeout=60, isolation_level=None)) as database:
        (scrub if of_person else checkpoint)(database)


def _shared_texts(url: str, erasing: Erasing, *, of_person: bool) -> None:
    """What ``_files`` does for the files of these tables; those that go by records' ids need it not."""
    from ontopic.monitoring import alerts, tables
    from ontopic.state.erased_tables import erase_from_tables, scrub_tables
    from ontopic.watch import actions

    found = {
        "alerts": alerts.METADATA.sorted_tables,
        "windows' results and actions": [*tables.METADATA.sorted_tables, *actions.METADATA.sorted_tables],
    }
    for what, of_it in found.items():
        erasing.count(what, erase_from_tables(url, erasing, tables=[t for t in of_it if t.name not in _BY_RECORD]))
        if of_person:
            scrub_tables(url, of_it)


def _verdict_cache(workspace: Workspace, erasing: Erasing) -> None:
    if is_there(workspace.verdicts):
        from ontopic.judges.llm.verdict_cache import VerdictCache

        erasing.count("cached grades of LLM judges", VerdictCache(workspace.verdicts).erase(erasing.questions()))


def _labels(workspace: Workspace, erasing: Erasing) -> None:
    from ontopic.data.labels import LabelStore

    for path in workspace.lines_in(workspace.labels):
        dropped = LabelStore(workspace.lines(path)).erase(erasing)
        erasing.count("labels", sum(dropped.values()))
        if dropped.get("train"):
            erasing.note(
                "trained", f"an embedded judge of {path.stem} learned from such labels; the next run learns anew"
            )


def _preference_edits(workspace: Workspace, erasing: Erasing) -> None:
    from ontopic.training.preference_edits import PreferenceEdits

    for path in workspace.lines_in(workspace.preference_edits):
        erasing.count("edits of training pairs", PreferenceEdits(workspace.lines(path)).erase(erasing))


def _versions(workspace: Workspace, erasing: Erasing) -> None:
    """Which versions were trained on it, while what they were trained on still says so."""
    from ontopic.registry import erased_runs

    if not (workspace.owns_mlflow and workspace.mlflow_file.is_file()):
        return
    for table in workspace.artifacts.glob(f"*/artifacts/{erased_runs.PREFERENCES}"):
        if not holds(json.loads(table.read_bytes()), erasing):
            continue
        with closing(sqlite3.connect(f"{workspace.mlflow_file.as_uri()}?mode=ro", uri=True)) as database:
            query = "SELECT value FROM params WHERE run_uuid = ? AND key = 'preferences_sha256'"
            for (sha256,) in database.execute(query, (table.parent.parent.name,)):
                erased_runs.note_trained(workspace, sha256, erasing=erasing)


def _evidence(workspace: Workspace, erasing: Erasing) -> None:
    from ontopic.evaluation.erased_evidence import erase_from_evidence

    erase_from_evidence(workspace, erasing)


def _servers(workspace: Workspace, erasing: Erasing) -> None:
    from ontopic.registry.erased_runs import erase_from_own, erase_from_server

    if workspace.owns_mlflow:
        erase_from_own(workspace, erasing)
        return
    from ontopic.config.network import reach_this_machine_directly

    reach_this_machine_directly()
    erase_from_server(workspace, erasing)
    if (workspace.root / "mlflow_uri").is_file():
        why = "they are not in this folder; delete the runs there, with their artifacts"
        erasing.note("left", "the artifacts of your own ZenML stack", value=why)


def _shared(workspace: Workspace, erasing: Erasing) -> None:
    """The files that machines share: what ``_files`` does with those of a state folder."""
    if workspace.state_url is None:
        return
    from ontopic.state.erased_tables import scrub_tables
    from ontopic.state.shared import METADATA

    files, apart = workspace.files, (workspace.evidence, workspace.erasures)
    for path in files.within(workspace.root):
        if path == workspace.user_key or any(path.is_relative_to(folder) for folder in apart):
            continue
        if path.suffix in BINARY:
            continue
        content = files.read(path)
        if (left := left_of(path.name, content, erasing=erasing)) == content:
            continue
        what = _IN_WORDS.get(path.relative_to(workspace.root).parts[0], "other files")
        erasing.count(what)
        if left is None:
            files.delete(path)
            erasing.note("deleted", path.relative_to(workspace.root).as_posix())
        else:
            files.write(path, left)
    if erasing.order is not None and erasing.order.of_person:
        scrub_tables(workspace.state_url, METADATA.sorted_tables)


def _files(workspace: Workspace, erasing: Erasing) -> None:
    """All else in the state folder: pages, tables, artifacts, databases and logs."""
    for path in _others(workspace):
        place = path.relative_to(workspace.root)
        what = "logs" if path.suffix == ".log" else _IN_WORDS.get(place.parts[0], "other files")
        try:
            if path == workspace.windows:
                changed = erase_from_database(path, erasing, known=_BY_RECORD)
            else:
                changed = erase_from_file(path, erasing)
        except UNREADABLE as error:
            erasing.note("left", str(place), value=f"it cannot be read or written ({type(error).__name__})")
            continue
        erasing.count(what, int(changed))
        if changed and not path.exists():
            erasing.note("deleted", str(place))


def _others(workspace: Workspace) -> Iterator[Path]:
    """The files of the folder but those of weights, of the stores that go by records' ids, and of what has its turn."""
    workspace = workspace.by_itself
    apart = {workspace.models, workspace.registry, workspace.evidence, workspace.erasures}
    own = {workspace.traffic, workspace.verdicts, workspace.keys, workspace.user_key, workspace.promotion_record}
    for folder, folders, names in os.walk(workspace.root):
        folders[:] = sorted(each for each in folders if Path(folder) / each not in apart)
        for path in (Path(folder) / name for name in sorted(names)):
            if path not in own and path.is_file() and not path.is_symlink():
                yield path


def _copy(workspace: Workspace, erasing: Erasing) -> None:
    """What is left in the folder of before its state was moved to where machines share it."""
    if workspace.state_url is None:
        return
    order, erasing.of_copy = erasing.order, ", of the copy that a move left"
    assert order is not None  # noqa: S101 (whoever calls has seen to it)
    try:
        for place in (_windows, _verdict_cache, _labels, _preference_edits, _evidence):
            place(workspace.by_itself, erasing)
        _traffic(workspace.by_itself, erasing, order=order, last=True)
    finally:
        erasing.of_copy = ""


def spools(workspace: Workspace) -> list[Path]:
    """Where records wait until the traffic store can be written."""
    return [Workspace(root=root).spool for root in (workspace.root, workspace.loop)]


_PLACES = (_windows, _verdict_cache, _labels, _preference_edits, _versions, _evidence, _shared, _servers, _files, _copy)
"""Where traffic goes. Each takes what is erased out of its place, notes how much, and may be called again."""


def _enter(workspace: Workspace, erasing: Erasing, *, order: Order) -> None:
    """In the promotion record: who, when, how many of what; no name, no id and no text."""
    from ontopic.evaluation.erased_evidence import REWRITTEN
    from ontopic.registry.promotions import open_registry

    facts = {
        "records": erasing.n(),
        "erased": erasing.counts(),
        "trained": sorted(erasing.notes("trained")),
        "deleted": sorted(erasing.notes("deleted")),
        "left": erasing.notes("left"),
        "rewritten": [[*note.split(" ", 1)[::-1], after] for note, after in erasing.notes(REWRITTEN).items()],
    }
    registry = open_registry(workspace, order.registered_model)
    if registry.versions():
        registry.enter("erasure", "", by=order.by, why=order.what, facts=facts)
    else:  # an entry's hash is kept with the registered model, and there is none
        registry.record.add("erasure", order.registered_model, version="", by=order.by, why=order.what, facts=facts)


def _in_words(erasing: Erasing) -> Iterator[str]:
    counts = ", ".join(f"{n:,} {what}" for what, n in sorted(erasing.counts().items()))
    yield f"Erased: {counts or 'nothing'}"
    for what in sorted(erasing.notes("trained")):
        yield f"Not undone: {what}"
    for what in sorted(erasing.notes("deleted")):
        yield f"Deleted as a whole: {what}"
    for what, why in sorted(erasing.notes("left").items()):
        yield f"NOT erased: {what}: {why}"
