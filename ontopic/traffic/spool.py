"""Records that wait on this machine's disk until the traffic store takes them."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from ontopic.errors import UserError
from ontopic.records import Record
from ontopic.state.whole_file import whole_file
from ontopic.traffic.rows import without_personal_data
from ontopic.traffic.spool_index import TELLS_S, SpoolIndex
from ontopic.traffic.store import TrafficStore

logger = logging.getLogger(__name__)

_RETRY_S = 2.0
_AT_ONCE = 500


class Spool:
    """A folder with a file a record. A thread stores them, and deletes each once it is stored; none is stored twice.

    A file appears whole or not at all, and is on the disk when ``add`` returns. What an earlier process left is taken
    up; a file that holds no record, which nothing here writes, is set aside. Personal data is taken out before anything
    is written, as the store does.

    Args:
        folder: made where missing.
        traffic: which takes the records when it can again.
        index: where others learn how many wait; ``None`` for nowhere.

    Attributes:
        behind: whether the store could not be written of late: until it has taken what waits, trying it with each
            record would cost each its time-out.
    """

    def __init__(self, folder: Path, traffic: TrafficStore, *, index: SpoolIndex | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._traffic, self._index = folder, traffic, index
        self.behind = False
        self._more, self._closed = threading.Event(), False
        self._more.set()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        """Keep a record, which must have its id.

        Raises:
            OSError: it can't be written.
        """
        kept = without_personal_data(record).model_copy(update={"asked_at": record.asked_at or datetime.now(UTC)})
        with whole_file(self._folder / f"{record.id}.json") as part:
            part.write_text(json.dumps(kept.model_dump(mode="json")), encoding="ascii")  # lone surrogates as escapes
        self.behind = True
        self._more.set()

    def waiting(self) -> int:
        """How many records are not stored yet."""
        return sum(1 for _ in self._folder.glob("*.json"))

    def close(self) -> None:
        """Store no more; what is left is taken up by the next process."""
        self._closed = True
        self._more.set()
        self._thread.join()
        self._tell()

    def _run(self) -> None:
        while True:
            more = self._more.wait(None if self._index is None else TELLS_S)
            if self._closed:
                return
            self._more.clear()
            try:
                if more:
                    self._store()
            except (SQLAlchemyError, OSError) as error:
                logger.warning("%d records wait in the spool: %s", self.waiting(), type(error).__name__)
                threading.Timer(_RETRY_S, self._more.set).start()
            self._tell()

    def _tell(self) -> None:
        """Where the database can't be written now, the next time tells."""
        if self._index is None:
            return
        with suppress(SQLAlchemyError, OSError, UserError):
            if self._closed and not self.waiting():
                self._index.leave()
            else:
                self._index.tell(self.waiting())

    def _store(self) -> None:
        while paths := sorted(self._folder.glob("*.json"))[:_AT_ONCE]:
            self._traffic.add_many([record for path in paths if (record := _read(path)) is not None])
            for path in paths:
                path.unlink(missing_ok=True)  # one that was set aside has another name by now
        self.behind = False


def _read(path: Path) -> Record | None:
    """The record in a file; ``None`` where there is none, and the file is set aside."""
    try:
        return Record.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # whose words quote what is in the file
        path.replace(path.with_suffix(".bad"))
        logger.error("%s holds no record (%s), and was set aside", path, type(error).__name__)
        return None
