"""The pages of what a step returns, as ZenML's dashboard shows them beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from zenml.enums import VisualizationType
from zenml.materializers.pydantic_materializer import PydanticMaterializer
from zenml.utils.source_utils import set_custom_source_root

from ontopic.state.carried_files import state_folder
from ontopic.state.whole_file import whole_file
from ontopic.state.workspace import Workspace

if TYPE_CHECKING:
    from ontopic.monitoring.window import Window

set_custom_source_root(str(Path(__file__).resolve().parents[1]))  # else a shell without a file could import no step
# A name: to look up a class ZenML opens its database, which before `open_stack` is the user's.
PAGES = "steps.pages.PageMaterializer"


class PageMaterializer(PydanticMaterializer):
    """Keeps a model as ZenML does, and besides a copy of the pages that it names: its ``report`` with what is beside
    it, its ``pages``, and its windows'.

    What is loaded again, and what the cache goes by, is the model alone; on a machine that has not got its pages, with
    those in this machine's state folder.
    """

    SKIP_REGISTRATION = True  # only the outputs that name it are kept so

    def save_visualizations(self, data: Any) -> dict[str, VisualizationType]:
        """Copy the pages that are there; returns the paths of the copies, ahead of the model's own."""
        shown = dict[str, VisualizationType]()
        for page in _pages(data):
            if page.is_file():
                uri = f"{self.uri}/{page.name}"
                with self.artifact_store.open(uri, "wb") as copy:
                    copy.write(page.read_bytes())
                shown[uri] = VisualizationType.HTML
        return shown | super().save_visualizations(data)

    def load(self, data_type: type[BaseModel]) -> Any:
        """The model, whose pages are on this machine where they are anywhere."""
        return self._with_pages(super().load(data_type))

    def _with_pages(self, data: Any) -> Any:
        if "://" not in self.uri:  # then they were written on this machine, and what is gone was removed
            return data
        reports = Workspace(root=state_folder()).reports
        fetched = [page for page in _pages(data) if not page.is_file() and self._fetched(page.name, reports)]
        return _moved(data, {str(page): str(reports / page.name) for page in fetched})

    def _fetched(self, name: str, reports: Path) -> bool:
        """Whether a page was kept, and so is among the reports now."""
        uri = f"{self.uri}/{name}"
        if not self.artifact_store.exists(uri):
            return False
        reports.mkdir(parents=True, exist_ok=True)
        with self.artifact_store.open(uri, "rb") as copy, whole_file(reports / name) as part:
            part.write_bytes(copy.read())
        return True


def _pages(data: Any) -> list[Path]:
    windows = [window.result.report for window in getattr(data, "windows", []) if window.result]
    named = (getattr(data, "report", ""), getattr(data, "evidently", None), *getattr(data, "pages", ()))
    pages = [Path(each) for each in (*named, *windows) if each]
    return list(dict.fromkeys(pages))


def _moved(data: Any, moved: Mapping[str, str]) -> Any:
    """The model with other paths of its pages."""
    if not moved:
        return data
    changed: dict[str, Any] = {"report": Path(moved.get(str(data.report), str(data.report)))}
    if windows := getattr(data, "windows", []):
        changed["windows"] = [_with_page(window, moved) for window in windows]
    return data.model_copy(update=changed)


def _with_page(window: Window, moved: Mapping[str, str]) -> Window:
    if window.result is None or window.result.report not in moved:
        return window
    result = window.result.model_copy(update={"report": moved[window.result.report]})
    return window.model_copy(update={"result": result})
