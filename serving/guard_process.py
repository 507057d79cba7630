"""The guard's own process: a line of JSON in, what is asked, and a line out, the opinions. It ends with its input.

python -m serving.guard_process CARD
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pydantic import TypeAdapter

from ontopic.judges.guard.guard import Asked
from ontopic.records import Message

_ASKED = TypeAdapter(list[Asked])
# What is compiled and copied at a first batch is so before the process is called ready.
_FIRST = Asked(messages=(Message(role="user", content="Hello?"),), answer="Hello.")


def main() -> None:
    """Read the guard, say which judge it goes by once it is ready, and answer until there is no more input."""
    # Lines are the protocol: whatever a library prints goes to the log.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import torch

    from ontopic.judges.guard.card import load_guard

    torch.set_num_threads(1)
    guard = load_guard(Path(sys.argv[1]))
    guard.opinions([_FIRST])
    out.write(json.dumps({"judge_id": guard.judge.id}).encode() + b"\n")
    out.flush()
    for line in sys.stdin.buffer:
        opinions = guard.opinions(_ASKED.validate_json(line))
        out.write(json.dumps([each.model_dump(mode="json") for each in opinions]).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
