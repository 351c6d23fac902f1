"""Reads the CPU time of a system's programs from `/proc`, which a busy machine does not distort."""

from collections.abc import Mapping
from contextlib import suppress

from tests.support import proc
from tests.support.system import System

PROGRAMS = ("dynamodb", "redis", "aggregator", "worker", "reconciler")


def cpu_seconds(system: System) -> Mapping[str, float]:
    """CPU seconds of each program since its start, with its children; without engines that the system does not run."""
    found = {}
    for name in PROGRAMS:
        with suppress(KeyError):
            found[name] = sum(map(proc.cpu_seconds, proc.family(system.process_id(name))))
    return found
