"""Times to heal: how long after the mending of a fault the last request that it delayed has ended."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.faults.chaos.faults import Injected


def times_to_heal(faults: Sequence[Injected], lives: Iterable[tuple[float, float]]) -> dict[str, list[float]]:
    """Seconds by the fault's name; 0 where it delayed no request. `lives` are the (asked, ended) times of requests.

    A request that several faults delayed counts for the first of them.
    """
    last = [0.0] * len(faults)
    in_order = sorted(range(len(faults)), key=lambda number: faults[number].began)
    for asked, ended in lives:
        met = (n for n in in_order if faults[n].began <= ended and faults[n].mended >= asked)
        if (first := next(met, None)) is not None:
            last[first] = max(last[first], ended - faults[first].mended)
    healed: defaultdict[str, list[float]] = defaultdict(list)
    for injected, seconds in zip(faults, last, strict=True):
        healed[injected.fault.name].append(seconds)
    return dict(healed)
