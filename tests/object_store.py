"""An S3-compatible object store on the loopback interface: moto's server, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

BUCKET = "models"


def mlflow_in_store(mlflow_file: Path, experiment: str) -> Iterator[str]:
    """The tracking URI of an MLflow of the user's with that database, where an experiment's artifacts go to a store."""
    import mlflow

    uri = f"sqlite:///{mlflow_file}"
    with object_store() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in {**environment, "MLFLOW_TRACKING_URI": uri}.items():
            patch.setenv(name, value)
        mlflow.set_tracking_uri(uri)
        mlflow.create_experiment(experiment, artifact_location=f"s3://{BUCKET}/of a bank")
        yield uri
    mlflow.set_tracking_uri(None)


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """Run it with one bucket, for as long as the block lasts.

    Yields:
        The environment by which MLflow finds it.
    """
    import boto3
    from botocore.config import Config

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "one",
        "AWS_SECRET_ACCESS_KEY": "two",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        boto3.client(
            "s3",
            endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id="one",
            aws_secret_access_key="two",
            region_name="us-east-1",
            config=Config(proxies={"http": "", "https": ""}),
        ).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        server.stop()
