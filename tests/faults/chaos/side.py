"""One side of the world, the providers or the receivers: how often it behaves in which manner."""

import random
import threading
from collections.abc import Mapping

# Of all that a disturbed side does; the rest is as it should be.
_DISTURBED = 0.8


class Side:
    """Behaves as it should but for a share of each manner; disturbed, mostly in that one."""

    def __init__(self, seed: str, usually: Mapping[str, float]) -> None:
        self._rng = random.Random(seed)
        self._usually = usually
        self._shares = usually
        self._lock = threading.Lock()

    def disturb(self, manner: str) -> None:
        """Behave so until `calm`."""
        self._shares = {manner: _DISTURBED}

    def calm(self) -> None:
        """Behave as usual."""
        self._shares = self._usually

    def manner(self) -> str | None:
        """How to behave this time; None is as it should be."""
        with self._lock:
            drawn = self._rng.random()
        for manner, share in self._shares.items():
            if drawn < share:
                return manner
            drawn -= share
        return None
