"""An S3-compatible object store on the loopback interface: moto's server, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer

BUCKET = "models"


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
