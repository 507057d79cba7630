"""What a service counts of its requests is in the store a while later, also where that could not be written before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from ontopic.traffic.request_counts import RequestCount, RequestCounts
from serving.request_counter import RequestCounter


def test_counts_wait_for_a_store_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, whole = tmp_path / "traffic.db", RequestCounts.add
    counter = RequestCounter(RequestCounts(path, "smol"))

    def full(_: RequestCounts, __: Sequence[RequestCount]) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(RequestCounts, "add", full)
    counter.count(failed=False)
    counter.count(failed=True)
    counter.write()
    assert "it is tried again" in caplog.text
    monkeypatch.setattr(RequestCounts, "add", whole)
    counter.count(failed=True)
    counter.close()
    with RequestCounts(path, "smol") as counts, RequestCounts(path, "other") as others:
        now = datetime.now(UTC)
        found = counts.between(now - timedelta(minutes=5), now + timedelta(minutes=1))
        assert (sum(each.answered for each in found), sum(each.failed for each in found)) == (1, 2)
        others.add(found)  # of another model
        others.add(found)
        assert counts.between(now - timedelta(minutes=5), now + timedelta(minutes=1)) == found
        twice = others.between(now - timedelta(minutes=5), now + timedelta(minutes=1))
        assert sum(each.failed for each in twice) == 4
