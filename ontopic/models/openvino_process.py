"""OpenVINO's pipeline in a process of its own: requests come in, and what each step gives them goes out.

python -m ontopic.models.openvino_process SOCKET FOLDER SETTINGS

A step holds Python's lock from its beginning to its end (``ContinuousBatchingPipeline.step`` of OpenVINO GenAI 2026.4),
so in a service's own process nobody is served meanwhile. This process ends with its socket.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ontopic.models.engine_messages import Given, Step, Stop


class Engine:
    """The pipeline and its requests.

    Args:
        paced: whether each step waits for a ``Step``.
    """

    def __init__(self, pipeline: Any, connection: Connection, *, paced: bool) -> None:
        self._pipeline, self._connection, self._paced = pipeline, connection, paced
        self._handles: dict[int, Any] = {}
        self._failed: list[Given] = []
        self._steps = 0

    def run(self) -> None:
        """Until the socket is closed."""
        while True:
            while self._connection.poll(None if self._idle() else 0):
                self._hear(self._connection.recv())
            self._pipeline.step()
            self._steps -= 1
            given = [*self._failed, *(self._read(number) for number in list(self._handles))]
            self._failed = []
            self._connection.send([each for each in given if each.tokens or each.failed])

    def _idle(self) -> bool:
        return not (self._handles or self._failed) or (self._paced and self._steps < 1)

    def _hear(self, said: Any) -> None:
        import openvino
        import openvino_genai

        if isinstance(said, Step):
            self._steps = 1
        elif isinstance(said, Stop):
            self._forget(said.number)
        else:
            settings = dict(said.settings)
            settings["stop_token_ids"] = set(settings["stop_token_ids"])
            ids = openvino.Tensor(np.array([said.ids], dtype=np.int64))
            try:
                config = openvino_genai.GenerationConfig(**settings)
                self._handles[said.number] = self._pipeline.add_request(said.number, ids, config)
            except Exception as error:  # of this request alone: the other side raises it
                self._failed.append(Given(said.number, [], [], str(error)))

    def _read(self, number: int) -> Given:
        """What came for a request; it is forgotten at its end."""
        from openvino_genai import GenerationStatus

        handle, tokens, logprobs, failed = self._handles[number], list[int](), list[float](), ""
        while handle.can_read():
            (output,) = handle.read().values()
            tokens += output.generated_ids
            logprobs += output.generated_log_probs
        status = handle.get_status()
        if status != GenerationStatus.RUNNING:
            del self._handles[number]
            failed = "" if status == GenerationStatus.FINISHED else f"{status.name}: no memory was found for it"
        return Given(number, tokens, logprobs, failed)

    def _forget(self, number: int) -> None:
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.stop()
        if not self._handles and self._pipeline.has_non_finished_requests():
            self._pipeline.step()  # at which it gives up what was stopped


def main() -> None:
    """Load the pipeline, say that it is ready, or why it is not, and answer."""
    for sent in (signal.SIGINT, signal.SIGTERM):  # to all of a service; what was accepted is answered first
        signal.signal(sent, signal.SIG_IGN)
    number, folder, given = sys.argv[1:]
    connection = Connection(socket.socket(fileno=int(number)).detach())
    settings = json.loads(given)
    try:
        import openvino_genai

        scheduling = openvino_genai.SchedulerConfig()
        scheduling.max_num_batched_tokens = settings["prompt_tokens"]
        scheduling.max_num_seqs = 256
        scheduling.dynamic_split_fuse = True
        scheduling.enable_prefix_caching = True
        scheduling.cache_size = 0  # grows as it is needed
        pipeline = openvino_genai.ContinuousBatchingPipeline(folder, scheduling, "CPU", settings["properties"])
    except (ImportError, RuntimeError) as error:
        connection.send(str(error))
        return
    connection.send("")
    try:
        Engine(pipeline, connection, paced=settings["paced"]).run()
    except (EOFError, ConnectionError):  # the other side has closed it, or is gone
        return


if __name__ == "__main__":
    main()
