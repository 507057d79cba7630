"""Addresses within MLflow's pages."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode


def comparison_page(experiment_id: str, runs: Mapping[str, str]) -> str:
    """Path of the page that compares a challenger's answers in the gate with its champion's, question by question; of
    the list of evaluation runs where there is none.

    Args:
        runs: the ids of the two by the model's role.
    """
    roles = {"selectedRunUuid": "challenger", "compareToRunUuid": "champion"}
    chosen = {name: runs[role] for name, role in roles.items() if role in runs}
    return f"#/experiments/{experiment_id}/evaluation-runs" + (f"?{urlencode(chosen)}" if chosen else "")
