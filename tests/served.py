"""What tests serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import yaml
from loopback import ROOT

from serving.process import Serving


def smol(model_folder: Path, state: Path, **more: Any) -> Serving:
    """Version ``v7`` of a model that is called ``smol``, whose traffic is ``traffic.db`` in the state folder."""
    values = {"model_version": "v7", "model_name": "smol", "traffic": state / "traffic.db"}
    return Serving(model_folder=model_folder, state=state, **(values | more))


def proxy_config(folder: Path, upstream: str, *, judge: dict[str, Any] | None = None, **serving: Any) -> Path:
    """A configuration of a proxy to ``gpt-4o`` at that URL, written into a folder."""
    values = {
        "policy": str(ROOT / "configs" / "policies" / "gardening.yaml"),
        "judge_prompts": str(ROOT / "configs" / "judge_prompts"),
        "serving": {"backend": "openai", "base_url": upstream, "model": "gpt-4o", "port": 0} | serving,
        "judge": judge or {"kind": "local"},
        "monitoring": {"window_records": 60, "lateness": "0s"},
    }
    path = folder / "proxy.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def openai_client(url: str, key: str) -> openai.OpenAI:
    """The official client, which asks once and minds no proxy."""
    http_client = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, http_client=http_client)
