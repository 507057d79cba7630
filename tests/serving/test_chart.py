"""The Helm chart: rendered by Helm's own engine, held to Kubernetes' schemas and to what the service really does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from loopback import ROOT
from prometheus_client import REGISTRY

import serving.metrics
from serving.access import OPEN
from serving.chat import TIMEOUT_S

pytest.importorskip("helm_python", reason="helm-python-sdk has no wheel for this machine")

CHART = ROOT / "serving" / "chart"
WRITABLE = ("/data", "/tmp")  # noqa: S108  # a container's own
# Values that somebody sets, by who they are.
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": {
        "mlflow": {"enabled": True},
        "monitoring": {"serviceMonitor": True, "labels": {"release": "prometheus"}},
        "objectStore": {"endpoint": "http://store.bank.example:8333"},
        "networkPolicy": {
            "database": {"port": 6432, "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
            "more": [{"ports": [{"port": 4318}]}],
        },
    },
    "proxy": {
        "service": {
            "upstream": {"url": "https://api.openai.com/v1", "model": "gpt-4o"},
            "env": {"ONTOPIC_GUARD": "off", "ONTOPIC_MAX_NEW_TOKENS": 512},
        }
    },
    "fixed": {"autoscaling": {"enabled": False}, "networkPolicy": {"enabled": False}, "service": {"replicas": 3}},
    "own-subject": {
        "config": "/etc/ontopic/gardening.yaml",
        "existingConfigMap": "gardening",
        "existingSecret": "bank-ontopic",
        "model": "ontopic-gardening",
        "image": {"repository": "registry.bank.example/ontopic", "digest": f"sha256:{'0' * 64}"},
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccountName": "zenml",
        "loop": {"suspend": False, "schedule": "@monthly", "nodeSelector": {"gpu": "h100"}},
        "service": {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
    },
}
# Helm's library is written in Go, whose runtime is not let into this process: it takes over signals and threads.
HELM = """
import json, sys
import helm_python as helm
given = json.load(sys.stdin)
rendered, refused = {}, {}
with helm.Chart.load(given["chart"]) as chart:
    for name, values in given["cases"].items():
        rendered[name] = chart.render(values, name="bank", namespace="assistant")
    for name, values in given["wrong"].items():
        try:
            chart.render(values, name="bank")
        except helm.HelmValuesError as error:
            refused[name] = str(error)
lint = {name: helm.lint(given["chart"], values, strict=True) for name, values in given["cases"].items()}
json.dump({"rendered": rendered, "refused": refused, "lint": lint}, sys.stdout)
"""
WRONG = {
    "a name that is none": {"service": {"replica": 2}},
    "a number as text": {"watch": {"replicas": "two"}},
    "an upstream without its model": {"service": {"upstream": {"url": "http://127.0.0.1/v1"}}},
    "a digest that is none": {"image": {"repository": "ontopic", "digest": "latest"}},
    "a secret in the values": {"service": {"env": {"KEY": {"valueFrom": {}}}}},
    "no memory limit": {"watch": {"resources": {"limits": {"memory": None}}}},
}


@pytest.fixture(scope="module")
def helm() -> dict[str, Any]:
    """What Helm made of all values at once."""
    given = json.dumps({"chart": str(CHART), "cases": CASES, "wrong": WRONG})
    done = subprocess.run([sys.executable, "-c", HELM], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    read: dict[str, list[Any]] = {}
    for case, files in found["rendered"].items():
        for text in files.values():
            read.setdefault(text, [one for one in yaml.load_all(text, yaml.CSafeLoader) if one])
        found["rendered"][case] = [one for text in files.values() for one in read[text]]
    return dict(found)


def manifests(helm: dict[str, Any], case: str) -> list[dict[str, Any]]:
    return list(helm["rendered"][case])


def of_kind(helm: dict[str, Any], case: str, kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests(helm, case) if one["kind"] == kind}


def pods(found: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the pod template of each workload."""
    for one in found:
        if one["kind"] == "CronJob":
            yield one["metadata"]["name"], one["spec"]["jobTemplate"]["spec"]["template"]
        elif one["kind"] == "Deployment":
            yield one["metadata"]["name"], one["spec"]["template"]


def environment(container: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_the_chart(helm: dict[str, Any], case: str) -> None:
    found = [one for one in helm["lint"][case]["messages"] if one["severity"] > 1]
    assert not found
    assert not helm["lint"][case]["errors"]


def test_every_manifest_is_one_by_the_schemas_of_kubernetes(
    helm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import kubernetes_validate
    from kubernetes_validate import utils

    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))  # else read for each manifest
    distinct = {json.dumps(one, sort_keys=True): one for case in CASES for one in manifests(helm, case)}
    of_crds = {"ServiceMonitor", "PrometheusRule"}  # they come with Prometheus's operator
    kinds = set()
    newest = kubernetes_validate.latest_version()
    for one in distinct.values():
        kinds.add(one["kind"])
        if one["kind"] not in of_crds:
            kubernetes_validate.validate(one, newest, strict=True)
    assert kinds - of_crds == {
        *("ConfigMap", "CronJob", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy"),
        *("PodDisruptionBudget", "Service", "ServiceAccount"),
    }
    (service,) = of_kind(helm, "default", "Service").values()
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**service, "speck": {}}, newest, strict=True)


@pytest.mark.parametrize("wrong", WRONG)
def test_values_that_are_wrong_are_refused(helm: dict[str, Any], wrong: str) -> None:
    assert wrong in helm["refused"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_secret_is_named_and_never_there(helm: dict[str, Any], case: str) -> None:
    assert not of_kind(helm, case, "Secret")
    secret = CASES[case].get("existingSecret", "ontopic")
    for name, pod in pods(manifests(helm, case)):
        (container,) = pod["spec"]["containers"]
        given = environment(container)
        for variable, value in given.items():
            if re.search(r"STATE_URL|STORE_URI|STORE_URL|_KEY$|_KEY_ID$|ONTOPIC_TRAFFIC", variable):
                if variable == "ONTOPIC_USER_KEY":  # a path
                    continue
                assert value["secretKeyRef"]["name"] == secret, (name, variable)


@pytest.mark.parametrize("case", CASES)
def test_no_variable_is_unknown_to_the_sources(helm: dict[str, Any], case: str) -> None:
    sources = "".join(path.read_text() for folder in ("serving", "ontopic") for path in (ROOT / folder).rglob("*.py"))
    for _, pod in pods(manifests(helm, case)):
        (container,) = pod["spec"]["containers"]
        for variable in environment(container):
            assert not variable.startswith("ONTOPIC_") or re.search(rf"\b{variable}\b", sources), variable


@pytest.mark.parametrize("case", CASES)
def test_each_pod_writes_to_its_own_folders_alone(helm: dict[str, Any], case: str) -> None:
    for name, pod in pods(manifests(helm, case)):
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
        assert writable == set(WRITABLE)
        given = environment(container)
        for variable in ("HOME", "ONTOPIC_CACHE", "BENTOML_HOME", "ONTOPIC_FOLLOW", "ONTOPIC_USER_KEY"):
            if variable in given:
                assert given[variable].startswith(WRITABLE), variable
        mounted, volumes = (
            {each["name"] for each in found} for found in (container["volumeMounts"], pod["spec"]["volumes"])
        )
        assert mounted == volumes
        token = pod["spec"]["automountServiceAccountToken"]
        assert token == (case == "own-subject" and name != "bank")


@pytest.mark.parametrize("case", CASES)
def test_a_pod_that_ends_has_time_for_what_it_has_taken(helm: dict[str, Any], case: str) -> None:
    pod = of_kind(helm, case, "Deployment")["bank"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    arguments = container["args"]
    drain = int(arguments[arguments.index("--timeout-graceful-shutdown") + 1])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain >= TIMEOUT_S  # no answer takes longer
    assert pod["terminationGracePeriodSeconds"] >= before + drain + 10
    # The balancer stops to send before the pod stops to take.
    ready = container["readinessProbe"]
    assert before >= ready["periodSeconds"] * ready["failureThreshold"]
    assert {container[each]["httpGet"]["path"] for each in ("readinessProbe", "livenessProbe")} <= set(OPEN)
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/healthz"


def test_the_autoscaler_goes_by_what_the_service_measures(helm: dict[str, Any]) -> None:
    (scaler,) = of_kind(helm, "default", "HorizontalPodAutoscaler").values()
    (metric,) = scaler["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert REGISTRY.get_sample_value(name) == serving.metrics._WAITING._value.get() == 0
    target = scaler["spec"]["scaleTargetRef"]
    deployment = of_kind(helm, "default", target["kind"])[target["name"]]
    assert "replicas" not in deployment["spec"]  # or each upgrade would set it back
    assert scaler["spec"]["minReplicas"] >= 2
    assert not of_kind(helm, "fixed", "HorizontalPodAutoscaler")
    assert of_kind(helm, "fixed", "Deployment")["bank"]["spec"]["replicas"] == 3


@pytest.mark.parametrize("case", CASES)
def test_what_selects_pods_selects_them(helm: dict[str, Any], case: str) -> None:
    found = manifests(helm, case)
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(found)}

    def selected(selector: dict[str, str]) -> set[str]:
        return {name for name, those in labels.items() if selector.items() <= those.items()}

    for one in found:
        name, spec = one["metadata"]["name"], one.get("spec", {})
        if one["kind"] == "Service":
            assert selected(spec["selector"]) == {name}
        elif one["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert selected(spec["selector"]["matchLabels"]) == {name}
    held = [selected(one["spec"]["podSelector"]["matchLabels"]) for one in found if one["kind"] == "NetworkPolicy"]
    assert sum(map(len, held)) == len(set().union(*held))
    assert set().union(*held) == (set() if case == "fixed" else set(labels))


def test_pods_reach_and_are_reached_by_what_they_need(helm: dict[str, Any]) -> None:
    def ports(case: str, policy: str, way: str) -> list[Any]:
        rules = of_kind(helm, case, "NetworkPolicy")[policy]["spec"][way]
        return sorted((str(each["port"]) for rule in rules for each in rule["ports"]), key=str)

    assert ports("default", "bank-service", "ingress") == ["http"]
    assert ports("default", "bank-service", "egress") == ["443", "53", "53", "5432"]  # MLflow, names, the database
    assert ports("everything", "bank-service", "egress") == ["4318", "5000", "53", "53", "6432"]
    assert ports("everything", "bank-mlflow", "egress") == ["4318", "443", "53", "53", "6432"]
    assert ports("default", "bank-watch", "ingress") == []
    database = of_kind(helm, "everything", "NetworkPolicy")["bank-watch"]["spec"]["egress"][1]
    assert database == {"ports": [{"port": 6432}], "to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}
    (entry,) = of_kind(helm, "default", "NetworkPolicy")["bank-service"]["spec"]["ingress"]
    spaces = [each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for each in entry["from"]]
    assert spaces == ["ingress-nginx", "monitoring"]


def test_a_proxy_asks_nothing_of_mlflow(helm: dict[str, Any]) -> None:
    (container,) = of_kind(helm, "proxy", "Deployment")["bank"]["spec"]["template"]["spec"]["containers"]
    given = environment(container)
    assert given["ONTOPIC_BACKEND"] == "openai"
    assert given["ONTOPIC_MAX_NEW_TOKENS"] == "512"
    assert not {"MLFLOW_TRACKING_URI", "ONTOPIC_MODEL_URI", "ONTOPIC_FOLLOW"} & set(given)


def test_an_own_subject_s_files_are_mounted_where_its_configuration_is(helm: dict[str, Any]) -> None:
    for name, pod in pods(manifests(helm, "own-subject")):
        (container,) = pod["spec"]["containers"]
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        assert ("/etc/ontopic" in mounts) == (name != "bank")
        if name != "bank":
            assert container["args"][-2:] == ["--config", "/etc/ontopic/gardening.yaml"]
            assert container["image"] == f"registry.bank.example/ontopic@sha256:{'0' * 64}"
            assert pod["spec"]["serviceAccountName"] == "zenml"
    assert of_kind(helm, "own-subject", "CronJob")["bank-loop"]["spec"]["suspend"] is False


def test_rules_and_dashboard_are_the_service_s_own(helm: dict[str, Any]) -> None:
    rules, dashboard = (
        (ROOT / "serving" / name).read_text() for name in ("prometheus-rules.yaml", "grafana-dashboard.json")
    )
    found = of_kind(helm, "default", "ConfigMap")
    assert found["bank-rules"]["data"]["ontopic.yaml"].strip() == rules.strip()
    assert json.loads(found["bank-dashboard"]["data"]["ontopic.json"]) == json.loads(dashboard)
    everything = of_kind(helm, "everything", "PrometheusRule")["bank"]
    assert everything["spec"] == yaml.safe_load(rules)
    assert everything["metadata"]["labels"]["release"] == "prometheus"
    monitor = of_kind(helm, "everything", "ServiceMonitor")["bank"]["spec"]
    service = of_kind(helm, "everything", "Service")["bank"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert not [path for path in CHART.rglob("*") if path.is_symlink() and not Path(path.resolve()).is_file()]
