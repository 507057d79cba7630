"""The BentoML service: one model behind an OpenAI-compatible API that stores each answer as a record.

It is set up by environment variables, which ``serving.process.ServedModel`` sets:
    ONTOPIC_MODEL_FOLDER     what ``ontopic.models.loading.load`` loads
    ONTOPIC_MODEL_URI        optional: loaded instead, from MLflow (``serving.model_source``)
    ONTOPIC_MODEL_VERSION    written into each record
    ONTOPIC_MODEL_NAME       the name that clients ask for
    ONTOPIC_TRAFFIC          the traffic store's path or URL
    ONTOPIC_USER_KEY         the key that users' names are hashed with, a file; by default user.key beside the traffic;
                             where machines share the state in PostgreSQL (ONTOPIC_STATE_URL), the key is there
    ONTOPIC_SPOOL            optional: a folder for records that the store can't take now
    ONTOPIC_MAX_NEW_TOKENS   no answer is longer
    ONTOPIC_WINDOWS          optional: what ``watch`` keeps, for the verdicts among the metrics
    ONTOPIC_BACKEND          optional: vllm, for ``serving.vllm_backend``; or openai, for ``serving.openai_backend``: a
                             proxy, which needs neither model folder nor version, but
    ONTOPIC_UPSTREAM_URL     the server behind it, and
    ONTOPIC_UPSTREAM_MODEL   its name for the model; optional are
    ONTOPIC_UPSTREAM_KEY_VARIABLE, ONTOPIC_UPSTREAM_TIMEOUT_S: which variable holds its key (OPENAI_API_KEY), and the
                             seconds that it may take (120)
    ONTOPIC_FOLLOW           optional: a folder for weights; the champion's alias in MLflow is followed
    ONTOPIC_GUARD            optional: observe or enforce, set up as ``serving.guarding.Guarding`` has it
    ONTOPIC_CHAT_PAGE        optional: 1 for a page to chat on, /chat
    ONTOPIC_LAUNCHER_PID     optional: the service ends when this process does
and by those of ``serving.access``, which say who may call it.
"""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import bentoml
from starlette.exceptions import HTTPException

from serving import metrics
from serving.access import Access, cross_origin
from serving.assistant import ServedAssistant
from serving.chat import TIMEOUT_S
from serving.launcher import end_with_launcher, launcher_pid
from serving.leaving import Leaving
from serving.routes import OwnPagesOnly, api

logger = logging.getLogger("bentoml.ontopic")


# A span a token, which without BentoML's own configuration nobody is sent.
_TRACING: Any = {} if os.environ.get("BENTOML_CONFIG") else {"excluded_urls": ["."]}


@bentoml.asgi_app(api)
@bentoml.service(
    name="ontopic", workers=1, traffic={"timeout": TIMEOUT_S}, metrics={"enabled": False}, tracing=_TRACING
)
class Assistant:
    """The service's worker. BentoML calls it ready once this object exists, that is once the model is loaded."""

    @bentoml.on_deployment
    @staticmethod
    def supervise() -> None:
        """Called in BentoML's supervisor, before it starts the worker."""
        end_with_launcher()

    def __init__(self) -> None:
        end_with_launcher()
        try:
            if os.environ.get("ONTOPIC_BACKEND") != "openai":
                import joblib  # both take time that the supervisor need not wait
                import torch

                torch.set_num_threads(joblib.cpu_count())  # a container's limit is less than the machine has
            self.served = ServedAssistant()
        except BaseException:
            # BentoML would start the worker again and again; a launcher that waits wants to hear of it.
            if launcher_pid() is not None:
                os.kill(os.getppid(), signal.SIGTERM)
            raise
        api.state.assistant = self.served

    def __is_ready__(self) -> bool:
        """Whether a question could be answered and its record stored; BentoML's ``/readyz`` asks.

        Raises:
            HTTPException: the traffic store cannot be written.
        """
        try:
            self.served.check_writable()
        except Exception as error:
            logger.exception("the traffic store cannot be written")
            raise HTTPException(503, "the traffic store cannot be written; see the server's log") from error
        return True

    @bentoml.on_shutdown
    def close(self) -> None:
        """Called by BentoML in the worker, once the last request is answered."""
        self.served.close()


_service: Any = Assistant  # what the decorators made of it
_service.add_asgi_middleware(Leaving)
_service.add_asgi_middleware(metrics.CountRequests)
_service.add_asgi_middleware(cross_origin)
_service.add_asgi_middleware(Access)
_service.add_asgi_middleware(OwnPagesOnly)
