"""The generated part of python.md in docs/reference, which cog writes there (`make docs`): read, never imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {"ontopic.records": ("Record", "Verdict", "Message", "Judged"), "ontopic.errors": ("UserError",)}


def packages() -> str:
    """Every package with the names that it lists, what each is called with, and the first sentence on it."""
    parts = [_table(f"ontopic.{stub.parent.name}", list(_listed(stub))) for stub in _stubs()]
    modules = [_table(name, [(name, each) for each in names]) for name, names in BESIDE.items()]
    return "\n".join([*modules, *parts])


def _stubs() -> list[Path]:
    return sorted((ROOT / "ontopic").glob("*/__init__.pyi"))


def _listed(stub: Path) -> Iterator[tuple[str, str]]:
    """The modules and names that a package's stub re-exports."""
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            yield from ((f"ontopic.{stub.parent.name}.{node.module}", each.name) for each in node.names)


def _table(package: str, names: list[tuple[str, str]]) -> str:
    path = _file(package)
    said = _sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))
    rows = [f"| `{call}` | {what} |" for call, what in (_row(module, name) for module, name in names)]
    return "\n".join([f"## {package}", said, "", "| name | |", "|---|---|", *rows, ""])


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _row(module: str, name: str) -> tuple[str, str]:
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return f"{name}({_arguments(node.args)})", _sentence(ast.get_docstring(node))
        if isinstance(node, ast.ClassDef) and node.name == name:
            own = ast.get_docstring(node) or ""
            return name, _sentence(own if own and "module's docstring" not in own else ast.get_docstring(tree))
    raise ValueError(f"{module} has no {name}")


def _arguments(given: ast.arguments) -> str:
    positional, named = [each.arg for each in given.args], [each.arg for each in given.kwonlyargs]
    optional = len(positional) - len(given.defaults)
    parts = [each if i < optional else f"{each}=…" for i, each in enumerate(positional)]
    parts += ["*"] if named else []
    parts += [each if default is None else f"{each}=…" for each, default in zip(named, given.kw_defaults, strict=True)]
    return ", ".join(parts)


def _sentence(docstring: str | None) -> str:
    first = (docstring or "").split("\n\n")[0]
    return re.sub(r"``", "`", " ".join(first.split())).replace("|", "\\|")
