"""The schedule: which fault affects which target, when and for how long; a seed always gives the same schedule."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

LINKS = ("dynamodb", "redis", "aggregator", "client")
_PROGRAMS = ("worker", "aggregator", "client", "reconciler", "redis", "dynamodb")
# Seconds: the shortest and the longest duration of a fault.
_USUAL = (1.0, 4.0)
# Seconds. A worker's lease is 20 s: when it is frozen for longer, another takes its jobs over meanwhile.
_BEYOND_A_LEASE = (22.0, 27.0)
# Seconds without a fault for a target that was mended.
_REST = 2.0

KINDS: tuple[tuple[str, str], ...] = (
    *(("kill", name) for name in _PROGRAMS),
    *(("freeze", name) for name in _PROGRAMS),
    ("stop", "worker"),
    ("flush", "redis"),
    *((kind, f"{name} link") for kind in ("cut", "delay", "lose responses") for name in LINKS),
    *((kind, "providers") for kind in ("fail", "hang", "garbage", "cut")),
    *((kind, "receivers") for kind in ("fail", "slow", "cut")),
)


@dataclass(frozen=True)
class Fault:
    """A fault that affects `target` from `at` (seconds after the start), and is mended `seconds` later."""

    kind: str
    target: str
    at: float
    seconds: float

    @property
    def name(self) -> str:
        """The fault's name in reports."""
        return f"{self.kind} {self.target}"


def make_schedule(seed: int, *, seconds: float, count: int, long_freezes: bool = False) -> list[Fault]:
    """Make `count` faults that begin at even distances within `seconds`.

    Each kind comes once before any comes twice. No target has two at once; faults of different targets may overlap.
    With `long_freezes` every other freeze of the worker outlasts its lease.
    """
    rng = random.Random(seed)
    faults: list[Fault] = []
    kinds = _shuffled_rounds(rng)
    put_off: list[tuple[str, str]] = []
    free_at: dict[str, float] = {}
    frozen = 0
    for number in range(count):
        at = number * seconds / count
        while True:
            kind = next((kind for kind in put_off if free_at.get(kind[1], 0) <= at), None)
            if kind:
                put_off.remove(kind)
                break
            kind = next(kinds)
            if free_at.get(kind[1], 0) <= at:
                break
            put_off.append(kind)
        name, target = kind
        frozen += kind == ("freeze", "worker")
        long = long_freezes and kind == ("freeze", "worker") and frozen % 2 == 1
        lasts = 0.0 if name == "flush" else rng.uniform(*(_BEYOND_A_LEASE if long else _USUAL))
        faults.append(Fault(name, target, at, lasts))
        free_at[target] = at + lasts + _REST
    return faults


def _shuffled_rounds(rng: random.Random) -> Iterator[tuple[str, str]]:
    while True:
        yield from rng.sample(KINDS, len(KINDS))
