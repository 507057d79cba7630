"""Pages: written whole or not at all, and no record's text becomes markup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from evidently import Report
from pages import HOSTILE, assert_no_script_is_ended, assert_no_text_is_markup

from ontopic.records import Record, Verdict
from ontopic.reports.frames import dataset_of, verdict_frame
from ontopic.reports.metrics import FailedRecords
from ontopic.reports.page import widgets_of, write_page


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    out = tmp_path / "page.html"
    out.write_text("yesterday's")
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_page("Banking", [], out=out)
    assert out.read_text() == "yesterday's" and list(tmp_path.iterdir()) == [out]


@pytest.fixture
def hostile_page(tmp_path: Path) -> Path:
    evil = Record(question=HOSTILE, answer=HOSTILE + "x" * 500, in_scope=True, id="0", model_version="<b>m</b>")
    fail = Verdict(
        outcome="fail", score=0.5, explanation=HOSTILE, judge_id="<i>judge</i>", in_scope=True, declined=True
    )
    page = tmp_path / "page.html"
    snapshot = Report([FailedRecords()]).run(dataset_of(verdict_frame([evil], [fail]), [fail]), None)
    write_page("A <b>title</b>", widgets_of(snapshot), out=page)
    return page


def test_no_text_of_a_record_ends_the_script_that_holds_it(hostile_page: Path) -> None:
    assert_no_script_is_ended(hostile_page)


def test_no_text_of_a_record_becomes_markup_in_a_browser(hostile_page: Path, tmp_path: Path) -> None:
    assert_no_text_is_markup(hostile_page, tmp_path / "profile")
