"""The state folder, and the environment that keeps everything of ours inside it."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PrivateAttr

from ontopic.errors import UserError
from ontopic.state.files import DiskFiles, Files
from ontopic.state.lines import FileLines, Lines
from ontopic.state.whole_file import whole_file

# Telemetry of every tool is off, and nothing asks a question on a terminal.
ENVIRONMENT = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # MLflow loads it, and it asks the network for prices at its start
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",  # the bars of the libraries; ours asks to be shown
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "AUTO_OPEN_DASHBOARD": "false",
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "ZENML_LOGGING_VERBOSITY": "CRITICAL",  # it logs what a step raises, and raises it too
}
# What another program left behind: each run is of its own here, in the policy's experiment.
_NEVER_LEFT = (
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_ACTIVE_MODEL_ID",
)
_OTHER_MLFLOW = ("MLFLOW_REGISTRY_URI", "MLFLOW_WORKSPACE")  # of a server, where MLflow is in the state folder


class Workspace(BaseModel):
    """Where things are in one state folder: the one place that spells the names in it.

    Attributes:
        root: absolute.
        mlflow_uri: MLflow's tracking URI: the user's ``MLFLOW_TRACKING_URI``, else that of the ZenML stack of theirs
            that the last loop ran on, else SQLite in this folder.
        is_passing: whether the folder goes with the process that uses it, as a step's on a remote ZenML stack does.
    """

    model_config = ConfigDict(frozen=True)
    root: Path
    mlflow_uri: str = ""
    is_passing: bool = False
    _by_itself: bool = PrivateAttr(default=False)

    @property
    def state_url(self) -> str | None:
        """The PostgreSQL database that machines share: ``ONTOPIC_STATE_URL``, else ``ONTOPIC_TRAFFIC_URL`` where that
        names one; ``None`` where all is in this folder, as that of the demo is.

        Raises:
            UserError: ``ONTOPIC_STATE_URL`` names another kind of database.
        """
        if self._by_itself or self.demo.is_file():
            return None
        if url := os.environ.get("ONTOPIC_STATE_URL"):
            if not _is_postgresql(url):
                raise UserError(
                    "ONTOPIC_STATE_URL names no PostgreSQL database; give a URL such as "
                    "postgresql://user:password@host/database, or leave it out, and all is kept in the state folder"
                )
            return url
        url = os.environ.get("ONTOPIC_TRAFFIC_URL", "")
        return url if _is_postgresql(url) else None

    @property
    def by_itself(self) -> Workspace:
        """This folder whatever database is named: what is left in it of before its state was moved there."""
        own = self.model_copy()
        own._by_itself = True
        return own

    @property
    def traffic(self) -> Path | str:
        """The traffic store: the URL in ``ONTOPIC_TRAFFIC_URL``, else ``state_url``, else a file in this folder."""
        named = None if self._by_itself or self.demo.is_file() else os.environ.get("ONTOPIC_TRAFFIC_URL")
        return named or self.state_url or self.root / "traffic.db"

    @property
    def keys(self) -> Path | str:
        """The API keys of what is served: their hashes, names and limits."""
        return self._tables("keys.db")

    @property
    def user_key(self) -> Path:
        """The key that users' names are hashed with before they are stored."""
        return self.root / "user.key"

    @property
    def erasures(self) -> Path:
        """What is being erased and is not through: a file each, gone at the end."""
        return self.root / "erasures"

    @property
    def alerts(self) -> Path | str:
        """The alerts, open and closed, and the notifications of them that are to be sent."""
        return self._tables("alerts.db")

    @property
    def reports(self) -> Path:
        """The HTML pages."""
        return self.root / "reports"

    @property
    def windows(self) -> Path | str:
        """What `watch` keeps: windows, verdicts and what it did."""
        return self._tables("windows.db")

    @property
    def evidently(self) -> Path:
        """Evidently's workspace, with a dashboard a policy."""
        return self.root / "evidently"

    @property
    def judges(self) -> Path:
        """Local judges, each in a folder named after its digest."""
        return self.root / "judges"

    def guard(self, registered_model: str) -> Path:
        """The card of a policy's guard: its thresholds and which of the local judges it goes by."""
        return self.judges / f"{registered_model}.guard.json"

    @property
    def verdicts(self) -> Path | str:
        """The cache of LLM judges' verdicts."""
        return self._tables("verdicts.db")

    @property
    def labels(self) -> Path:
        """Human labels, a JSONL file a policy."""
        return self.root / "labels"

    @property
    def preference_edits(self) -> Path:
        """What people changed of the pairs that are trained on, a JSONL file a policy."""
        return self.root / "preference-edits"

    @property
    def discordant(self) -> Path:
        """Pairs of answers of champions and challengers, a file a gate, for a person to label."""
        return self.root / "discordant"

    @property
    def promotion_record(self) -> Path:
        """The append-only log of gates, promotions, refusals, rollbacks and approvals."""
        return self.root / "promotions.jsonl"

    @property
    def evidence(self) -> Path:
        """What the promotion record names by its hash: each gate's page, decision, answers and verdicts."""
        return self.root / "evidence"

    @property
    def training(self) -> Path:
        """Checkpoints and adapters, a folder for each set of inputs."""
        return self.root / "training"

    @property
    def building(self) -> Path:
        """Where a whole model is put together before it is registered; empty but meanwhile."""
        return self.training / "whole"

    @property
    def zenml(self) -> Path:
        """ZenML's own configuration, database and artifacts."""
        return self.root / "zenml"

    @property
    def zenml_database(self) -> Path:
        """ZenML's database, where ZenML itself looks for it."""
        return self.zenml / "local_stores" / "default_zen_store" / "zenml.db"

    @property
    def models(self) -> Path:
        """Base models, converted or downloaded once."""
        return self.root / "models"

    @property
    def registry(self) -> Path:
        """Weights of registered versions that were downloaded from a server of the user's."""
        return self.root / "registry"

    @property
    def artifacts(self) -> Path:
        """What runs log to MLflow, where its data is in this folder."""
        return self.root / "mlartifacts"

    @property
    def mlflow_file(self) -> Path:
        """MLflow's database, where its data is in this folder."""
        return self.root / "mlflow.db"

    @property
    def place(self) -> Path:
        """The path by which what is in this folder goes: where the folder was when it was last used."""
        return self.root / "place"

    @property
    def moved(self) -> Path:
        """To which database this folder's state was moved (``ontopic.state.moving``)."""
        return self.root / "moved"

    @property
    def demo(self) -> Path:
        """There in the demo's state folder alone, which has no weights: the digest of what it was unpacked from."""
        return self.root / "demo"

    @property
    def lock(self) -> Path:
        """Held by the one loop or watch that may use this folder."""
        return self.root / "run.lock"

    @property
    def loop(self) -> Path:
        """The state folder of the service that the loop asks, apart from one that serves customers."""
        return self.root / "loop"

    @property
    def ray(self) -> Path:
        """What Ray writes while it judges; gone at the end."""
        return self.root / "ray"

    @property
    def ray_lock(self) -> Path:
        """Held by the one command that has Ray judge."""
        return self.root / "ray.lock"

    @property
    def service(self) -> Path:
        """Which process serves, and on which port, while one does."""
        return self.root / "serving.json"

    @property
    def service_log(self) -> Path:
        """The log of the service."""
        return self.root / "serving.log"

    def ui_log(self, tool: str) -> Path:
        """What a tool's server says that the newest `ui` started."""
        return self.root / f"ui-{tool}.log"

    @property
    def bentoml(self) -> Path:
        """What BentoML keeps of a running service: its metrics."""
        return self.root / "bentoml"

    @property
    def spool(self) -> Path:
        """Records that wait until the traffic store can be written."""
        return self.root / "spool"

    def lines(self, path: Path) -> Lines:
        """The lines of a file of this folder, which are in the database where machines share the state."""
        if self.state_url is None:
            return FileLines(path)
        from ontopic.state.shared import SharedLines  # with SQLAlchemy

        return SharedLines(self.state_url, path.relative_to(self.root).as_posix())

    def lines_in(self, folder: Path) -> list[Path]:
        """The files of a folder that ``lines`` reads, in the order of their paths."""
        if self.state_url is None:
            return sorted(folder.glob("*.jsonl"))
        from ontopic.state.shared import shared_lines

        return [self.root / name for name in shared_lines(self.state_url, folder.relative_to(self.root).as_posix())]

    @property
    def files(self) -> Files:
        """The files of this folder that machines share where they share the state, which then are in the database."""
        if self.state_url is None:
            return DiskFiles()
        from ontopic.state.shared import SharedFiles

        return SharedFiles(self.state_url, self.root)

    def _tables(self, file: str) -> Path | str:
        return self.state_url or self.root / file

    def tracked_by(self, stack_uri: str | None) -> Workspace:
        """This workspace for a loop on a ZenML stack.

        Args:
            stack_uri: tracking URI of the user's own stack, which is remembered for the commands after the loop;
                ``None`` where the stack is ours.
        """
        if stack_uri is None:
            _remembered(self.root).unlink(missing_ok=True)
            return self.model_copy(update={"mlflow_uri": _mlflow_uri(self.root)})
        with whole_file(_remembered(self.root)) as part:
            part.write_text(stack_uri)
        return self.model_copy(update={"mlflow_uri": stack_uri})

    @property
    def is_made(self) -> bool:
        """Whether anything is kept in this folder yet."""
        files = (self.root / f"{name}.db" for name in ("traffic", "windows", "keys", "alerts", "verdicts"))
        kept = (self.place, self.mlflow_file, self.models, self.judges, self.labels, self.zenml)
        return any(path.exists() for path in (*files, *kept))

    @property
    def is_alone(self) -> bool:
        """Whether traffic and registry are in this folder, and not on servers of the user's."""
        return self.owns_mlflow and isinstance(self.traffic, Path)

    @property
    def owns_mlflow(self) -> bool:
        """Whether MLflow keeps its data in this folder, and not on a server of the user's."""
        return self.mlflow_uri == _own_mlflow_uri(self.root)


def open_workspace(root: Path, *, make: bool = True) -> Workspace:
    """Switch telemetry off, make the state folder and point MLflow at it. Call before importing ZenML or Evidently.

    Args:
        make: whether the folder is made where it is missing.

    Raises:
        UserError: there can be no such folder, or MLflow could not keep its data in it.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        root = root.expanduser().resolve()
        wrong = root.exists() and not root.is_dir()
        if make and not wrong:
            root.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the second: there is no such user's home
        raise UserError(f"{root}: cannot be the state folder ({error}); give another one with --state") from None
    if wrong or not str(root).isprintable() or "?" in str(root):  # what follows ? is no path in a database's URL
        what = "is no folder" if wrong else "has a character in its name that a state folder cannot have"
        raise UserError(f"{ascii(str(root))[1:-1]}: {what}; give another folder with --state")
    workspace = Workspace(root=root, mlflow_uri=_mlflow_uri(root))
    _ = workspace.state_url  # or says what is wrong with it, before anything is begun
    for name in _NEVER_LEFT if not workspace.owns_mlflow else (*_NEVER_LEFT, *_OTHER_MLFLOW):
        os.environ.pop(name, None)
    return workspace


def is_there(at: Path | str) -> bool:
    """Whether tables can be looked into without making them: a file that is there, or a database (a URL)."""
    return "://" in str(at) or Path(at).is_file()


def _is_postgresql(url: str) -> bool:
    return url.partition("://")[0].partition("+")[0] in ("postgresql", "postgres") and "://" in url


def _mlflow_uri(root: Path) -> str:
    remembered = _remembered(root).read_text(errors="replace") if _remembered(root).is_file() else ""
    return os.environ.get("MLFLOW_TRACKING_URI") or remembered or _own_mlflow_uri(root)


def _remembered(root: Path) -> Path:
    return root / "mlflow_uri"


def _own_mlflow_uri(root: Path) -> str:
    return f"sqlite:///{Workspace(root=root).mlflow_file}"
