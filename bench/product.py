"""Datahog's own parts in the benches' process: fills its tables and its queue, and scans as its reconciler does."""

import uuid
from dataclasses import replace
from datetime import timedelta

from bench.records import Records
from bench.stand import PROVIDERS
from bench.systems import Place, datahog_settings
from bench.world import World
from datahog.bootstrap.wiring import Wiring
from persistence.dynamodb.schema import aggregator_table, client_table, create_tables
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.records.request import Request
from persistence.records.timestamps import utc_now
from tests.support.engines.reads import Reads
from workers.queue import fetch_steps
from workers.reconciler.loop import Reconciler
from workers.reconciler.shard_leases import AllShards
from workers.reconciler.thread_crew import Crew

# Requests.
_BATCH = 200


class Product:
    """Datahog's own parts over new tables, on the engines of a place."""

    def __init__(self, here: Place, *, dynamodb_url: str | None = None) -> None:
        """Use the place's own DynamoDB unless `dynamodb_url` names another."""
        url = dynamodb_url or here.dynamodb_url
        settings = datahog_settings(here).model_copy(update={"dynamodb_endpoint_url": url})
        self._wiring = Wiring(settings, {})
        table = aggregator_table(settings.table_prefix)
        create_tables(self._wiring.dynamodb, settings.table_prefix, shards=settings.index_shards)
        names = (table, client_table(settings.table_prefix))
        tables = [Table(Transport(self._wiring.dynamodb), name) for name in names]
        self._now = utc_now()
        self._reconciler = Reconciler(
            self._wiring.requests,
            self._wiring.retrievals,
            self._wiring.due_index(tables[0]),
            self._wiring.due_index(tables[1]),
            self._wiring.queue,
            self._wiring.heartbeats,
            AllShards(),
            Crew(1),
            period=1,
            delivery_timeout=15,
            clock=lambda: self._now,
        )
        self.records = Records(self._wiring.dynamodb, table, url, settings.index_shards)
        self.reads = Reads(self._wiring.dynamodb)

    def new_request(self, callback_url: str) -> Request:
        """Write a request, and enqueue nothing."""
        providers = [(name, self._wiring.providers[name].url) for name in PROVIDERS]
        deadline = utc_now() + timedelta(days=20)
        created, _ = self._wiring.requests.create(
            uuid.uuid4().hex, providers, callback_url, deadline=deadline, content=None
        )
        return created

    def end(self, request: Request) -> Request:
        """Complete the request's jobs and its delivery; returns the ended request."""
        for job in request.jobs:
            self._wiring.requests.finish_job(request.attempt(job), b'{"amount":22.27}')
        ended = self._wiring.requests.get(request.request_id)
        self._wiring.deliveries.succeeded(ended)
        return ended

    async def fill(self, world: World, requests: int) -> None:
        """Write so many requests, and enqueue their jobs."""
        template = self.new_request(world.callback_url("template"))
        ids = await self.records.copy(template.request_id, requests)
        for start in range(0, len(ids), _BATCH):
            copies = [replace(template, request_id=request_id) for request_id in ids[start : start + _BATCH]]
            self._wiring.queue.put(*(step for copy in copies for step in fetch_steps(copy, utc_now())))

    def look(self) -> None:
        """Make one scan, ten minutes after the one before: all open requests are due again."""
        self._now += timedelta(minutes=10)
        self._reconciler.look()
