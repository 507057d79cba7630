"""What an operator does once: a ZenML stack with artifacts in the object store and MLflow's server as its tracker.

A file of its own, as ZenML looks for the sources around the one that is run.
"""

from __future__ import annotations

import sys

from zenml.client import Client
from zenml.enums import StackComponentType as Kind

mlflow, path, endpoint, key, secret = sys.argv[1:]
client = Client()
parts = {
    Kind.ORCHESTRATOR: ("local", {}),
    Kind.ARTIFACT_STORE: (
        "s3",
        {"path": path, "key": key, "secret": secret, "client_kwargs": {"endpoint_url": endpoint}},
    ),
    Kind.EXPERIMENT_TRACKER: ("mlflow", {"tracking_uri": mlflow, "tracking_token": "none"}),
    Kind.MODEL_REGISTRY: ("mlflow", {}),
}
for kind, (flavor, configuration) in parts.items():
    client.create_stack_component("cluster", flavor, kind, configuration)
print("stack:" + str(client.create_stack("cluster", dict.fromkeys(parts, "cluster")).id))
