"""A state folder of the banking policy, whose version 2 can wait for approval."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from loopback import ROOT
from typer.testing import CliRunner, Result

import run
from ontopic.config.policy import Policy, load_policy
from ontopic.config.settings import Settings, load_settings
from ontopic.registry.approval import Waiting
from ontopic.registry.promotion_record import Entry, PromotionRecord
from ontopic.registry.promotions import ModelRegistry, open_registry
from ontopic.registry.sign_off import SignOff
from ontopic.registry.versions import DIGEST
from ontopic.state.moved import settle
from ontopic.state.whole_file import folder_sha256
from ontopic.state.workspace import Workspace, open_workspace


@dataclass
class Bank:
    """A state folder whose version 2 can wait for approval; ann trained it, version 1 is the champion."""

    workspace: Workspace
    config: Path

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def policy(self) -> Policy:
        return load_policy(self.settings.policy)

    @property
    def registry(self) -> ModelRegistry:
        return open_registry(self.workspace, self.policy.registered_model)

    @property
    def record(self) -> PromotionRecord:
        return PromotionRecord(self.workspace.promotion_record)

    @property
    def weights(self) -> Path:
        return self.workspace.registry / self.policy.registered_model / "2" / "weights"

    def configure(self, **promotion: Any) -> None:
        settings = yaml.safe_load(self.config.read_text()) | {"promotion": promotion}
        self.config.write_text(yaml.safe_dump(settings))

    def sign_off(self, now: datetime | None = None) -> SignOff:
        clock = {} if now is None else {"now": lambda: now}
        return SignOff(self.settings.promotion, self.policy, workspace=self.workspace, **clock)

    def gate(self) -> Entry:
        name = self.policy.registered_model
        return self.record.add(
            "gate", name, version="2", by="the gate", why="passed", facts={"gate": "passed", "against": "1"}
        )

    def wait(self, now: datetime | None = None) -> Waiting:
        weights = folder_sha256(self.weights.parent)
        return self.sign_off(now).ask("2", gate=self.gate(), champion="1", weights_sha256=weights, trained_by="ann")

    def called(self, *arguments: str) -> Result:
        options = ["--config", str(self.config), "--state", str(self.workspace.root)]
        return CliRunner().invoke(run.app, [*arguments, *options])

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.record.entries()]


def open_bank(state: Path, folder: Path) -> Bank:
    """A bank in a state folder of OnTopic 0.1.

    Args:
        folder: of its configuration and policy.
    """
    settings = yaml.safe_load((ROOT / "configs" / "local.yaml").read_text())
    policy = yaml.safe_load((ROOT / "configs" / "policies" / "banking.yaml").read_text())
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    settings |= {"policy": "policy.yaml", "judge_prompts": str(ROOT / "configs/judge_prompts")}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    found = Bank(open_workspace(state), config)
    settle(found.workspace)
    found.configure(approval="one")
    found.weights.parent.mkdir(parents=True)
    found.weights.write_text("tuned")
    found.registry.tag("2", {DIGEST: folder_sha256(found.weights.parent)})
    return found
