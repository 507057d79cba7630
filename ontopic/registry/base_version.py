"""Which of a registered model's versions is the base model, that was not trained here."""

from __future__ import annotations

from collections.abc import Mapping

from ontopic.errors import UserError

KIND, OF_BASE = "ontopic.kind", "base"
"""The tag of a version with what it is, and what it says of a base model, which was not trained here."""


def base_version(name: str, tagged: Mapping[str, Mapping[str, str]]) -> str:
    """The base model that was registered last.

    Args:
        name: of the registered model.
        tagged: the tags of its versions, the oldest version first.

    Raises:
        UserError: there is none.
    """
    if not tagged:
        raise UserError(f"no model is registered as {name!r} yet; run `python run.py` first")
    bases = [version for version, tags in tagged.items() if tags.get(KIND) == OF_BASE]
    # A registry that others filled says nothing of kinds: there the oldest is what all began with.
    unsaid = [version for version, tags in tagged.items() if KIND not in tags]
    if not bases + unsaid:
        raise UserError(f"the base model of {name!r} was deleted; run `python run.py`, which registers it again")
    return bases[-1] if bases else unsaid[0]
