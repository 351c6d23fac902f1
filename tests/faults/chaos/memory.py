"""Samples the resident memory of each process of a system while a block runs."""

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Self

from tests.support import proc
from tests.support.system import System

# Bytes.
_MB = 1024 * 1024
# Seconds between two samples.
_PERIOD = 2.0
# The allowed growth of a warm process: a factor, and the MB that an allocator may keep.
_ALLOWED_FACTOR, _ALLOWED = 1.1, 10.0


@dataclass(frozen=True)
class Resident:
    """The memory of one program in MB; `quarters` are five samples from first to last at even distances.

    `processes` is the number of processes that ran the program, one after another.
    """

    quarters: tuple[float, ...]
    peak: float
    processes: int

    @property
    def flat(self) -> bool:
        """Whether the program has not grown since it was warm, beyond what an allocator may keep."""
        return self.quarters[-1] <= self.quarters[1] * _ALLOWED_FACTOR + _ALLOWED


class Memory:
    """Samples on its own thread."""

    def __init__(self, system: System, names: tuple[str, ...]) -> None:
        self._system = system
        self._names = names
        self._seen: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, Resident]:
        """The memory of each program that could be sampled, by name."""
        return {
            name: Resident(
                quarters=tuple(seen[(len(seen) - 1) * quarter // 4][1] for quarter in range(5)),
                peak=max(size for _, size in seen),
                processes=len({process for process, _ in seen}),
            )
            for name, seen in self._seen.items()
        }

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD):
            for name in self._names:
                process = self._system.process_id(name)
                if resident := proc.memory(process, "VmRSS"):
                    self._seen[name].append((process, resident / _MB))
