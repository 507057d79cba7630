"""What a cached step depends on besides its own code and inputs: the sources of the packages that its file imports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from zenml.config import CachePolicy

ROOT = Path(__file__).resolve().parents[1]
# An import of ours, with its names in brackets or on the line: a tenth of the time that Python's own parser takes.
_IMPORT = re.compile(
    r"^[ \t]*(?:from|import)[ \t]+((?:ontopic|serving|steps)\b[\w.]*)(?:[ \t]+import[ \t]+(\([^)]*\)|[^\n]*))?", re.M
)
_NAME = re.compile(r"\w+")
_SOURCES = (".py", ".txt", ".jinja", ".css", ".js")


def depends_on_imports(step_file: str, *, ignoring: Sequence[str] = ()) -> CachePolicy:
    """A cache policy under which a step runs anew once a source of what its file imports has changed.

    Imports are followed from package to package, so that a rule deep in a package that another one imports counts too.

    Args:
        step_file: the ``__file__`` of the step's module.
        ignoring: inputs that change nothing of what the step decides.
    """
    return CachePolicy(file_dependencies=sources_behind(Path(step_file), ROOT), ignored_inputs=list(ignoring))


def sources_behind(file: Path, root: Path) -> list[str]:
    """The sources of all packages that a file imports, directly or through one another, and the file itself.

    Args:
        root: of the repository.

    Returns:
        Paths relative to ``root``, in order.
    """
    found, following = set[Path](), list(_imported(file, root))
    while following:
        package = following.pop()
        if package in found:
            continue
        found.add(package)
        for source in _sources(package):
            following += _imported(source, root) - found
    files = {file.resolve(), *(source for package in found for source in _sources(package))}
    return sorted(path.relative_to(root).as_posix() for path in files)


def _sources(package: Path) -> list[Path]:
    if package.is_file():
        return [package]
    return [path for path in package.rglob("*") if path.suffix in _SOURCES]


@cache
def _imported(file: Path, root: Path) -> frozenset[Path]:
    """The packages of ours that a file imports: of ``ontopic.judges.panel`` the folder ``ontopic/judges``."""
    if file.suffix != ".py":
        return frozenset()
    names: set[str] = set()
    for module, imported in _IMPORT.findall(file.read_text(encoding="utf-8")):
        names.update(f"{module}.{name}" for name in _NAME.findall(imported))
        names.add(module)
    packages = set()
    for name in names:
        parts = name.split(".")
        if len(parts) > 1:
            folder, module = root.joinpath(*parts[:2]), root.joinpath(*parts[:2]).with_suffix(".py")
            packages.add(folder if folder.is_dir() else module)
    return frozenset(package for package in packages if package.exists())
