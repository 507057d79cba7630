"""A replica that is told to stop; ``test_replicas.py`` holds it of the whole service behind a balancer."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from loopback import ROOT

Serve = Callable[[str, float], tuple[subprocess.Popen[str], str]]
"""Starts a server with keys at a place, and seconds that a replica leaves in; gives process and URL."""

SERVER = """
import asyncio, sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from serving import leaving

leaving.LEAVING_S = float(sys.argv[2])

async def slow(request):
    async def parts():
        for i in range(20):
            yield f"{i} "
            await asyncio.sleep(0.1)
    return StreamingResponse(parts())

async def quick(request):
    return PlainTextResponse("well")

app = Starlette(routes=[Route("/slow", slow), Route("/readyz", quick), Route("/quick", quick)])
config = uvicorn.Config(leaving.Leaving(app, {"ONTOPIC_KEYS": sys.argv[1]}), port=0, log_level="info")
uvicorn.Server(config).run()
"""


@pytest.fixture
def serve() -> Iterator[Serve]:
    started = []

    def start(keys: str, leaving_s: float) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", SERVER, keys, str(leaving_s)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stderr is not None
        line = next(line for line in process.stderr if "running on" in line)
        return process, line.split("running on ")[1].split()[0]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=30)


def test_a_replica_says_that_it_leaves_takes_what_still_comes_and_ends_with_the_last_answer(
    serve: Serve,
) -> None:
    process, url = serve("postgresql://host/keys", 1.5)
    assert get(f"{url}/readyz").status_code == 200
    answers: list[str] = []
    asked = threading.Thread(target=lambda: answers.append(get(f"{url}/slow").text))
    asked.start()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # as the supervisor and the launcher's end may both do
    ready, quick = get(f"{url}/readyz"), get(f"{url}/quick")
    assert (ready.status_code, ready.text) == (503, "this replica is stopping\n")
    assert (quick.status_code, quick.headers["connection"]) == (200, "close")
    late = get(f"{url}/slow").text
    asked.join()
    assert answers == [late] == ["".join(f"{i} " for i in range(20))]
    assert process.wait(10) == -signal.SIGTERM


def test_a_service_that_is_alone_stops_at_once(
    serve: Serve,
) -> None:
    process, url = serve("/state/keys.db", 60)
    assert get(f"{url}/readyz").status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
