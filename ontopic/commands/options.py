"""The options that commands share, and what they open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import Settings, load_settings
from ontopic.state.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from ontopic.registry.versions import RegisteredModel

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "configs" / "local.yaml"
STATE = ROOT / ".ontopic"
console = Console(highlight=False, markup=False, soft_wrap=True)

Config = Annotated[Path, typer.Option("--config", help="Configuration file.")]
State = Annotated[Path, typer.Option("--state", help="Folder of everything that is kept between runs.")]


def open_(config: Path, state: Path) -> tuple[Settings, Policy, Workspace]:
    """The settings in a file, their policy, and the state folder, made where missing.

    Raises:
        UserError: the configuration or the policy cannot be used.
    """
    settings = load_settings(config)
    return settings, load_policy(settings.policy), open_workspace(state)


def version_of(which: str, policy: Policy, workspace: Workspace) -> RegisteredModel:
    """A version of the policy's model: champion, challenger, base, or a number.

    Raises:
        UserError: there is no such version.
    """
    from ontopic.registry import versions as registry
    from ontopic.registry.tracking import open_tracking

    open_tracking(workspace, policy.registered_model)
    return registry.find(policy.registered_model, which, state=workspace.root)
