"""What the routes answer with: the model, and where its records go."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from ontopic.config.network import reach_this_machine_directly
from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.state.workspace import Workspace
from ontopic.traffic.identity import NamesKey, names_key, user_hash
from ontopic.traffic.request_counts import RequestCounts
from ontopic.traffic.spool import Spool
from ontopic.traffic.spool_index import SpoolIndex
from ontopic.traffic.store import TrafficStore
from serving import metrics
from serving.deployment import first_deployment
from serving.following import RegistryFollower
from serving.request_counter import RequestCounter
from serving.rolling import Rolling
from serving.tracing import Tracing

logger = logging.getLogger("bentoml.ontopic")


class ServedAssistant:
    """A deployed model with its stores.

    Args:
        environment: as ``serving.service`` describes it.

    Attributes:
        model_name: the name that clients ask for.
        max_new_tokens: no answer is longer.
        deployment: the model version that answers now: the champion's.
        rolling: a challenger that is rolled out beside it; ``None`` where none is.
        created: when this service started, in seconds since 1970.
        user_key: the key that users' names are hashed with, or its file.
        requests: counts those that were answered and those that failed.
        tracing: makes a trace a request, where OpenTelemetry's variables ask for it.
        spool: takes the records that the traffic store can't; ``None`` where there is no spool.

    Raises:
        UserError: the model, a store or the key of names cannot be opened.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        reach_this_machine_directly()  # MLflow's client reads the environment's proxies by itself
        self.deployment = first_deployment(environment)
        self.model_name = environment["ONTOPIC_MODEL_NAME"]
        self.max_new_tokens = int(environment["ONTOPIC_MAX_NEW_TOKENS"])
        self.traffic = TrafficStore(environment["ONTOPIC_TRAFFIC"])
        self.requests = RequestCounter(RequestCounts(environment["ONTOPIC_TRAFFIC"], self.model_name))
        self.tracing = Tracing(self.model_name, environment)
        self.user_key = _user_key(environment)
        spool, follow = environment.get("ONTOPIC_SPOOL"), environment.get("ONTOPIC_FOLLOW")
        self.spool = Spool(Path(spool), self.traffic, index=SpoolIndex.of(Path(spool))) if spool else None
        self.created = int(time.time())
        metrics.deployed(self.deployment.version)
        self.rolling: Rolling | None = None
        self._follower = RegistryFollower(self.model_name, Path(follow), service=self) if follow else None

    def keep(self, record: Record) -> None:
        """Store a record, or, where the store can't be written and there is a spool, keep it there.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: neither could be done.
        """
        if self.spool is not None and self.spool.behind:
            self.spool.add(record)
            return
        try:
            self.traffic.add(record)
        except SQLAlchemyError:
            if self.spool is None:
                raise
            logger.exception("the record could not be stored; it is kept in the spool")
            self.spool.add(record)

    def check_writable(self) -> None:
        """Make sure that a record could be kept.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the traffic store cannot be written, and there is no spool.
        """
        if self.spool is None:
            self.traffic.check_writable()

    def close(self) -> None:
        """Follow no more, take no more requests, and close the stores."""
        if self._follower:
            self._follower.close()
        if self.rolling is not None:
            if self.rolling.shadow is not None:
                self.rolling.shadow.close()
            self.rolling.deployment.batch.close(timeout_s=1)
        self.deployment.batch.close(timeout_s=1)
        if self.deployment.guard:
            self.deployment.guard.close()
        if self.spool:
            self.spool.close()
        self.requests.close()
        self.tracing.close()
        self.traffic.close()


def _user_key(environment: Mapping[str, str]) -> NamesKey:
    """The key that machines share; else its file, which is there after that: named, or beside the traffic store's."""
    given, traffic = environment.get("ONTOPIC_USER_KEY"), environment["ONTOPIC_TRAFFIC"]
    if (shared := Workspace(root=Path())).state_url is not None:
        is_launched = "ONTOPIC_LAUNCHER_PID" in environment  # from a state folder, whose state was moved
        return names_key(shared, own=Path(given) if given and not is_launched else None)
    if not given and "://" in traffic:
        raise UserError(
            "ONTOPIC_USER_KEY is not set; name a file that stays, for the key that users' names are hashed with"
        )
    path = Path(given) if given else Path(traffic).parent / "user.key"
    user_hash("anybody", path)
    return path
