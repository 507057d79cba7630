"""What Evidently draws, whatever the subject."""

import os

import lazy_loader

# The one switch of Evidently's telemetry. It stands here as whoever uses Evidently's parts of ours imports this first.
os.environ.setdefault("DO_NOT_TRACK", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
