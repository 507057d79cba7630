"""The group ``policy``: a new policy with its data, and what its data is enough for."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontopic.commands.listing import Commands
from ontopic.commands.options import ROOT, STATE, Project, beginning, console, open_project
from ontopic.commands.reporting import AsJson, reporting
from ontopic.commands.typed import line, read_any_bytes
from ontopic.errors import UserError
from ontopic.progress import working

if TYPE_CHECKING:
    from ontopic.config.settings import Settings
    from ontopic.drafting.documents import Documents
    from ontopic.drafting.draft import Draft
    from ontopic.drafting.files import PolicyFiles
    from ontopic.drafting.terminal import Terminal

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Begin a policy, and see what its data is enough for.")
_LIKE = ROOT / "configs" / "gardening.yaml"


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The policy's short name: lower case, digits and hyphens.")],
    *,
    subject: Annotated[str, typer.Option(help="The subject, as it stands in a sentence: banking.")],
    questions: Annotated[
        Path | None, typer.Option(help="Labelled questions of your own: `question`, `in_scope`.", show_default=False)
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(help="Labelled records of your own: `question`, `answer`, `label`.", show_default=False),
    ] = None,
    document: Annotated[
        list[Path] | None, typer.Option(help="A text for the LLM to draft from; may be repeated.", show_default=False)
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=20, help="Questions, with those the LLM drafts.")] = 400,
    config: Annotated[
        Path,
        typer.Option(
            help="A configuration to make the new one after; an LLM under its `teacher` drafts.", show_default=False
        ),
    ] = _LIKE,
    into: Annotated[
        Path, typer.Option(help="The folder of configurations that it is written into.", show_default=False)
    ] = ROOT / "configs",
) -> None:
    """Write a policy, its labelled data and a configuration. You are asked what it says, or review what an LLM drafts.

    A call that was stopped goes on from there.
    """
    read_any_bytes()
    from ontopic.config.settings import load_settings
    from ontopic.drafting.documents import read_documents
    from ontopic.drafting.draft import DraftFile
    from ontopic.drafting.files import PolicyFiles
    from ontopic.drafting.terminal import LeaveError, Terminal

    settings, files = load_settings(config), PolicyFiles(into=into, name=name)
    _check_new(files, subject)
    if document and settings.teacher is None:
        raise UserError(f"--document is for an LLM, and {config} has no `teacher`; add one, or leave the documents out")
    documents = read_documents(document or [])
    file = DraftFile(path=files.draft)
    draft = _begun(file.read(), name, subject=subject, questions=questions, records=records)
    file.write(draft)
    terminal = Terminal(ask=_line, say=print)
    try:
        draft = _complete(draft, terminal, settings=settings, documents=documents, number=number, keep=file.write)
    except LeaveError:
        console.print(f"The draft is kept in {files.draft}; the same command goes on from there")
        return
    _write(draft, files, config=config, settings=settings)
    file.remove()
    _say_what_comes(files)


@app.command()
@beginning
def check(project: Project, *, as_json: AsJson = False) -> None:
    """Say which commands a policy's labelled data is enough for, and what is too thin for the others, and why."""
    from ontopic.data.labels import LabelStore, labels_of

    labels = LabelStore(labels_of(project.policy, project.workspace)).labels()
    _say_needs(project, labels=sum(label.is_of_traffic for label in labels), as_json=as_json)


def _say_needs(project: Project, *, labels: int, as_json: bool = False) -> None:
    from ontopic.data.synthetic import synthetic_in_words
    from ontopic.drafting.enough import needs

    with working():
        found = needs(project.policy, project.settings, labels=labels)
    with reporting(as_json=as_json) as document:
        document(found)
    if as_json:
        return
    console.print("\n".join(map(str, found)))
    if said := synthetic_in_words(project.policy):
        console.print(str(said))


def _check_new(files: PolicyFiles, subject: str) -> None:
    """Make sure that no file is written over.

    Raises:
        UserError: there is such a policy already, or its name or subject is none.
    """
    from ontopic.config.policy import is_name

    if not is_name(files.name):
        raise UserError(f"{files.name!r} is no name of a policy; give lower case letters, digits and hyphens")
    if not subject.strip() or "\n" in subject:
        raise UserError("--subject is empty or has several lines; give the subject in a word or two, such as banking")
    there = [path for path in (files.policy, files.configuration, files.questions, files.records) if path.exists()]
    if there and not files.draft.exists():
        raise UserError(f"{there[0]}: is there already; edit it, or give the new policy another name")


def _begun(draft: Draft | None, name: str, *, subject: str, questions: Path | None, records: Path | None) -> Draft:
    """The draft that there is, or a new one, with the person's own rows as their files have them now."""
    from ontopic.data.rows import load_rows
    from ontopic.data.synthetic import MarkedQuestion, MarkedRecord
    from ontopic.drafting.draft import Draft

    if draft is None:
        draft = Draft(name=name, subject=subject)
    elif draft.subject != subject:
        raise UserError(
            f"the draft of {name} is on {draft.subject!r}; give that subject to go on, or another name to begin anew"
        )
    changes: dict[str, Any] = {}
    if questions is not None:
        own = load_rows(questions, MarkedQuestion).rows
        asked = {row.spoken for row in own}
        drafted = [row for row in draft.questions if row.origin == "synthetic" and row.spoken not in asked]
        changes["questions"] = (*own, *drafted)
    if records is not None:
        rows = load_rows(records, MarkedRecord).rows
        known = {row.conversation_and_answer for row in rows}
        written = [row for row in draft.records if row.origin == "synthetic"]
        changes["records"] = (*rows, *(row for row in written if row.conversation_and_answer not in known))
    return draft.model_copy(update=changes)


def _complete(
    draft: Draft,
    terminal: Terminal,
    *,
    settings: Settings,
    documents: Documents,
    number: int,
    keep: Callable[[Draft], object],
) -> Draft:
    """Bring a draft to its end. Raises ``LeaveError`` where the person leaves."""
    from ontopic.drafting.interview import agreed
    from ontopic.drafting.review import reviewed

    writer = None
    if settings.teacher is not None:
        from ontopic.drafting.writer import Writer

        writer = Writer(settings.teacher, documents, keep=keep)
        writer.check()
        if documents.total:
            console.print(f"{documents.read:,} of the documents' {documents.total:,} characters are shown to the LLM")
    if writer is not None and not draft.definition:
        if not draft.description:
            description = terminal.text("Describe the assistant: who asks it, about what, and what it must leave alone")
            draft = draft.model_copy(update={"description": description})
            keep(draft)
        draft = writer.policy(draft)
    if not draft.agreed:
        console.print("q leaves at any time; what was said is kept")
        draft = agreed(draft, terminal, keep=keep)
    if writer is not None and not draft.generated:
        draft = writer.data(draft, n=number)
    return reviewed(draft, terminal, keep=keep)


def _write(draft: Draft, files: PolicyFiles, *, config: Path, settings: Settings) -> None:
    """Write the files.

    Raises:
        UserError: the draft has no questions or no records.
    """
    import yaml

    from ontopic.drafting.files import write_files

    if not draft.questions or not draft.records:
        lacking = "questions" if not draft.questions else "records"
        raise UserError(
            f"there are no labelled {lacking}, and without an LLM (`teacher` in {config}) none are drafted; run the "
            f"same command with --{lacking} FILE (docs/how-to/own-subject.md): what you said is kept"
        )
    sections = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    write_files(draft, files, like=settings, sections=sections)


def _say_what_comes(files: PolicyFiles) -> None:
    """Say where the new policy is, what its data is enough for, and what to run next."""
    shown = shlex.quote(str(files.configuration))
    console.print(f"\nWritten: {files.policy}, {files.configuration} and the data in {files.data}\n")
    _say_needs(open_project(files.configuration, STATE, begins=True), labels=0)
    console.print(f"\nNext: python run.py calibrate --config {shown}; then the loop: python run.py --config {shown}")


def _line(prompt: str) -> str:
    try:
        return line(prompt)
    except KeyboardInterrupt as stopped:
        stopped.add_note("the same command goes on from here")
        raise
