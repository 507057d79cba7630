"""``approve`` and ``reject``: a person decides on a challenger that passed the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from ontopic.commands.options import By, Project, Why, account, on_project, reason, who
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
    sign_off = _sign_off(project)
    wait, promoted = sign_off.approve(version, by=who(by), why=reason(why), account=account())
    by_whom, rollout = " and ".join(wait.approved_by), rollout_of(sign_off.entries())
    if rollout is not None and rollout.version == wait.version:
        print(f"version {wait.version} is approved by {by_whom}, and its rollout begins: {rollout.in_words}")
    elif promoted:
        print(f"version {wait.version} is the champion in place of {wait.terms.champion}, approved by {by_whom}")
    else:
        print(f"{wait.approved_by[-1]} approves version {wait.version}, gate {wait.terms.gate_sha256[:12]}")
        print(wait.in_words)


@on_project
def reject(version: Version, project: Project, *, why: Why, by: By = None) -> None:
    """Reject a challenger that waits. It stays a challenger, and `watch` retrains again after its cool-down."""
    name = who(by)
    wait = _sign_off(project).reject(version, by=name, why=reason(why), account=account())
    print(f"version {wait.version} is rejected by {name}; version {wait.terms.champion} stays the champion")


def _sign_off(project: Project) -> SignOff:
    return SignOff(project.settings.promotion, project.policy, workspace=project.workspace)
