"""Fairness: how many of a worker's threads each fairness group has, and how many more it may get."""

import threading
from collections import Counter

# A fairness group, which is the jobs of one provider or of one queue before the last, gets at most this many times the
# threads that stay free. The threshold moves with the free threads, after Choudhury and Hahne, "Dynamic queue length
# thresholds for shared-memory packet switches", IEEE/ACM Transactions on Networking 6 (2), 1998.
_SHARE = 4


class FairnessGroups:
    """The fairness groups of `size` threads. A job is in one group at a time. Safe for many threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._share_of: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many more jobs can run at once."""
        return self.size - len(self._share_of)

    def join(self, member: str, share: str) -> None:
        """Count a job in a group."""
        with self._lock:
            self._share_of[member] = share
            self._counts[share] += 1

    def leave(self, member: str) -> None:
        """Stop counting a job."""
        with self._lock:
            share = self._share_of.pop(member, None)
            if share is not None:
                self._subtract(share)

    def move(self, member: str, share: str) -> bool:
        """Move a job to another group if that has room by the threshold for new jobs.

        Returns whether the job is in that group now. A group without jobs always has room for one.
        """
        with self._lock:
            current = self._share_of.get(member)
            if current is None:
                return False
            if current == share:
                return True
            if self._counts[share] and self._counts[share] + 1 > _SHARE * self.free:
                return False
            self._share_of[member] = share
            self._counts[share] += 1
            self._subtract(current)
            return True

    def most(self) -> int:
        """How many new jobs a group may get, so that they are at most _SHARE times the threads that stay free."""
        return max(1, _SHARE * self.free // (1 + _SHARE))

    def rooms(self) -> dict[str, int]:
        """The same for each group that already has so many jobs that it may get fewer."""
        with self._lock:
            free = self.free
            return {
                share: max(0, (_SHARE * free - running) // (1 + _SHARE))
                for share, running in self._counts.items()
                if running > _SHARE
            }

    def _subtract(self, share: str) -> None:
        self._counts[share] -= 1
        if not self._counts[share]:
            del self._counts[share]
