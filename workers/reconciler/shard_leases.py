"""Shard leases: divides the shards of an index among the reconcilers that are alive."""

import logging
import time
import uuid
from collections.abc import Sequence
from importlib.resources import files
from typing import Protocol

import redis

log = logging.getLogger(__name__)

# How often a live reconciler renews its lease within the duration of one.
_BEATS = 4


class ShardLeases(Protocol):
    """Tells which shards this reconciler holds."""

    def held(self, index: str, shards: Sequence[str]) -> Sequence[str]:
        """Those of all `shards` of the index that it holds now."""

    def beat(self) -> None:
        """Renew the lease if that is due. A reconciler whose lease ends loses its shards to others."""

    def leave(self) -> None:
        """Give all shards up."""


class AllShards:
    """All shards, for a reconciler that runs alone or ignores others."""

    def held(self, index: str, shards: Sequence[str]) -> Sequence[str]:
        """All of `shards`."""
        return shards

    def beat(self) -> None:
        """Do nothing: no other reconciler listens."""

    def leave(self) -> None:
        """Do nothing: no other reconciler follows."""


class LeasedShards:
    """A fair share, under a lease in Redis of `lease` seconds. No two hold the same shard while Redis responds.

    Without Redis, each keeps the shards that it has held, or takes all if it has never held any. Each write of a
    reconciler is conditional, so that two that scan the same shard only waste reads.
    """

    def __init__(self, connection: "redis.Redis", *, lease: float) -> None:
        self._connection = connection
        self._lease = lease
        self._id = uuid.uuid4().hex
        self._divide = connection.register_script(files("workers.rq_worker.scripts").joinpath("divide.lua").read_text())
        self._held: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
        """For each index, all its shards and those held."""
        self._said_at: dict[str, float] = {}

    def held(self, index: str, shards: Sequence[str]) -> Sequence[str]:
        """The shards held under the lease, which is renewed if that is due."""
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
        """Give the lease up, so that the other reconcilers get the shards at once."""
        try:
            for index in self._held:
                self._connection.zrem(f"datahog:reconcilers:{index}", self._id)
        except redis.RedisError as error:
            log.info("queue away, the other reconcilers wait for the end of the lease: %s", error)

    def _is_due(self, index: str) -> bool:
        return time.monotonic() - self._said_at[index] > self._lease / _BEATS

    def _renew(self, index: str, shards: Sequence[str]) -> None:
        # The time before the call counts, as the lease may begin at any time during it.
        self._said_at[index] = time.monotonic()
        held = self._held[index][1] if index in self._held else []
        arguments: list[str | int] = [index, self._id, int(self._lease * 1000), len(shards), *shards, *held]
        try:
            held = [shard.decode() for shard in self._divide(keys=[], args=arguments)]
        except redis.RedisError as error:
            log.warning("queue away, keeping the shards held so far: %s", error)
            held = held if index in self._held else shards
            # The call may have taken long to fail.
            self._said_at[index] = time.monotonic()
        self._held[index] = (shards, held)
