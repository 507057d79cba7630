"""How what is served is guarded: what a launcher says to a service by its environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Guarding(BaseModel):
    """How what is served is guarded.

    Attributes:
        mode: whether it is only watching, or has its way.
        card: file of the guard's card, with its judge's folder beside it; read anew with each version that is deployed.
        on_failure: whether what the guard can say nothing of goes out (``open``) or is refused (``closed``).
        held_back: of a stream: each sentence until it is judged, or nothing, so that the guard can only cut it.
        timeout_s: seconds until it counts as too slow.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    mode: Literal["observe", "enforce"]
    card: Path
    on_failure: Literal["open", "closed"] = "open"
    held_back: Literal["sentence", "none"] = "none"
    timeout_s: float = 1.0

    def environment(self) -> dict[str, str]:
        """The variables that ``of_environment`` reads."""
        return {
            "ONTOPIC_GUARD": self.mode,
            "ONTOPIC_GUARD_CARD": str(self.card.resolve()),
            "ONTOPIC_GUARD_ON_FAILURE": self.on_failure,
            "ONTOPIC_GUARD_HELD_BACK": self.held_back,
            "ONTOPIC_GUARD_TIMEOUT_S": str(self.timeout_s),
        }

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Guarding | None:
        """The settings in these variables; ``None`` where ``ONTOPIC_GUARD`` is not set, or ``off``.

        Raises:
            pydantic.ValidationError: one has no such value.
        """
        if environment.get("ONTOPIC_GUARD", "off") == "off":
            return None
        names = {
            "mode": "ONTOPIC_GUARD",
            "card": "ONTOPIC_GUARD_CARD",
            "on_failure": "ONTOPIC_GUARD_ON_FAILURE",
            "held_back": "ONTOPIC_GUARD_HELD_BACK",
            "timeout_s": "ONTOPIC_GUARD_TIMEOUT_S",
        }
        return cls.model_validate({key: environment[name] for key, name in names.items() if name in environment})
