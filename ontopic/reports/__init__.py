"""What Evidently draws, whatever the subject."""

import os

# The one switch of Evidently's telemetry. It stands here as whoever uses Evidently's parts of ours imports this first.
os.environ.setdefault("DO_NOT_TRACK", "1")
