"""The pages of what a step returns, as ZenML's dashboard shows them beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zenml.enums import VisualizationType
from zenml.materializers.pydantic_materializer import PydanticMaterializer
from zenml.utils.source_utils import set_custom_source_root

set_custom_source_root(str(Path(__file__).resolve().parents[1]))  # else a shell without a file could import no step
# A name: to look up a class ZenML opens its database, which before `open_stack` is the user's.
PAGES = "steps.pages.PageMaterializer"


class PageMaterializer(PydanticMaterializer):
    """Keeps a model as ZenML does, and besides a copy of the pages that it names: its ``report``, its ``pages``, and
    its windows'.

    What is loaded again, and what the cache goes by, is the model alone.
    """

    SKIP_REGISTRATION = True  # only the outputs that name it are kept so

    def save_visualizations(self, data: Any) -> dict[str, VisualizationType]:
        """Copy the pages that are there; returns the paths of the copies, ahead of the model's own."""
        windows = [window.result.report for window in getattr(data, "windows", []) if window.result]
        shown = dict[str, VisualizationType]()
        named = (getattr(data, "report", ""), *getattr(data, "pages", ()), *windows)
        for page in (Path(each) for each in named if each):
            if page.is_file():
                uri = f"{self.uri}/{page.name}"
                with self.artifact_store.open(uri, "wb") as copy:
                    copy.write(page.read_bytes())
                shown[uri] = VisualizationType.HTML
        return shown | super().save_visualizations(data)
