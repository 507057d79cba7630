"""The pages that ZenML's dashboard shows beside what a step returns."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel
from zenml.enums import VisualizationType
from zenml.materializers.pydantic_materializer import PydanticMaterializer

from ontopic.judges.cards.card import JudgeCards
from steps.calibrate_judge import calibrate_judge
from steps.open_sealed import open_sealed
from steps.pages import PageMaterializer
from steps.pass_gate import pass_gate
from steps.report_traffic import report_traffic

FILES: Any = SimpleNamespace(open=open, exists=lambda path: Path(path).exists())  # as ZenML's local artifact store


class Reported(BaseModel):
    report: Path
    windows: list[Any] = []


def test_the_pages_are_beside_what_is_loaded_again(tmp_path: Path) -> None:
    for name in ("gate.html", "window.html"):
        (tmp_path / name).write_text(name)
    windows = [
        SimpleNamespace(result=None),
        *(
            SimpleNamespace(result=SimpleNamespace(report=each))
            for each in ("", str(tmp_path / "window.html"), "/gone")
        ),
    ]
    (tmp_path / "kept").mkdir()
    kept = PageMaterializer(str(tmp_path / "kept"), artifact_store=FILES)
    data = Reported(report=tmp_path / "gate.html")
    shown = kept.save_visualizations(data.model_copy(update={"windows": windows}))
    assert list(shown.items())[:2] == [
        (str(tmp_path / "kept" / name), VisualizationType.HTML) for name in ("gate.html", "window.html")
    ]
    assert [Path(path).read_text() for path in list(shown)[:2]] == ["gate.html", "window.html"]
    kept.save(data)
    assert kept.load(Reported) == data


def test_judge_cards_are_shown_with_the_pages_that_they_were_just_drawn_in(tmp_path: Path) -> None:
    (tmp_path / "card.html").write_text("card")
    (tmp_path / "kept").mkdir()
    kept = PageMaterializer(str(tmp_path / "kept"), artifact_store=FILES)
    cards = JudgeCards([]).drawn_in([tmp_path / "card.html", tmp_path / "gone.html"])
    shown = kept.save_visualizations(cards)
    assert shown[str(tmp_path / "kept" / "card.html")] is VisualizationType.HTML
    kept.save(cards)
    loaded = kept.load(JudgeCards)
    assert loaded.pages == () and loaded.model_dump() == cards.model_dump() == []


def test_the_steps_that_write_pages_keep_them_so() -> None:
    for step in (pass_gate, open_sealed, report_traffic, calibrate_judge):
        (output,) = step.configuration.outputs.values()
        assert [source.attribute for source in output.materializer_source] == ["PageMaterializer"], step.name
    assert PydanticMaterializer in PageMaterializer.__mro__
