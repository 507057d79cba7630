"""``approve`` and ``reject``: a person decides on a challenger that passed the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from ontopic.commands.options import By, Project, Why, account, console, on_project, reason, who
from ontopic.errors import UserError
from ontopic.registry.rollouts import rollout_of
from ontopic.registry.sign_off import SignOff

Version = Annotated[str, typer.Argument(help="The version that waits: its number, or challenger.")]


@on_project
def approve(version: Version, project: Project, *, why: Why, by: By = None) -> None:
    """Approve a challenger that waits. The last approval that is needed makes it the champion, or begins its rollout;
    running services follow.

    Who trained it cannot be its only approver. An approval is bound to the gate's entry in the promotion record, to
    the weights, the policy and the champion: where one of them changes, it is void.
    """
    console.print(decide(project, "approve", version=version, by=by, why=why))


@on_project
def reject(version: Version, project: Project, *, why: Why, by: By = None) -> None:
    """Reject a challenger that waits. It stays a challenger, and `watch` retrains again after its cool-down."""
    console.print(decide(project, "reject", version=version, by=by, why=why))


def decide(project: Project, verb: str, *, version: str, by: str | None, why: str) -> str:
    """Decide on a challenger that waits, and say what came of it.

    Args:
        verb: ``approve`` or ``reject``.
        by: who decides; the user of this machine where it is ``None``.

    Raises:
        UserError: the verb is another, nobody decides or no reason is given; and what ``SignOff`` raises.
    """
    if verb not in ("approve", "reject"):
        raise UserError("one approves or rejects; there is nothing else to decide")
    name, because = who(by), reason(why)
    sign_off = SignOff(project.settings.promotion, project.policy, workspace=project.workspace)
    if verb == "reject":
        wait = sign_off.reject(version, by=name, why=because, account=account())
        return f"version {wait.version} is rejected by {name}; version {wait.terms.champion} stays the champion"
    wait, promoted = sign_off.approve(version, by=name, why=because, account=account())
    by_whom, rollout = " and ".join(wait.approved_by), rollout_of(sign_off.entries())
    if rollout is not None and rollout.version == wait.version:
        return f"version {wait.version} is approved by {by_whom}, and its rollout begins: {rollout.in_words}"
    if promoted:
        return f"version {wait.version} is the champion in place of {wait.terms.champion}, approved by {by_whom}"
    approved = f"{wait.approved_by[-1]} approves version {wait.version}, gate {wait.terms.gate_sha256[:12]}"
    return f"{approved}\n{wait.in_words}"
