"""The world of the herd: one provider that can be down, one that never is, and the receiver of all callbacks."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.servers.outside import Answer, Outside

DOWN, OTHER = "down", "other"


@dataclass(frozen=True)
class Span:
    """One call of a provider, from its arrival to its response, by `time.monotonic`."""

    begun: float
    ended: float


class World(Outside):
    """Providers take `latency` seconds to respond; a callback goes to the receiver of its request's id."""

    def __init__(self, *, latency: float) -> None:
        super().__init__()
        self.is_down = False
        self.calls: dict[str, list[Span]] = {DOWN: [], OTHER: []}
        self.received: defaultdict[str, list[float]] = defaultdict(list)
        """The times of each request's callbacks, by the request's id."""
        self._latency = latency

    def answer(self, provider: str) -> Answer:
        """A provider's response, after its latency."""
        begun = time.monotonic()
        time.sleep(self._latency)
        fails = provider == DOWN and self.is_down
        self.calls[provider].append(Span(begun, time.monotonic()))
        return (503, b"down") if fails else (200, b'{"amount": 22.27}')

    def take(self, hook: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Accept the callback."""
        self.received[hook].append(time.monotonic())
        return 204, b""


def most_at_once(spans: Sequence[Span]) -> int:
    """The highest number of calls at the same moment."""
    steps = sorted([(span.begun, 1) for span in spans] + [(span.ended, -1) for span in spans])
    at_once = most = 0
    for _, step in steps:
        at_once += step
        most = max(most, at_once)
    return most


def per_second(spans: Sequence[Span], begun: float, ended: float) -> list[int]:
    """The number of calls that arrived in each whole second between `begun` and `ended`."""
    counts = [0] * max(1, int(ended - begun))
    for span in spans:
        second = int(span.begun - begun)
        if 0 <= second < len(counts) and span.begun >= begun:
            counts[second] += 1
    return counts
