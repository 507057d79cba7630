"""When a gate decided, by which code, and on what: the part of its page that an auditor checks against the record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from ontopic.config.policy import Policy
    from ontopic.evaluation.evidence import Evidence  # whose tags are of a decision, which has a lineage
    from ontopic.state.workspace import Workspace


class Lineage(BaseModel):
    """What is behind a decision. A text is empty, and a number ``None``, where it is not known.

    Attributes:
        at: when it was decided, in UTC.
        policy, subject: the policy's name, and its subject in a word or two.
        look: among all looks of the policy's gates, from 1; ``seed`` of the draw of its questions.
        trained_by: who started the loop or `watch` that trained the challenger.
        champion_digest, challenger_digest: sha256 of the weights as they were registered.
        base_version: what the challenger was trained from.
        preferences: how many pairs it was trained on.
        release, commit, changed: of this package; whether files differ from the commit.
        run_id: of the run in MLflow.
        mlflow: the address of MLflow's pages; empty where its data is in the state folder.
    """

    model_config = ConfigDict(frozen=True)
    at: datetime
    policy: str
    subject: str
    registered_model: str
    policy_sha256: str
    questions_sha256: str = ""
    sample_sha256: str = ""
    seed: int | None = None
    look: int | None = None
    attempt: int | None = None
    trained_by: str = ""
    champion_digest: str = ""
    challenger_digest: str = ""
    base_version: str = ""
    base_digest: str = ""
    preferences: str = ""
    preferences_sha256: str = ""
    release: str = ""
    commit: str = ""
    changed: bool = False
    python: str = ""
    run_id: str = ""
    experiment_id: str = ""
    mlflow: str = ""

    @property
    def run_address(self) -> str:
        """Of the run in MLflow's pages; empty where they have none of their own."""
        if not (self.run_id and self.experiment_id and self.mlflow):
            return ""
        return f"{self.mlflow}/#/experiments/{self.experiment_id}/runs/{self.run_id}"


def lineage_of(policy: Policy, evidence: Evidence, *, versions: tuple[str, str], workspace: Workspace) -> Lineage:
    """What is behind a decision that is made now, in MLflow's active run.

    Args:
        versions: the champion's and the challenger's.
    """
    import mlflow

    from ontopic.evaluation.provenance import provenance
    from ontopic.registry.promotions import open_registry

    tags = open_registry(workspace, policy.registered_model).tagged()
    before, after = (tags.get(version, {}) for version in versions)
    names = ("base_version", "base_digest", "preferences", "preferences_sha256")
    run, code = mlflow.active_run(), provenance()
    return Lineage(
        at=evidence.at or datetime.now(UTC).replace(microsecond=0),
        policy=policy.name,
        subject=policy.subject,
        registered_model=policy.registered_model,
        policy_sha256=evidence.policy_sha256,
        questions_sha256=evidence.questions_sha256,
        sample_sha256=evidence.sample_sha256,
        seed=evidence.seed,
        look=evidence.look,
        attempt=evidence.attempt,
        trained_by=evidence.trained_by or "",
        champion_digest=before.get("ontopic.digest", ""),
        challenger_digest=after.get("ontopic.digest", ""),
        release=code.release,
        commit=code.commit,
        changed=code.changed,
        python=code.python,
        run_id=run.info.run_id if run else "",
        experiment_id=run.info.experiment_id if run else "",
        mlflow=_address(workspace.mlflow_uri),
        **{name: after.get(f"ontopic.{name}", "") for name in names},
    )


def _address(uri: str) -> str:
    """Of MLflow's pages, without a name and a password in it; empty where the URI is of a file."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
