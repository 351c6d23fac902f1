"""What the programs of a system take of the processors, read from `/proc`, so that a busy machine does not blur it."""

from collections.abc import Mapping
from contextlib import suppress

from tests.support import proc
from tests.support.system import System

PROGRAMS = ("dynamodb", "redis", "aggregator", "worker", "reconciler")


def cpu_seconds(system: System) -> Mapping[str, float]:
    """What each program has used since its start, with its children; an engine that is not the system's is left out."""
    found = {}
    for name in PROGRAMS:
        with suppress(KeyError):
            found[name] = sum(map(proc.cpu_seconds, proc.family(system.process_id(name))))
    return found
