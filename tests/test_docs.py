"""The docs: what is built loads nothing from elsewhere, and what the code and the README name is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from loopback import ROOT
from markdown.extensions.toc import slugify

PAGES = sorted((ROOT / "docs").rglob("*.md"))
BESIDE = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md", "docs/tutorial/tutorial.ipynb"]
# what a browser fetches by itself; a link that a reader follows is none
FETCHED = re.compile(r"""<(?:script|img|iframe|link)\s[^>]*?(?:src|href)=["']?(?:https?:)?//""")
LIST_OR_TABLE = re.compile(r"(?:[-*] |\d+\. |\|)")


def _lines(page: Path) -> list[str]:
    """The lines of a page that are no code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE).splitlines()


def _anchors(page: Path) -> set[str]:
    titles = [line.lstrip("#").replace("`", "") for line in _lines(page) if line.startswith("#")]
    return {slugify(title, "-") for title in titles}


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    # not --quiet, with which mkdocs counts no warning
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    own = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)  # and one for what is not found
    assert [(page.name, FETCHED.findall(page.read_text())) for page in pages if FETCHED.search(page.read_text())] == []
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text()), sheet


@pytest.mark.parametrize("name", BESIDE)
def test_each_link_beside_the_site_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there), f"{target}#{anchor}"


def test_each_page_that_the_code_names_is_there() -> None:
    named = re.compile(r"docs/[\w/-]+\.(?:md|ipynb|png|svg|py)")
    sources = [path for folder in ("ontopic", "serving", "steps", "pipelines", "configs", "benchmarks")
               for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".json")]  # fmt: skip
    found = {name: path for path in sources for name in named.findall(path.read_text(encoding="utf-8"))}
    assert len(found) > 10
    assert [(name, str(path)) for name, path in found.items() if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT / "docs").as_posix())
def test_lists_and_tables_begin_behind_a_blank_line(page: Path) -> None:
    """GitHub draws them without one, Python-Markdown writes their signs into the paragraph."""
    blocks = re.split(r"\n\s*\n", "\n".join(line for line in _lines(page) if not line.startswith("#")))
    lines = [block.strip("\n").splitlines() for block in blocks if block.strip()]
    glued = [block for block in lines if not LIST_OR_TABLE.match(block[0]) and any(map(LIST_OR_TABLE.match, block))]
    assert glued == []


def _told() -> list[tuple[str, str]]:
    """What the docs have readers run: the page, and what stands behind ``run.py`` up to the end of line or code."""
    told = re.compile(r"python run\.py\b[ ]?([^`\n#|>()]*)")
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
    joined = {page: re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8")) for page in pages}
    return [(page.name, said) for page, text in joined.items() for said in told.findall(text)]


def test_each_command_that_the_docs_name_is_there_with_its_options() -> None:
    import run

    app, wrong, told = typer.main.get_command(run.app), [], _told()
    assert len(told) > 100
    for page, said in told:
        command, words = app, said.split()
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        below = getattr(command, "commands", {}).values() if command is not app else ()  # one of them is the default
        known = {name for each in (command, *below) for of in each.params for name in of.opts} | {"--help", "-h"}
        unknown = [word for word in words if word.startswith("-") and word.rstrip(".,;:") not in known]
        unknown += [word for word in words[:1] if command is app and word[0] not in "-["]
        wrong += [(page, said, unknown)] if unknown else []
    assert wrong == []
