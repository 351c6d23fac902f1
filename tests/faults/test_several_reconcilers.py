"""Several reconciler processes: no two read the same record, and the others heal the records of a dead one."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
import redis

from datahog.bootstrap.wiring import Wiring
from datahog.local import stack
from persistence.dynamodb.schema import aggregator_table
from tests.support.engines.proxy import Proxy
from tests.support.engines.rq_state import FETCH, queued
from tests.support.system import System, eventually, system_settings

SHARDS = 8
# Seconds: a step that is late by so much counts as lost; the lease of a dead reconciler ends after so long.
HEAL_AFTER, LEASE = 1.0, 8.0


@dataclass
class Several:
    """Engines, and reconcilers that each reach DynamoDB through a proxy of its own."""

    engines: System
    wiring: Wiring
    reconcilers: dict[str, tuple[System, str]]
    proxies: dict[str, Proxy]

    def kill(self, name: str) -> None:
        """Kill a reconciler, so that it cannot give its shards up."""
        system, process = self.reconcilers.pop(name)
        system.kill(process)

    def owners(self) -> Counter[str]:
        """The number of shards of the aggregator's index that each reconciler holds."""
        name = f"datahog:shards:{aggregator_table(self.engines.settings.table_prefix)}"
        return Counter(map(str, self.wiring.redis.hvals(name)))

    def create(self, name: str, count: int) -> set[str]:
        """Create `count` requests of gas, with nothing on the queue; returns their ids."""
        ids = {f"{name}-{number}" for number in range(count)}
        deadline = datetime.now(UTC) + timedelta(hours=1)
        for request_id in ids:
            named = [("gas", "http://gas")]
            self.wiring.requests.create(request_id, named, "http://callback", deadline=deadline, content={})
        return ids

    def await_healed(self, ids: set[str], seconds: float) -> None:
        """Wait until the jobs of all these requests are on the queue."""
        jobs = {f"fetch-{request_id}-0-1-0" for request_id in ids}
        eventually(lambda: jobs <= set(queued(self.wiring.redis, FETCH)), seconds)

    def assert_each_was_read_by_one(self, ids: set[str]) -> None:
        """Assert that one reconciler read each record, and that every reconciler read some."""
        reads = [proxy.read & ids for proxy in self.proxies.values()]
        assert set().union(*reads) == ids
        assert sum(map(len, reads)) == len(ids), "two reconcilers have read the same record"
        assert all(reads)


@pytest.fixture
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """Two reconcilers, once they have divided the shards."""
    settings = system_settings(
        tmp_path_factory.mktemp("several"), index_shards=SHARDS, heal_after=HEAL_AFTER, reconciler_period=1
    )
    with ExitStack() as ends:
        engines = ends.enter_context(System(settings))
        engines.start("dynamodb", "redis", "tables")
        wiring = Wiring(settings, {"DATAHOG_SIMULATOR_URL": "http://x"})
        made = Several(engines, wiring, {}, {})
        for name in ("one", "other"):
            proxy = ends.enter_context(Proxy(settings.dynamodb_port, seed=name))
            url = stack.url("127.0.0.1", proxy.port)
            system = ends.enter_context(System(settings.model_copy(update={"dynamodb_endpoint_url": url})))
            made.reconcilers[name] = system, system.start_another("reconciler")
            made.proxies[name] = proxy
        eventually(lambda: sorted(made.owners().values()) == [SHARDS // 2] * 2, 60)
        yield made
        wiring.redis.close()


def test_each_record_is_read_by_one_reconciler_only(two: Several) -> None:
    ids = two.create("first", 40)
    two.await_healed(ids, 30)
    two.assert_each_was_read_by_one(ids)

    # No reconciler is told that Redis is empty; each finds out.
    two.wiring.redis.flushall()
    ids = two.create("second", 40)
    two.await_healed(ids, 30)

    two.assert_each_was_read_by_one(ids)
    eventually(lambda: sorted(two.owners().values()) == [SHARDS // 2] * 2)


def test_another_reconciler_heals_the_shards_of_a_killed_one(two: Several) -> None:
    two.kill("one")
    killed = time.monotonic()
    ids = two.create("left", 40)

    two.await_healed(ids, 30)

    assert time.monotonic() - killed < LEASE + HEAL_AFTER + 6
    assert two.proxies["other"].read >= ids


def test_without_redis_reconcilers_still_keep_deadlines(two: Several) -> None:
    two.engines.kill("redis")
    deadline = datetime.now(UTC) + timedelta(seconds=1)
    for number in range(10):
        two.wiring.requests.create(
            f"late-{number}", [("gas", "http://gas")], "http://callback", deadline=deadline, content={}
        )

    eventually(lambda: all(two.wiring.requests.get(f"late-{number}").ended for number in range(10)), 30)

    with pytest.raises(redis.ConnectionError):
        two.wiring.redis.ping()
