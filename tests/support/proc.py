"""What Linux says of processes in `/proc`: their families, processor time and memory; of those gone, nothing."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """What a process has used since its start, with those children that have ended and were waited for."""
    with suppress(OSError):
        # After the name, which may hold anything but ends the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def memory(pid: int, what: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes that a process keeps resident now (VmRSS), or kept at most (VmHWM)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
    return 0
