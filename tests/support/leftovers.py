"""What should be gone once everything has ended: looked for from outside, in both engines."""

from datetime import timedelta

import redis

from datahog.bootstrap.connections import dynamodb_client
from persistence.dynamodb.schema import aggregator_table, client_table
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.index.due import DueIndex
from persistence.index.shards import Shards
from persistence.records.timestamps import utc_now
from tests.support.engines.queue_state import QueueState
from tests.support.system import System

# Permits are no work, but one without a job would keep work from being done.
_WORK = (
    "rq:queue:*",
    "rq:wip:*",
    "rq:scheduled:*",
    "rq:failed:*",
    "rq:job:*",
    "rq:rl:*:allowed",
    "rq:rl:*:rate_limited",
)


def open_records(system: System) -> list[str]:
    """The ids of the records that the sparse indexes still list, due or not."""
    client = dynamodb_client(system.settings, {})
    prefix = system.settings.table_prefix
    in_years = utc_now() + timedelta(days=10_000)
    tables = [Table(Transport(client), name) for name in (aggregator_table(prefix), client_table(prefix))]
    indexes = [DueIndex(table, Shards(table, system.settings.index_shards)) for table in tables]
    return [entry.record_id for index in indexes for entry in index.due(in_years, limit=1000)]


def queued(system: System) -> list[str]:
    """The keys that hold work on the queue: waiting, running, scheduled, failed, and the jobs themselves."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        return [key.decode() for pattern in _WORK for key in connection.scan_iter(pattern, count=1000)]


def broken_invariants(system: System) -> list[str]:
    """What of `docs/queue.md` does not hold now."""
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        return QueueState.read(connection).violations(deleted_by_hand=True)
