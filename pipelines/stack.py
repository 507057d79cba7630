"""The ZenML stack that pipelines run on: the user's own active one, or one of ours inside the state folder."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from ontopic.errors import UserError
from ontopic.state.carried_files import STATE
from ontopic.state.workspace import ENVIRONMENT, Workspace

STACK = "ontopic"
# ZenML imports for these how their types are stored, and so torch, before any step runs. No step of ours returns one.
_NEVER_RETURNED = ("pytorch", "scipy", "sklearn")
_USERS_OWN = ("ZENML_STORE_URL", "ZENML_CONFIG_PATH", "ZENML_ACTIVE_STACK_ID")


def open_stack(workspace: Workspace) -> tuple[str, Workspace]:
    """Make a ZenML stack active.

    A stack counts as the user's own where a ``ZENML_*`` variable points to it, or where their global configuration
    has an active stack other than ZenML's ``default``. Otherwise a stack with local orchestrator and artifact store,
    MLflow tracker and MLflow registry is set up, once, in the state folder.

    Returns:
        The stack's name, and the workspace with MLflow where the stack's tracker has it.

    Raises:
        UserError: the user's own stack has no MLflow experiment tracker.
    """
    if _user_has_stack(workspace):
        opened = _users_stack(workspace)
        forget_unused_integrations()
        return opened
    workspace = workspace.tracked_by(None)
    _point_zenml_at(workspace)
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    client = Client()
    wanted = {
        Kind.ORCHESTRATOR: ("local", {}),
        Kind.ARTIFACT_STORE: ("local", {"path": str(workspace.zenml / "artifacts")}),
        Kind.EXPERIMENT_TRACKER: ("mlflow", tracker_configuration(workspace.mlflow_uri)),
        Kind.MODEL_REGISTRY: ("mlflow", {}),
    }
    (workspace.zenml / "artifacts").mkdir(parents=True, exist_ok=True)
    for kind, (flavor, configuration) in wanted.items():
        existing = client.list_stack_components(type=kind, name=STACK)
        if not existing.total:
            client.create_stack_component(STACK, flavor, kind, configuration)
        elif kind is Kind.EXPERIMENT_TRACKER and existing[0].configuration.get("tracking_uri") != workspace.mlflow_uri:
            client.update_stack_component(STACK, kind, configuration=configuration)
    if not client.list_stacks(name=STACK).total:
        client.create_stack(STACK, dict.fromkeys(wanted, STACK))
    if client.active_stack_model.name != STACK:
        client.activate_stack(STACK)
    if client.active_user.email_opted_in is None:  # else its dashboard begins with questions for ZenML's makers
        client.update_user(
            client.active_user.id,
            updated_email_opt_in=False,
            updated_metadata={"finished_onboarding_survey": True},
        )
    forget_unused_integrations()
    return STACK, workspace


def forget_unused_integrations() -> None:
    """Keep ZenML from importing frameworks whose types no step returns."""
    from zenml.integrations.registry import integration_registry

    for name in _NEVER_RETURNED:
        integration_registry.integrations.pop(name, None)


def _point_zenml_at(workspace: Workspace) -> None:
    """Let ZenML use the state folder and nothing else: no variable or ``.zen`` folder of another project, and not the
    server of its dashboard, at which its configuration is left when that is opened."""
    for name in [name for name in os.environ if name.startswith("ZENML_") and name not in ENVIRONMENT]:
        del os.environ[name]
    workspace.zenml_database.parent.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "ZENML_CONFIG_PATH": str(workspace.zenml),
        "ZENML_REPOSITORY_PATH": str(workspace.zenml),
        "ZENML_STORE_TYPE": "sql",
        "ZENML_STORE_URL": f"sqlite:///{workspace.zenml_database}",
    }


def tracker_configuration(mlflow_uri: str) -> dict[str, Any]:
    """Configuration of a stack's MLflow tracker."""
    configuration: dict[str, Any] = {"tracking_uri": mlflow_uri}
    if not mlflow_uri.startswith(("http://", "https://")):
        return configuration
    if os.environ.get("MLFLOW_TRACKING_TOKEN") and not os.environ.get("MLFLOW_TRACKING_USERNAME"):
        raise UserError(
            "MLFLOW_TRACKING_TOKEN would have to be stored in ZenML's database, which is left to you; "
            "make a ZenML stack active whose MLflow tracker has it, or use MLFLOW_TRACKING_USERNAME and _PASSWORD"
        )
    # ZenML insists on credentials for a server and would store them. MLflow takes user name and password from the
    # environment and sends them in place of a token, so a token that says nothing satisfies the one and not the other.
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true"
    return configuration | {"tracking_token": "none", "tracking_insecure_tls": insecure}


def _users_stack(workspace: Workspace) -> tuple[str, Workspace]:
    from zenml.client import Client

    stack = Client().active_stack
    tracker: Any = stack.experiment_tracker
    if tracker is None or tracker.flavor != "mlflow":
        raise UserError(
            f"your active ZenML stack {stack.name!r} has no MLflow experiment tracker; give it one, "
            "or make ZenML's `default` active and a stack is set up for you"
        )
    if stack.orchestrator.flavor != "local":
        _check_shared(stack.name, workspace)
        os.environ[STATE] = str(workspace.root)  # where what a step wrote elsewhere is put, such as its pages
    return stack.name, workspace.tracked_by(str(tracker.get_tracking_uri()))


def _check_shared(stack: str, workspace: Workspace) -> None:
    """Make sure that steps on other machines find what they do not give to one another.

    Raises:
        UserError: the state is in this machine's folder alone.
    """
    if workspace.state_url is None:
        raise UserError(
            f"your active ZenML stack {stack!r} runs steps on other machines, and the state is in a folder of this "
            "one; give PostgreSQL in ONTOPIC_STATE_URL, here and to the steps (docs/how-to/cluster.md)"
        )


def _user_has_stack(workspace: Workspace) -> bool:
    configuration = os.environ.get("ZENML_CONFIG_PATH")
    if configuration and Path(configuration).expanduser().resolve() == workspace.zenml:
        return False  # theirs, to look at ours with ZenML's own command line
    if any(os.environ.get(name) for name in _USERS_OWN):
        return True
    import click

    if not (Path(click.get_app_dir("zenml")) / "config.yaml").is_file():
        return False
    # ZenML reads its configuration once a process, so the user's is looked at in another.
    question = "from zenml.client import Client; print('stack:' + Client().active_stack_model.name)"
    asked = subprocess.Popen(
        [sys.executable, "-c", question], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    import_module("mlflow")  # the loop needs it next, and it takes as long as the answer
    answer, _ = asked.communicate()
    return "stack:" in answer and "stack:default" not in answer
