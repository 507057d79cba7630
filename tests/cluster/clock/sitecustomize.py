"""A clock that runs faster, for every Python process whose PYTHONPATH names this folder.

``CLUSTER_CLOCK`` is ``REAL SIMULATED RATE``: seconds since 1970 at which both clocks stood so, and how many seconds of
the simulated one pass in a real one. A process that is started again reads the same clock. Time-outs and pauses, which
go by the monotonic clock, stay as they are; and so do signatures for S3, which a store refuses when they are old.
"""

import importlib.abc
import importlib.machinery
import os
import sys

_SIGNS = "botocore.compat"


class _Signing(importlib.abc.MetaPathFinder):
    """Has botocore, once it is imported, go by the real clock."""

    def find_spec(self, name, path, target=None):
        if name != _SIGNS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            module.get_current_datetime = _now

        spec.loader.exec_module = exec_module
        return spec


def _now(remove_tzinfo=True):
    now = _time_machine.original_now(datetime.UTC)
    return now.replace(tzinfo=None) if remove_tzinfo else now


if "CLUSTER_CLOCK" in os.environ:
    sys.modules.setdefault("pytest", None)  # time-machine imports it where it is there: a quarter of a second
    import datetime

    import _time_machine
    import time_machine

    if sys.modules["pytest"] is None:
        del sys.modules["pytest"]
    _real, _simulated, _rate = (round(float(part) * 1e9) for part in os.environ["CLUSTER_CLOCK"].split())

    def _time_ns(_: object) -> int:
        return _simulated + (_time_machine.original_time_ns() - _real) * _rate // 1_000_000_000

    time_machine.Traveller.time_ns = _time_ns
    time_machine.travel(0).start()
    sys.meta_path.insert(0, _Signing())
