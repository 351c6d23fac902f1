"""ShardLeases: which shards of an index are this reconciler's, as long as others live that take theirs."""

import logging
import time
import uuid
from collections.abc import Sequence
from importlib.resources import files
from typing import Protocol

import redis

log = logging.getLogger(__name__)

# How often a living reconciler says so within a lease.
_BEATS = 4


class ShardLeases(Protocol):
    """Tells which shards are this reconciler's."""

    def held(self, index: str, shards: Sequence[str]) -> Sequence[str]:
        """Those of all `shards` of the index that are its own now."""

    def beat(self) -> None:
        """Say that it lives, if that is due. The share of one that does not say so for a lease goes to others."""

    def leave(self) -> None:
        """Let the others have all of it."""


class AllShards:
    """The share of one who is alone, or does not mind others."""

    def held(self, index: str, shards: Sequence[str]) -> Sequence[str]:
        """All of them."""
        return shards

    def beat(self) -> None:
        """Nobody listens."""

    def leave(self) -> None:
        """Nobody comes after."""


class LeasedShards:
    """A fair share, under a lease in Redis of `lease` seconds. No two hold the same shard while Redis answers them.

    While it does not, each goes on with what it has held, or with all if it has never held any: each write of a
    reconciler is conditional, so that two who read the same only do so in vain.
    """

    def __init__(self, connection: "redis.Redis", *, lease: float) -> None:
        self._connection = connection
        self._lease = lease
        self._id = uuid.uuid4().hex
        self._divide = connection.register_script(files("workers.rq_worker.scripts").joinpath("divide.lua").read_text())
        self._held: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
        """Of each index, all shards, and those held."""
        self._said_at: dict[str, float] = {}

    def held(self, index: str, shards: Sequence[str]) -> Sequence[str]:
        """As the lease says, renewed if that is due."""
        known = self._held.get(index)
        if known is None or known[0] != shards or self._is_due(index):
            self._renew(index, shards)
        return self._held[index][1]

    def beat(self) -> None:
        """Renew the leases that are due for it."""
        for index, (shards, _) in list(self._held.items()):
            if self._is_due(index):
                self._renew(index, shards)

    def leave(self) -> None:
        """Let the others have it at once."""
        try:
            for index in self._held:
                self._connection.zrem(f"datahog:reconcilers:{index}", self._id)
        except redis.RedisError as error:
            log.info("queue away, the others wait for the end of the lease: %s", error)

    def _is_due(self, index: str) -> bool:
        return time.monotonic() - self._said_at[index] > self._lease / _BEATS

    def _renew(self, index: str, shards: Sequence[str]) -> None:
        # From before the call, as the lease may begin at any time during it.
        self._said_at[index] = time.monotonic()
        held = self._held[index][1] if index in self._held else []
        arguments: list[str | int] = [index, self._id, int(self._lease * 1000), len(shards), *shards, *held]
        try:
            held = [shard.decode() for shard in self._divide(keys=[], args=arguments)]
        except redis.RedisError as error:
            log.warning("queue away, going on with the shards held so far: %s", error)
            held = held if index in self._held else shards
            # It may have taken long to fail.
            self._said_at[index] = time.monotonic()
        self._held[index] = (shards, held)
