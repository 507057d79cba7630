"""Registers the ZenML stack that steps run on in a Kubernetes cluster. Run again, it changes what is different."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ontopic.errors import UserError
from ontopic.state.workspace import open_workspace
from pipelines.stack import STACK, tracker_configuration

if TYPE_CHECKING:
    from zenml.client import Client

# What steps have of this environment, where it is set: in a ZenML secret that the stack names.
_HANDED_ON = (
    "ONTOPIC_STATE_URL",
    "ONTOPIC_TRAFFIC_URL",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "HF_TOKEN",
)
_NEEDED = ("ONTOPIC_STATE_URL", "MLFLOW_TRACKING_URI")
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
Component = tuple[str, dict[str, Any]]
"""A component's flavor and configuration."""


def command(
    *,
    artifacts: Annotated[str, typer.Option(help="Where artifacts are kept, such as s3://bucket/folder.")],
    registry: Annotated[str, typer.Option(help="The container registry with the image, such as ghcr.io/bank.")],
    name: Annotated[str, typer.Option(help="The stack's name, and its components'.")] = STACK,
    context: Annotated[str | None, typer.Option(help="The cluster's context in your kubeconfig.")] = None,
    namespace: Annotated[str, typer.Option(help="The namespace that steps run in.")] = "zenml",
    s3_endpoint: Annotated[str | None, typer.Option(help="The URL of an S3 store that is not Amazon's.")] = None,
    variable: Annotated[list[str] | None, typer.Option(help="Another variable of this environment for steps.")] = None,
) -> None:
    """Register a ZenML stack on Kubernetes, with S3 and MLflow, and make it the active one.

    The ZenML server is the one that you are logged in to, or ZENML_STORE_URL's with ZENML_STORE_API_KEY. MLflow, S3's
    keys and what steps need are taken from the environment; where it has no AWS_ACCESS_KEY_ID, the cluster's roles
    have to do.
    """
    open_workspace(Path(".ontopic"), make=False)  # no telemetry
    from zenml.client import Client
    from zenml.enums import StackComponentType as Kind

    handed = handed_on(variable or [])
    client = Client()
    if client.zen_store.is_local_store():
        raise UserError(
            "ZenML keeps its data on this machine, where no cluster reaches it; run `zenml login URL` with your server"
        )
    orchestrator: dict[str, Any] = {"kubernetes_namespace": namespace}
    orchestrator |= {"kubernetes_context": context} if context else {"incluster": True}
    say = typer.echo
    parts: dict[str, Component] = {
        Kind.ORCHESTRATOR: ("kubernetes", orchestrator),
        Kind.ARTIFACT_STORE: ("s3", s3_store(client, artifacts, name=name, endpoint=s3_endpoint, say=say)),
        Kind.EXPERIMENT_TRACKER: ("mlflow", mlflow_tracker(handed, name=name)),
        Kind.MODEL_REGISTRY: ("mlflow", {}),
        Kind.CONTAINER_REGISTRY: ("default", {"uri": registry}),
    }
    register_stack(client, name, parts=parts, handed=handed, say=say)


def handed_on(more: list[str]) -> dict[str, str]:
    """The variables of this environment that steps get.

    Args:
        more: names besides the usual ones.

    Raises:
        UserError: one that they need is not set.
    """
    for each in (*_NEEDED, *more):
        if not os.environ.get(each):
            raise UserError(f"{each} is not set, and steps on other machines need it; set it and run again")
    return {each: os.environ[each] for each in (*_HANDED_ON, *more) if os.environ.get(each)}


def mlflow_tracker(handed: Mapping[str, str], *, name: str) -> dict[str, Any]:
    """The experiment tracker's configuration; user and password are in the steps' secret, which it names."""
    credentials = {
        f"tracking_{each}": f"{{{{{name}-steps.MLFLOW_TRACKING_{each.upper()}}}}}"
        for each in ("username", "password")
        if f"MLFLOW_TRACKING_{each.upper()}" in handed
    }
    if len(credentials) == 2:
        return {"tracking_uri": handed["MLFLOW_TRACKING_URI"], **credentials}
    return tracker_configuration(handed["MLFLOW_TRACKING_URI"])


def s3_store(
    client: Client, path: str, *, name: str, endpoint: str | None, say: Callable[[str], object]
) -> dict[str, Any]:
    """The artifact store's configuration; the environment's keys go to a ZenML secret that it names.

    Raises:
        UserError: the path is none in S3, or ZenML's client for it is not installed.
    """
    if not path.startswith("s3://"):
        raise UserError(f"--artifacts: {path} is no path in S3; give one such as s3://bucket/folder")
    try:
        import s3fs  # noqa: F401
    except ImportError:
        raise UserError(
            "s3fs is not installed, by which ZenML reaches S3; pip install -c constraints.txt -e '.[cluster]'"
        ) from None
    configuration: dict[str, Any] = {"path": path}
    if endpoint:
        configuration["client_kwargs"] = {"endpoint_url": endpoint}
    if keys := {each.lower(): os.environ[each] for each in _S3_KEYS if os.environ.get(each)}:
        configuration["authentication_secret"] = f"{name}-s3"
        _keep_secret(client, f"{name}-s3", values=keys, say=say)
    return configuration


def register_stack(
    client: Client,
    name: str,
    *,
    parts: Mapping[str, Component],
    handed: Mapping[str, str],
    say: Callable[[str], object],
) -> None:
    """Have a stack with these components, active, whose steps get these variables.

    Args:
        parts: by ZenML's kind of component.
        say: told in a line what was done; values of secrets are not among it.
    """
    from zenml.enums import StackComponentType as Kind

    _keep_secret(client, f"{name}-steps", values=handed, say=say)
    for kind, (flavor, configuration) in parts.items():
        found = client.list_stack_components(type=kind, name=name)
        done = "is as it was"
        if not found.total:
            client.create_stack_component(name, flavor, Kind(kind), configuration)
            done = "is registered"
        elif found[0].flavor_name != flavor:
            raise UserError(f"{kind} {name!r} is a {found[0].flavor_name} already; give another --name")
        elif found[0].configuration != configuration:
            stale = dict.fromkeys(set(found[0].configuration) - set(configuration))
            client.update_stack_component(name, Kind(kind), configuration={**configuration, **stale})
            done = "is changed"
        say(f"{kind} ({flavor}) {done}")
    components = {Kind(kind): name for kind in parts}
    if client.list_stacks(name=name).total:
        client.update_stack(name, component_updates=components, add_secrets=[f"{name}-steps"])
        say(f"stack {name} has these components")
    else:
        client.create_stack(name, components, secrets=[f"{name}-steps"])
        say(f"stack {name} is registered")
    client.activate_stack(name)
    say(f"stack {name} is active; python run.py runs on it")


def _keep_secret(client: Client, name: str, *, values: Mapping[str, str], say: Callable[[str], object]) -> None:
    if client.list_secrets(name=name).total:
        kept = client.get_secret(name).secret_values
        gone = sorted(set(kept) - set(values))
        if kept != dict(values):
            client.update_secret(name, add_or_update_values=dict(values), remove_values=gone or None)
        done = "is as it was" if kept == dict(values) else "is changed"
    else:
        client.create_secret(name, dict(values))
        done = "is kept"
    say(f"secret {name} {done}: {', '.join(sorted(values))}")


def main() -> None:
    """Run ``python -m pipelines.register_stack``."""
    try:
        typer.run(command)
    except UserError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
