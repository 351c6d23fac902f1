"""One side of the world, the providers or the receivers: decides in which manner each call is handled."""

import random
import threading
from collections.abc import Mapping

# The share of calls that a disturbed side handles in its manner; it handles the rest well.
_DISTURBED = 0.8


class Side:
    """Behaves well but for a share of each manner; when disturbed, mostly in that one manner."""

    def __init__(self, seed: str, usually: Mapping[str, float]) -> None:
        self._rng = random.Random(seed)
        self._usually = usually
        self._shares = usually
        self._lock = threading.Lock()

    def disturb(self, manner: str) -> None:
        """Mostly behave in this manner until `calm`."""
        self._shares = {manner: _DISTURBED}

    def calm(self) -> None:
        """Behave as usual."""
        self._shares = self._usually

    def manner(self) -> str | None:
        """The manner for this call; None: behave well."""
        with self._lock:
            drawn = self._rng.random()
        for manner, share in self._shares.items():
            if drawn < share:
                return manner
            drawn -= share
        return None
