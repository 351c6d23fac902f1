"""What the programs of a system take of the processors, read from `/proc`, so that a busy machine does not blur it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.system import System

_TICKS = os.sysconf("SC_CLK_TCK")
PROGRAMS = ("dynamodb", "redis", "aggregator", "worker", "reconciler")


def cpu_seconds(system: System) -> Mapping[str, float]:
    """What each program has used since its start, with its children; an engine that is not the system's is left out."""
    found = {}
    for name in PROGRAMS:
        with suppress(KeyError):
            found[name] = sum(map(_cpu, _family(system.process_id(name))))
    return found


def _family(pid: int) -> list[int]:
    family = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                family += _family(int(child))
    return family


def _cpu(pid: int) -> float:
    with suppress(OSError):
        # After the name, which may hold anything but ends the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / _TICKS
    return 0.0
