"""Measures each system once in each round, in alternating order, and keeps the measurements."""

import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from statistics import median

Measure = Callable[[], Awaitable[Mapping[str, float]]]
Samples = Mapping[str, Mapping[str, list[float]]]
"""The measurements by system and then by column, one value for each round."""


@dataclass(frozen=True)
class Goal:
    """A limit for a median, or for a ratio of two: `value` must be at least, or at most, `limit`."""

    text: str
    value: float
    limit: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the value is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Table:
    """The outcome of one bench. `columns` are the formats of its figures by name; the chart shows the first column."""

    title: str
    text: str
    columns: Mapping[str, str]
    samples: Samples
    goals: tuple[Goal, ...] = ()

    def median(self, system: str, column: str) -> float:
        """The median of a figure over the rounds."""
        return median(self.samples[system][column])


async def alternate(measures: Mapping[str, Measure], rounds: int) -> Samples:
    """Measure each system `rounds` times, every other round in reverse order; prints one line each to stderr."""
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: 1 if number % 2 == 0 else -1]:
            started = time.monotonic()
            measured = await measures[name]()
            for column, value in measured.items():
                samples[name].setdefault(column, []).append(value)
            figures = ", ".join(f"{column} {value:.4g}" for column, value in measured.items())
            print(
                f"  {number + 1}. {name}: {figures} [{time.monotonic() - started:.0f} s]", file=sys.stderr, flush=True
            )
    return samples
