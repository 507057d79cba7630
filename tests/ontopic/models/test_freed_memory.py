from __future__ import annotations

import platform

import psutil
import pytest

from ontopic.models.freed_memory import hand_back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give freed memory back by themselves")
def test_what_was_freed_below_what_is_held_is_given_back() -> None:
    held = [bytes(5000) for _ in range(40_000)]  # 200 MB, in pieces that are not mapped one by one
    del held[:-1]
    before = psutil.Process().memory_info().rss
    hand_back()
    assert before - psutil.Process().memory_info().rss > 100e6


def test_where_the_c_library_cannot_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    hand_back()
