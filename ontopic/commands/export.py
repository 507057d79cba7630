"""``export``: a model version as files for other programs, or on the Hugging Face hub, with its model card."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ontopic.commands.options import Project, console, on_project, version_of
from ontopic.config.model_settings import FilePrecision
from ontopic.errors import UserError
from ontopic.progress import working
from ontopic.registry.model_card import CardSource, model_card
from ontopic.registry.promotions import BASE, open_registry
from ontopic.state.whole_file import whole_folder, writing

if TYPE_CHECKING:
    from ontopic.registry.versions import RegisteredModel

_CARD = "README.md"
_LICENCE_OF_EMBEDDED = "apache-2.0"  # as its GGUF file says of itself


class Format(StrEnum):
    """What a version is exported as."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    OPENVINO = "openvino"
    HUB = "hub"


@on_project
def export(
    version: Annotated[str, typer.Argument(help="champion, challenger, base, or a version number.")],
    project: Project,
    *,
    destination: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder; for the hub a repository, as OWNER/NAME.")
    ],
    to: Annotated[
        Format,
        typer.Option(
            help="safetensors for Transformers and vLLM, gguf for llama.cpp and Ollama, openvino for OpenVINO GenAI; "
            "hub pushes safetensors with HF_TOKEN to a private repository."
        ),
    ] = Format.SAFETENSORS,
    precision: Annotated[
        FilePrecision | None,
        typer.Option(help="Of gguf's and openvino's weights; in fewer bits answers may differ."),
    ] = None,
    licence: Annotated[
        str,
        typer.Option(help="The base model's licence for the card, as the hub writes it: apache-2.0, gemma, other."),
    ] = "",
) -> None:
    """Write a version, whole, with its model card: its data, settings, numbers with intervals, limits and licence."""
    name, repository = project.policy.registered_model, str(destination)
    if licence and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", licence):
        raise UserError(f"--licence {licence[:80]!r} is none of the hub's abbreviations, such as apache-2.0 or gemma")
    _check(to, destination, precision=precision)
    with working():
        found = version_of(project, version)
    registry = open_registry(project.workspace, name)
    embedded = registry.tags_of(registry.version(BASE)).get("ontopic.source") == "embedded"
    licence = licence or (_LICENCE_OF_EMBEDDED if embedded else "")
    card = model_card(CardSource.of(registry, found.version, policy=project.policy, licence=licence))
    from ontopic.models.model_files import model_files

    files = model_files(found.folder)
    if to == Format.HUB:
        from ontopic.models.hub_push import push

        content = {path.name: path for path in files} | {_CARD: card.encode()}
        with working():
            at = push(content, repository, message=f"{name}, version {found.version}")
        console.print(f"version {found.version} of {name} is on the hub, with its model card: {at}")
        return
    with _new_folder(destination) as part:
        (part / _CARD).write_text(card, encoding="utf-8")
        with working():
            _write(found, part, to=to, precision=precision, files=files)
        size = sum(path.stat().st_size for path in part.iterdir())
        part.chmod(_rights_of_folder(part / _CARD))
    what = f"{to}, {size / 1e6:,.1f} MB"
    console.print(f"version {found.version} of {name} is in {destination} ({what}), with its card {_CARD}")


def _write(
    model: RegisteredModel, part: Path, *, to: Format, precision: FilePrecision | None, files: Sequence[Path]
) -> None:
    """Write a model's files into a folder.

    Args:
        files: its own, of which safetensors are a copy.
    """
    kept = precision or "float32"
    if to == Format.GGUF:
        from ontopic.models.gguf import write_gguf

        called = f"{model.name}-{model.version}"
        write_gguf(model.folder, part / f"{called}.gguf", precision=kept, name=called)
    elif to == Format.OPENVINO:
        from ontopic.models.openvino import write_openvino

        write_openvino(model.folder, part, precision=kept)
    else:
        for path in files:
            shutil.copyfile(path, part / path.name)


def _check(to: Format, destination: Path, *, precision: FilePrecision | None) -> None:
    """Fail before any work.

    Raises:
        UserError: the destination is none, or what the format needs is not there.
    """
    if precision and to not in (Format.GGUF, Format.OPENVINO):
        raise UserError(f"--precision is for gguf and openvino, and not for {to}; leave it out")
    if to == Format.HUB:
        from ontopic.models.hub_push import check_pushable

        check_pushable(str(destination))
        return
    if destination.is_symlink() or destination.exists():
        if not destination.is_dir() or any(destination.iterdir()):
            raise UserError(f"{destination} is there already; give a new folder")
    elif not destination.absolute().parent.is_dir():
        raise UserError(f"{destination}: its folder does not exist; make it, or give another one")
    if not os.access(destination.absolute().parent, os.W_OK):
        raise UserError(f"{destination.absolute().parent} may not be written; give another folder")


@contextmanager
def _new_folder(destination: Path) -> Iterator[Path]:
    """A folder that becomes ``destination`` once all is in it.

    Raises:
        UserError: it can't be written.
    """
    with writing(destination), whole_folder(destination.absolute()) as part:
        yield part


def _rights_of_folder(file: Path) -> int:
    """Those of a folder that whoever may read this file may look into."""
    rights = file.stat().st_mode & 0o777
    return rights | 0o300 | (rights & 0o444) >> 2
