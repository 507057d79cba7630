"""The Helm chart by checkov's policies, which run in an environment of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import ROOT

pytestmark = pytest.mark.slow

# What is not done, and why.
LEFT = {
    "CKV_K8S_15": "a tag is a release and is not moved; image.pullPolicy is the user's",
    "CKV_K8S_35": "what is run reads its secrets from the environment",
    "CKV_K8S_40": "the service's image has user 1034, which BentoML makes",
    "CKV_K8S_43": "image.digest is the user's, who has built the image",
}
# Each takes one thing away from the service's pod, and the policy that it breaks.
MUTATIONS: dict[str, tuple[str, tuple[str, ...], Any]] = {
    "root": ("CKV_K8S_23", ("securityContext", "runAsNonRoot"), False),
    "a root of its own to write to": ("CKV_K8S_22", ("containers", "securityContext", "readOnlyRootFilesystem"), False),
    "more than it began with": ("CKV_K8S_20", ("containers", "securityContext", "allowPrivilegeEscalation"), True),
    "capabilities": ("CKV_K8S_37", ("containers", "securityContext", "capabilities"), {}),
    "no seccomp": ("CKV_K8S_31", ("securityContext", "seccompProfile"), {"type": "Unconfined"}),
    "the API's token": ("CKV_K8S_38", ("automountServiceAccountToken",), True),
    "no limit of memory": ("CKV_K8S_13", ("containers", "resources", "limits"), {"cpu": "1"}),
    "not asked whether it lives": ("CKV_K8S_8", ("containers", "livenessProbe"), None),
}
Failed = dict[str, set[tuple[str, str]]]
RENDER = """
import json, sys
import helm_python as helm
with helm.Chart.load(sys.argv[1]) as chart:
    json.dump(chart.render({"mlflow": {"enabled": True}}, name="bank", namespace="assistant"), sys.stdout)
"""


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    pytest.importorskip("helm_python")
    command = [sys.executable, "-c", RENDER, str(ROOT / "serving" / "chart")]
    rendered = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [one for text in rendered.values() for one in yaml.load_all(text, yaml.CSafeLoader) if one]


@pytest.fixture(scope="module")
def failed(manifests: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """The policies that each file fails, with what fails them: the chart, each mutation of it, the Dockerfile."""
    folder = tmp_path_factory.mktemp("checkov")
    (folder / "checked").mkdir()
    (folder / "checked" / "chart.yaml").write_text(yaml.safe_dump_all(manifests))
    for i, (_, path, value) in enumerate(MUTATIONS.values()):
        (folder / "checked" / f"{i}.yaml").write_text(yaml.safe_dump(_mutated(manifests, path, value)))
    checkov = _installed(folder)
    done = subprocess.run(
        [checkov, "-d", folder / "checked", "--framework", "kubernetes", "-o", "json", "--quiet", "--skip-download"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stderr
    found: Failed = {}
    for each in json.loads(done.stdout)["results"]["failed_checks"]:
        found.setdefault(Path(each["file_path"]).stem, set()).add((each["check_id"], each["resource"]))
    return found


def _mutated(manifests: list[dict[str, Any]], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    (found,) = (one for one in manifests if one["kind"] == "Deployment" and one["metadata"]["name"] == "bank")
    mutated: dict[str, Any] = json.loads(json.dumps(found))
    spec = mutated["spec"]["template"]["spec"]
    for key in path[:-1]:
        spec = spec[key][0] if key == "containers" else spec[key]
    if path[-1] == "runAsNonRoot":  # else the container's own holds
        spec["runAsUser"], mutated["spec"]["template"]["spec"]["containers"][0]["securityContext"] = 0, {}
    if path[-1] == "seccompProfile":
        mutated["spec"]["template"]["spec"]["containers"][0]["securityContext"]["seccompProfile"] = value
    if value is None:
        del spec[path[-1]]
    else:
        spec[path[-1]] = value
    return mutated


def _installed(folder: Path) -> Path:
    """checkov, by uv from the package index and its cache."""
    # What the tests set to keep all else from the network is not uv's.
    outside = {name: value for name, value in os.environ.items() if not name.upper().endswith(("_PROXY", "_BUNDLE"))}
    outside.pop("SSL_CERT_FILE", None)
    uv = [sys.executable, "-m", "uv"]
    requirements = str(ROOT / "tests" / "data" / "checkov-requirements.txt")
    for command in (
        [*uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")],
        [*uv, "pip", "install", "--quiet", "--python", str(folder / "venv"), "-r", requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=outside, check=False)
        if done.returncode:
            pytest.skip(f"checkov could not be installed: {done.stderr[-300:]}")
    return folder / "venv" / "bin" / "checkov"


def test_the_chart_fails_no_policy_but_those_that_are_left(failed: Failed) -> None:
    assert {check for check, _ in failed["chart"]} == set(LEFT)
    assert {resource for check, resource in failed["chart"] if check == "CKV_K8S_40"} == {"Deployment.assistant.bank"}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_what_is_taken_away_is_found(failed: Failed, mutation: str) -> None:
    check, i = MUTATIONS[mutation][0], list(MUTATIONS).index(mutation)
    assert check in {found for found, _ in failed[str(i)]}
