"""The served model as a process of its own: started, watched and ended with the run that needs it."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

import psutil
from pydantic import BaseModel, ConfigDict

from ontopic.config.model_settings import Precision
from ontopic.config.settings import EndpointSettings
from ontopic.errors import UserError
from ontopic.state.service_file import RunningService, read_service, write_service
from ontopic.state.workspace import Workspace
from serving.access import is_loopback
from serving.guarding import Guarding
from serving.keys import digest, new_key

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[1]
_DRAIN_S = 300  # after SIGTERM; as long as the service gives any answer
_GRACE_S = _DRAIN_S + 15.0
# They may be of another service.
_NOT_INHERITED = (
    "ONTOPIC_KEYS",
    "ONTOPIC_KEY_SHA256",
    "ONTOPIC_NO_AUTH",
    "ONTOPIC_ALLOWED_ORIGINS",
    "ONTOPIC_MODEL_URI",
    "ONTOPIC_FOLLOW",
    "ONTOPIC_SPOOL",
    "ONTOPIC_GUARD",
    "ONTOPIC_CHAT_PAGE",
    "ONTOPIC_UPSTREAM_URL",
    "ONTOPIC_UPSTREAM_MODEL",
)


class Serving(BaseModel):
    """What is served, and how.

    Attributes:
        model_folder: what ``ontopic.models.loading.load`` can load; ``None`` where ``upstream`` answers.
        model_version: written into each record.
        upstream: the server that the service is a proxy to.
        model_name: the name that clients ask for.
        traffic: path or SQLAlchemy URL of the traffic store.
        state: folder for the log and ``serving.json``; one service at a time.
        port: 0 picks a free one.
        max_new_tokens: no answer is longer.
        host: IP address that it listens on.
        keys: the key store (``serving.keys``) whose keys are accepted; ``None`` for one key that is made for this
            service alone.
        no_auth: no key is asked for; on loopback only.
        allowed_origins: of web pages that may call the service.
        follow: MLflow's tracking URI, where the service is to deploy whatever version of ``model_name`` becomes the
            champion; ``None`` for the given version only.
        spool: whether records wait in ``<state>/spool`` while the traffic store can't be written.
        precision: of the weights, as ``ModelSettings.answering_precision`` has it.
        guarding: how it is guarded; ``None`` for no guard.
        chat_page: whether there is a page to chat on.
        ready_timeout_s: seconds that loading the model may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    model_folder: Path | None = None
    model_version: str
    model_name: str
    traffic: Path | str
    state: Path
    upstream: EndpointSettings | None = None
    port: int = 0
    max_new_tokens: int = 128
    host: str = "127.0.0.1"
    keys: Path | str | None = None
    no_auth: bool = False
    allowed_origins: tuple[str, ...] = ()
    follow: str | None = None
    spool: bool = False
    precision: Precision = "auto"
    guarding: Guarding | None = None
    chat_page: bool = False
    ready_timeout_s: float = 300.0


class ServedModel:
    """Serves a model with BentoML for as long as the ``with`` block lasts.

    The service runs on this machine in its own process group and logs to ``<state>/serving.log``. While it runs,
    ``<state>/serving.json`` names it. It is stopped at the end of the block, on Ctrl-C and on SIGTERM, and it ends by
    itself when this process is killed.

    Attributes:
        base_url: what an OpenAI client takes, for example ``http://127.0.0.1:3000/v1``; set once it is ready.
        api_key: the key that was made for this service; ``none`` where it takes another's, or asks for none.
        log: the service's log file.

    Raises:
        UserError: ``host`` is not an IP address; without keys, it is not loopback, or any origin is allowed. On
            entering: the port is taken, another run serves from ``state``, or the service does not start.
    """

    def __init__(self, serving: Serving) -> None:
        self.base_url, self.api_key = "", "none"
        self._host = _checked_host(serving.host, no_auth=serving.no_auth)
        if serving.no_auth and "*" in serving.allowed_origins:
            raise UserError("without keys any web page could call; name the pages in serving.allowed_origins, not *")
        workspace = Workspace(root=serving.state.resolve())
        self.log, self._file = workspace.service_log, workspace.service
        self._port, self._ready_timeout_s = serving.port, serving.ready_timeout_s
        self._model_name = serving.model_name
        self._environment = _environment(serving)
        if not serving.no_auth and serving.keys is None:
            # Other users of this machine reach its loopback too. The service gets the hash alone, by its environment: a
            # command line can be read by all.
            self.api_key = new_key()
            self._environment["ONTOPIC_KEY_SHA256"] = digest(self.api_key)
        self._process: psutil.Popen | None = None
        self._took_sigterm = False

    def __enter__(self) -> Self:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._end_leftover()
        port = _free_port(self._host, self._port)
        # Python's default for SIGTERM is to die without leaving the block.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _leave)
            self._took_sigterm = True
        try:
            entry = self._start(port)
            self._wait_until_ready(port)
        except BaseException:
            self.__exit__()
            raise
        self.base_url = entry.base_url
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process is not None:
                _end(self._process)
                self._file.unlink(missing_ok=True)
        finally:
            self._process = None
            if self._took_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                self._took_sigterm = False

    @property
    def pid(self) -> int:
        """Of the service's supervisor.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError("the service does not run")
        return int(self._process.pid)

    def is_alive(self) -> bool:
        """Whether the service's process runs."""
        return self._process is not None and self._process.poll() is None

    def _start(self, port: int) -> RunningService:
        command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Assistant"]
        command += ["--working-dir", str(_ROOT), "--host", self._host, "--port", str(port)]
        command += ["--timeout-graceful-shutdown", str(_DRAIN_S)]
        with self.log.open("wb") as log:
            self._process = psutil.Popen(
                command,
                cwd=_ROOT,
                env={k: v for k, v in os.environ.items() if k not in _NOT_INHERITED} | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal is for the launcher alone
            )
        host = _reached_at(self._host)
        return write_service(self._file, process=self._process, host=host, port=port, model=self._model_name)

    def _wait_until_ready(self, port: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self._ready_timeout_s
        while True:
            if self._process.poll() is not None:
                raise UserError(f"the served model ended while it started; {self._log_end()}")
            if _is_ready(_reached_at(self._host), port):
                return
            if time.monotonic() > deadline:
                raise UserError(
                    f"the served model was not ready after {self._ready_timeout_s:.0f} seconds; {self._log_end()}"
                )
            time.sleep(0.1)

    def _log_end(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        return "\n".join([f"the end of its log, {self.log}:", *lines])

    def _end_leftover(self) -> None:
        entry = read_service(self._file)
        process = entry.process() if entry else None
        if entry is None or process is None:
            return
        if (launcher := entry.launcher()) is not None:
            raise UserError(
                f"process {launcher.pid} serves from {self._file.parent}; let it end, or use another state folder"
            )
        logger.warning("ended a served model (process %d) that a killed run had left over", process.pid)
        _end(process)


def _environment(serving: Serving) -> dict[str, str]:
    """What ``serving.service`` reads, but for a key that is made for it."""
    workspace = Workspace(root=serving.state.resolve())
    given = {
        "ONTOPIC_MODEL_VERSION": serving.model_version,
        "ONTOPIC_MODEL_NAME": serving.model_name,
        "ONTOPIC_TRAFFIC": _place(serving.traffic),
        "ONTOPIC_MAX_NEW_TOKENS": str(serving.max_new_tokens),
        "ONTOPIC_PRECISION": serving.precision,
        "ONTOPIC_WINDOWS": str(workspace.windows),
        "ONTOPIC_USER_KEY": str(workspace.user_key),
        "ONTOPIC_LAUNCHER_PID": str(os.getpid()),
        "BENTOML_DO_NOT_TRACK": "True",
        # Where others use the cores too, torch's threads lose most of their time spinning for one another.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        # BentoML empties a folder for its metrics there at each start: another service's in the user's home.
        "BENTOML_HOME": str(workspace.bentoml),
    }
    if serving.model_folder is not None:
        given["ONTOPIC_MODEL_FOLDER"] = str(serving.model_folder.resolve())
    if serving.upstream is not None:
        given |= {
            "ONTOPIC_BACKEND": "openai",
            "ONTOPIC_UPSTREAM_URL": serving.upstream.base_url or "",
            "ONTOPIC_UPSTREAM_MODEL": serving.upstream.model,
            "ONTOPIC_UPSTREAM_KEY_VARIABLE": serving.upstream.api_key_variable,
            "ONTOPIC_UPSTREAM_TIMEOUT_S": str(serving.upstream.timeout_s),
        }
    if serving.allowed_origins:
        given["ONTOPIC_ALLOWED_ORIGINS"] = ",".join(serving.allowed_origins)
    if serving.chat_page:
        given["ONTOPIC_CHAT_PAGE"] = "1"
    if serving.spool:
        given["ONTOPIC_SPOOL"] = str(workspace.spool)
    if serving.guarding is not None:
        given |= serving.guarding.environment()
    if serving.follow is not None:
        given |= {"ONTOPIC_FOLLOW": str(workspace.root), "MLFLOW_TRACKING_URI": serving.follow}
        # A registry that is down is asked again soon; MLflow would try for minutes at each call.
        given |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    if serving.no_auth:
        given["ONTOPIC_NO_AUTH"] = "1"
    elif serving.keys is not None:
        given["ONTOPIC_KEYS"] = _place(serving.keys)
    return given


def _place(at: Path | str) -> str:
    """A database's URL, or a file's path wherever the service is started."""
    return str(at) if "://" in str(at) else str(Path(at).resolve())


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)


def _end(process: psutil.Process | psutil.Popen) -> None:
    """End a process and its children: asked first, killed if they do not."""
    # BentoML gives its workers sessions of their own, so the process group does not hold them.
    family = _family(process)
    try:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
        psutil.wait_procs([process], timeout=_GRACE_S)  # BentoML's supervisor goes after its workers
    finally:  # also when a second Ctrl-C cuts the wait short
        for member in {*family, *_family(process)}:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=_GRACE_S)


def _family(process: psutil.Process | psutil.Popen) -> list[Any]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]


def _checked_host(host: str, *, no_auth: bool) -> str:
    """``host`` as the IP address that it is; raises UserError where it may not be listened on."""
    try:
        address = str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise UserError(
            f"the host {host[:80]!r} is not an IP address; give one, such as 127.0.0.1 or 0.0.0.0"
        ) from None
    if no_auth and not is_loopback(address):
        raise UserError(
            f"without keys only this machine may be served, and {address} is open to others; "
            "leave out --no-auth, or --host"
        )
    return address


def _reached_at(host: str) -> str:
    """An address at which this machine reaches a service that listens on ``host``."""
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return host


def _free_port(host: str, wanted: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {wanted} on {host} is not free ({error}); stop what listens there, "
                "or set serving.port in the config (0 picks a free one)"
            ) from error
        return int(probe.getsockname()[1])


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
