"""``label``: a person labels records on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from ontopic.commands.options import Project, beginning, console, judge_of
from ontopic.commands.traffic import stored_traffic
from ontopic.commands.typed import line, read_any_bytes
from ontopic.errors import UserError
from ontopic.records import Record, Verdict
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from ontopic.data.given_labels import GivenLabel
    from ontopic.data.labels import Draw, LabelStore
    from ontopic.judges.cards.card import JudgeCard

_RECORDS = 20
_NEWEST = 20_000  # records of a version, among which those to label are drawn


@beginning
def label(
    project: Project,
    *,
    records: Annotated[Path | None, typer.Option(help="Records to label, not the newest model's traffic.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Labels given elsewhere, maybe with a correction; nothing is asked.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("-n", "--number", min=1, help="How many: records (20), for discordant pairs (60).")
    ] = None,
    given_in: Annotated[
        Literal["mlflow"] | None,
        typer.Option("--from", help="Take in what people labelled in MLflow's review queue, and fill that up again."),
    ] = None,
    by: Annotated[
        Literal["random", "uncertainty", "feedback", "discordant"],
        typer.Option(
            help="random: to correct the score; uncertainty: what teaches it most; feedback: what got a thumb; "
            "discordant: the gate's answers, to see whether the judge errs on both models alike."
        ),
    ] = "random",
) -> None:
    """Label records one by one on the terminal, and print how the judge does on them."""
    from ontopic.data.labels import LabelStore, labels_of
    from ontopic.progress import progress

    def judged(asked: Sequence[Record]) -> list[Verdict]:
        judge = judge_of(project)
        with progress("verdicts", len(asked), unit="records") as advance:
            return judge.judge(asked, advance)

    read_any_bytes()
    if by == "discordant":
        if given_in is not None:
            raise UserError(
                "--from mlflow and --by discordant exclude each other: MLflow says which model gave an answer, and who "
                "labels the gate's answers must not know"
            )
        _label_discordant(project, number, files=[records, labels])
        return
    store = LabelStore(labels_of(project.policy, project.workspace), plain=_plain)
    if given_in is not None:
        if records is not None or labels is not None:
            raise UserError("--from mlflow takes neither --records nor --labels: its records are of the traffic")
        _label_in_mlflow(project, store, by=by, n=number or _RECORDS, judged=judged)
        return
    if labels is not None:
        if records is not None or number is not None:
            raise UserError("--labels takes neither --records nor --number: its rows are labelled already")
        console.print(_taken(labels, store, by=by))
        return
    _label_here(project, store, by=by, records=records, n=number or _RECORDS, judged=judged)


def _label_here(
    project: Project,
    store: LabelStore,
    *,
    by: Draw,
    records: Path | None,
    n: int,
    judged: Callable[[Sequence[Record]], list[Verdict]],
) -> None:
    """Ask on the terminal for labels, record by record."""
    from ontopic.data.drawing import records_to_label
    from ontopic.data.labeller import label_records
    from ontopic.progress import working

    found, notes, proposed = _found(project, records, feedback=by == "feedback")
    chosen = records_to_label(found, store, by=by, n=n, judge=judged, notes=notes, proposed=proposed)
    console.print(str(chosen))
    labelled = label_records(
        chosen.records,
        store,
        by=by,
        definition=project.policy.definition,
        ask=_line,
        notes=chosen.notes or None,
        proposed=chosen.proposed or None,
    )
    splits = [row.split for row in store.labels()]
    card, training = splits.count("calibration"), splits.count("train")
    console.print(
        f"{labelled} labelled now; {store.kept} holds {card} labels of random records and {training} for training"
    )
    if labelled:
        with working():
            console.print(_on_traffic(project, chosen.records[0].model_version) if by == "random" else _card(project))


def _card(project: Project) -> JudgeCard:
    from ontopic.judges.cards.calibration import card_of

    return card_of(judge_of(project), project.policy, workspace=project.workspace)


def _label_in_mlflow(
    project: Project, store: LabelStore, *, by: Draw, n: int, judged: Callable[[Sequence[Record]], list[Verdict]]
) -> None:
    """Take in the labels that reviewers completed, and let as many records wait for them as are asked for.

    Args:
        n: how many records are to wait.
    """
    from ontopic.data.drawing import records_to_label
    from ontopic.monitoring.review_queue import LabelQueue
    from ontopic.registry.tracking import open_tracking

    policy, workspace = project.policy, project.workspace
    experiment = open_tracking(workspace, policy.registered_model)
    queue = LabelQueue(policy, experiment, by=by, uri=workspace.mlflow_uri)
    known = queue.read()
    console.print(_kept(known.labelled, store, by=by))
    queue.remove(known.completed)
    wanted = max(0, n - known.waiting)
    found = queue.unseen(_found(project, None, feedback=by == "feedback").records) if wanted else []
    chosen = records_to_label(found, store, by=by, n=wanted, judge=judged).records if found else []
    queue.add(chosen)
    console.print(
        f"{known.waiting + len(chosen)} records wait in MLflow's review queue {queue.name!r}, {len(chosen)} of them "
        "new. Label them there (python run.py ui, page Review), then take the labels in with this command again"
    )


def _taken(file: Path, store: LabelStore, *, by: Draw) -> str:
    """Keep the labels of a file; what became of its rows."""
    from ontopic.data.given_labels import GivenLabel
    from ontopic.data.rows import load_rows

    return _kept(load_rows(file, GivenLabel).rows, store, by=by)


def _kept(rows: Sequence[GivenLabel], store: LabelStore, *, by: Draw) -> str:
    """Keep labels that were given elsewhere; what became of them."""
    from ontopic.data.given_labels import take_labels

    taken = take_labels(rows, store, by=by)
    said = f"{taken.kept} labels were kept, {taken.known} were there already; in {store.kept}"
    if taken.unlabelled:
        said += f"\n{taken.unlabelled} rows have no label and were left out"
    if taken.other_half:
        other = "uncertainty" if by == "random" else "random"
        said += (
            f"\n{taken.other_half} are of the half of the questions that is left to --by {other}, or are blank or too "
            "long, and were left out"
        )
    return said


def _plain(text: str) -> str:
    from ontopic.traffic.redaction import redact

    return redact(text).text


def _label_discordant(project: Project, number: int | None, *, files: Sequence[Path | None]) -> None:
    """Have both answers of pairs of the newest gate labelled; nothing shown tells which model gave which."""
    if any(files):
        raise UserError("a file and --by discordant exclude each other: these are answers of the gate")
    from ontopic.data.labeller import label_records
    from ontopic.data.labels import LabelStore, labels_of
    from ontopic.evaluation.discordant import PAIRS, answers_to_label

    store, n = LabelStore(labels_of(project.policy, project.workspace), plain=_plain), number or PAIRS
    answers = answers_to_label(project.workspace, project.policy.registered_model, store=store, n=n)
    console.print(
        f"{len(answers)} answers of the newest gate wait for a label: both of {n} random questions on which champion "
        f"and challenger got different verdicts, and of {n} on which they got the same (fewer where there are no "
        "more), in no order. Their labels say how the judge errs on each model, and nothing else"
    )
    scopes = {True: "The question is in scope.", False: "The question is out of scope.", None: "No label of its scope."}
    notes = [scopes[record.in_scope] for record in answers]
    definition = project.policy.definition
    labelled = label_records(answers, store, by="discordant", definition=definition, ask=_line, notes=notes)
    console.print(f"{labelled} labelled now; the next gate of the same models counts them: python run.py")


def _on_traffic(project: Project, version: str) -> str:
    """How the judge errs on traffic, by its random labels; how many more it takes where they are too few."""
    from ontopic.judges.cards.traffic_card import labelled_traffic
    from ontopic.monitoring.standing import uncorrected_in_words

    labels = labelled_traffic(project.policy, project.workspace, judge=lambda: judge_of(project))
    card = labels.card(version)
    if card is None:
        return f"The score of version {version or 'unknown'} is {uncorrected_in_words(len(labels.of(version)))}"
    return f"The judge on labelled traffic, which corrects the score of version {version or 'unknown'}\n{card}"


def _line(prompt: str) -> str:
    try:
        return line(prompt)
    except KeyboardInterrupt as stopped:
        stopped.add_note("the next run goes on from here")  # for whoever says that it was stopped
        raise


class _Found(NamedTuple):
    """Records to choose from, and by their ids what else to show of each, and right answers that are proposed."""

    records: list[Record]
    notes: dict[str, str]
    proposed: dict[str, str]


def _found(project: Project, file: Path | None, *, feedback: bool) -> _Found:
    if feedback and file is not None:
        raise UserError("--records and --by feedback exclude each other: feedback is on stored traffic")
    if feedback:
        return _with_feedback(project)
    if file is not None:
        from ontopic.data.drawing import without_label
        from ontopic.data.labelled import LabelledRecord
        from ontopic.data.rows import load_rows

        return _Found(without_label(load_rows(file, LabelledRecord).rows), {}, {})
    return _Found(newest_traffic(project.workspace, project.policy.registered_model), {}, {})


def newest_traffic(workspace: Workspace, registered_model: str) -> list[Record]:
    """The newest records of the version of a registered model that was asked last, in the order of time.

    Raises:
        UserError: there is no traffic yet.
    """
    with stored_traffic(workspace, registered_model) as store:
        for newest in store.newest(1):
            return store.newest(_NEWEST, model_version=newest.model_version)
    raise UserError(f"there is no traffic yet of {registered_model}; run the loop, or give records with --records")


def _with_feedback(project: Project) -> _Found:
    """The records that somebody gave a thumb, the newest first, those with a right answer before the others."""
    with stored_traffic(project.workspace, project.policy.registered_model) as store:
        said: dict[str, list[str]] = {}
        proposed: dict[str, str] = {}
        for each in sorted(store.feedback(), key=lambda each: not each.correction.strip()):
            lines = said.setdefault(each.record_id, [])
            lines.append(f"thumb {each.thumb} ({each.by or 'no key'}) {each.comment}")
            if each.correction.strip():
                lines.append(f"right answer ({each.by or 'no key'}): {each.correction}")
                proposed.setdefault(each.record_id, each.correction)
        records = {record.id: record for record in store.records(ids=list(said))}
    if not said:
        raise UserError("there is no feedback yet; clients give it by POST /v1/feedback (docs/reference/serving.md)")
    notes = {i: "\n".join(lines) for i, lines in said.items()}
    return _Found([records[i] for i in said if i in records], notes, proposed)
