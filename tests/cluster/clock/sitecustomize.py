"""A clock that runs faster, for every Python process whose PYTHONPATH names this folder.

``CLUSTER_CLOCK`` is ``REAL SIMULATED RATE``: seconds since 1970 at which both clocks stood so, and how many seconds of
the simulated one pass in a real one. A process that is started again reads the same clock. Time-outs and pauses, which
go by the monotonic clock, stay as they are.
"""

import os
import sys

if "CLUSTER_CLOCK" in os.environ:
    sys.modules.setdefault("pytest", None)  # time-machine imports it where it is there: a quarter of a second
    import _time_machine
    import time_machine

    if sys.modules["pytest"] is None:
        del sys.modules["pytest"]
    _real, _simulated, _rate = (round(float(part) * 1e9) for part in os.environ["CLUSTER_CLOCK"].split())

    def _time_ns(_: object) -> int:
        return _simulated + (_time_machine.original_time_ns() - _real) * _rate // 1_000_000_000

    time_machine.Traveller.time_ns = _time_ns
    time_machine.travel(0).start()
