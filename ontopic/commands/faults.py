"""What other systems say when they fail, as the one sentence that a user's mistake gets. What is not known here is a
fault of ours, and stays a traceback.

Errors are known by the names of their classes: importing MLflow or ZenML to ask takes seconds.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ontopic.errors import UserError

_LONGEST = 300
_OURS = ("ontopic", "pipelines", "serving", "steps", "__main__", "run")
_TO_DO = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room on that disk",
    errno.EROFS: "give a place that may be written, such as another folder with --state",
    errno.EACCES: "see to its permissions, or give another place, such as another folder with --state",
    errno.EPERM: "see to its permissions, or give another place, such as another folder with --state",
    errno.EMFILE: "let a process open more files: ulimit -n 4096",
    errno.ENFILE: "let this machine open more files",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOTDIR: "there is a file where a folder should be; move it away",
    errno.EISDIR: "there is a folder where a file should be; move it away",
    errno.EEXIST: "there is a file where a folder should be; move it away",
    errno.ELOOP: "its links lead in a circle; mend them",
    errno.EIO: "see to the disk or the terminal",
    errno.ESTALE: "see to the disk that it is on",
    errno.EBUSY: "see what else uses it",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: "let this user have more processes",
}
_DATABASES = (  # what is said by SQLite when it is no fault of a statement
    ("locked", "another process is writing it; end that one, or wait and run again"),
    ("readonly", "it may not be written; see to its permissions, or give another folder with --state"),
    ("full", "make room on that disk"),
    ("disk i/o error", "see to the disk that it is on"),
    ("not a database", "it is damaged or no database; move it away, or put a backup in its place"),
    ("malformed", "it is damaged; move it away, or put a backup in its place"),
    ("unable to open", "see to it and to its folder's permissions"),
)


def mistakes_behind(error: BaseException) -> tuple[str, ...] | None:
    """The sentences that an error comes to: a user's mistake behind it, or what another system said.

    Returns:
        ``None`` for a fault of ours.
    """
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, UserError):
            return each.mistakes
    for each in chain:
        for name in (f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(each).__mro__):
            said = _SAID[name](each) if name in _SAID else None
            if said:
                return (said,)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it, which ZenML and others wrap. What we were handling when one of ours came is not."""
    while error is not None:
        yield error
        ours = next(_packages(error), "") in _OURS
        error = error.__cause__ or (None if error.__suppress_context__ or ours else error.__context__)


def _packages(error: BaseException) -> Iterator[str]:
    """The packages whose code an error came through, from the one that raised it."""
    frames, frame = [], error.__traceback__
    while frame is not None:
        frames.append(frame.tb_frame)
        frame = frame.tb_next
    return (frame.f_globals.get("__name__", "").partition(".")[0] for frame in reversed(frames))


def _is_within(package: str, error: BaseException) -> bool:
    """Whether an error came up in what ``package`` does, and not in what it calls of ours."""
    return next((each for each in _packages(error) if each in (*_OURS, package)), "") == package


def _short(said: object) -> str:
    """What a server or library said: its first line, without tags and without what a terminal would obey."""
    lines = [line for line in re.sub(r"<[^>]*>", " ", str(said)).splitlines() if line.strip()]
    text = " ".join("".join(c if c.isprintable() else " " for c in lines[0]).split()) if lines else "nothing"
    text = without_password(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _file(error: Any) -> str | None:
    """An ``OSError`` that is about a place and not about our code."""
    where = f"{os.fsdecode(error.filename)!s}: " if isinstance(error.filename, str | bytes | Path) else ""
    if error.errno == errno.ENOENT and "temporary directory" in str(error):
        return "there is no folder for temporary files; make one and name it in TMPDIR"
    to_do = _TO_DO.get(error.errno)
    return f"{where}{error.strerror}; {to_do}" if to_do else None


def _network(error: Any) -> str:
    return f"a server could not be reached ({_short(error)}); see that it runs and that this machine reaches it"


def _database(error: Any) -> str | None:
    """An error of SQLAlchemy's, or of a driver: of SQLite the known ones, of PostgreSQL those of the connection."""
    said = getattr(error, "orig", None) or error
    in_file = next((note.removeprefix("in ") for note in getattr(error, "__notes__", ()) if note[:3] == "in "), "")
    if type(said).__module__.startswith("sqlite3"):
        to_do = next((to_do for known, to_do in _DATABASES if known in str(said).lower()), None)
        return f"{in_file or 'a database in the state folder'}: {_short(said)}; {to_do}" if to_do else None
    if type(error).__name__ not in ("OperationalError", "InterfaceError") and "permission" not in str(said):
        return None
    return (
        f"the database could not be used ({_short(said)}); see to the server, and to ONTOPIC_STATE_URL or "
        "ONTOPIC_TRAFFIC_URL"
    )


def _newer(error: Any) -> str | None:
    """Alembic finds no such revision."""
    if "Can't locate revision" not in str(error):
        return None
    return (
        f"a database in the state folder is of a newer release of MLflow or ZenML ({_short(error)}); "
        "update OnTopic, or give another folder with --state"
    )


def _mlflow(error: Any) -> str:
    uri, text = os.environ.get("MLFLOW_TRACKING_URI", ""), str(error)
    said, to_do = _short(text), "see to it there and run again"
    if "database schema" in text:
        to_do = f"upgrade it: mlflow db upgrade {without_password(uri)}"
    elif "readonly database" in text or "database is locked" in text:
        to_do = "see that it may be written and that nothing else is writing it"
    elif re.search(r"error code 40[13]|UNAUTHENTICATED|PERMISSION_DENIED", text):
        to_do = "see to MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    elif "failed with exception" in text:
        cause = re.findall(
            r"\[Errno -?\d+\] [^'\")]+|timed out|SSL[^'\")]*|Connection aborted|too many \d+ \w+|Exceeded \d+ \w+", text
        )
        said, to_do = f"no answer ({cause[-1] if cause else said})", "see that the server runs and that this URL is its"
    return f"MLflow{f' ({without_password(uri)})' if uri else ''}: {said}; {to_do}"


def _zenml(error: Any) -> str:
    return f"ZenML: {_short(error)}; see to your ZenML stack, or run again with another folder under --state"


def _plain(error: Any) -> str | None:
    """ZenML raises plain errors for what it can't find, load or reach."""
    return _zenml(error) if _is_within("zenml", error) else None


def _yaml(error: Any) -> str | None:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return None
    name = "a YAML file in the state folder" if mark.name.startswith("<") else mark.name
    return f"{name}:{mark.line + 1}: is not valid YAML ({error.problem}); mend that line"


def _driver(error: Any) -> str | None:
    """A database's URL names a driver that is not there."""
    if not _is_within("sqlalchemy", error):
        return None
    return f"a database's URL needs the driver {error.name!r}, which is not installed; install it, or give another URL"


def _memory(_: Any) -> str:
    return "there is not enough memory; set model.batch_size or training.batch_size lower, or end other programs"


def _processes(error: Any) -> str:
    return f"a process that was started failed with {error.returncode}; what it said stands above"


def without_password(url: str) -> str:
    """A URL without the user and the password in it."""
    return re.sub(r"//[^/@]*@", "//", url)


# The first of an error's classes that stands here and has something to say.
_SAID: dict[str, Callable[[Any], str | None]] = {
    "mlflow.MlflowException": _mlflow,
    "zenml.ZenMLBaseException": _zenml,
    "alembic.CommandError": _newer,
    "sqlalchemy.DBAPIError": _database,
    "sqlite3.Error": _database,
    "psycopg.Error": _database,
    "yaml.MarkedYAMLError": _yaml,
    "requests.RequestException": _network,
    "urllib3.HTTPError": _network,
    "builtins.ConnectionError": _network,
    "builtins.TimeoutError": _network,
    "socket.gaierror": _network,
    "ssl.SSLError": _network,
    "builtins.OSError": lambda error: _file(error) or _plain(error),
    "builtins.ModuleNotFoundError": _driver,
    "builtins.RuntimeError": _plain,
    "builtins.KeyError": _plain,
    "builtins.ValueError": _plain,
    "builtins.MemoryError": _memory,
    "torch.OutOfMemoryError": _memory,
    "subprocess.CalledProcessError": _processes,
}
