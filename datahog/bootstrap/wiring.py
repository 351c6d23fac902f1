"""The composition root: builds each part of a process once, from the settings, and passes it its dependencies."""

import random
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import specs
from datahog.bootstrap import memory
from datahog.bootstrap.connections import dynamodb_client, redis_client, redis_counters
from datahog.settings import Settings, SettingsError
from outbound.egress_policy import DestinationForbidden, EgressPolicy
from outbound.http_client import Http, Timeouts
from outbound.openapi_caller import Operations
from outbound.webhook_signer import Signer
from persistence.api_keys import ApiKeys
from persistence.deliveries import Deliveries
from persistence.dynamodb.schema import aggregator_table, client_table, keys_table
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.idempotency_keys import IdempotencyKeys
from persistence.index.due import DueIndex
from persistence.index.shards import Shards
from persistence.items import Items
from persistence.records.request import Request
from persistence.records.retrieval import KIND, Retrieval, retrieval_from_item
from persistence.requests import Requests
from persistence.results.expired import ExpiredResults, needed_by_request, needed_by_retrieval
from persistence.results.store import Results
from persistence.retrievals import Retrievals
from providers.file import ProvidersError, load_providers
from providers.model import Providers
from workers.deliver import Deliver, longest_delivery
from workers.fetch import Fetch
from workers.heartbeats import Heartbeats
from workers.queue import QUEUES, Queue
from workers.reconciler.loop import Reconciler
from workers.reconciler.shard_leases import LeasedShards
from workers.reconciler.thread_crew import Crew
from workers.redis_breaker import RedisBreaker
from workers.rq_worker.worker import ConcurrentWorker
from workers.submit import Submit
from workers.write_repetition import WriteRepetition

if TYPE_CHECKING:
    from connexion import AsyncApp
    from redis import Redis

    from handlers.access.callers import Callers
    from handlers.access.open_request_quota import OpenRequests, StillOpen
    from handlers.access.rate_limiter import RateLimit
    from handlers.health import Health
    from handlers.long_polling import LongPolls

JOB_FUNCTIONS = "datahog.jobs"

# Calls between the client and the aggregator: by a worker, which can wait, and by an API whose caller waits.
_SUBMIT_TIMEOUTS = Timeouts(connect=3, read=15, total=30)
_READ_TIMEOUTS = Timeouts(connect=1, read=2, total=3)

# Results are kept this much longer than the delivery schedule, for attempts that are late because engines were away.
_LATE_DELIVERY_SECONDS = 7 * 86_400

# The shards of a dead reconciler go to others after this time; sooner where tests set a short period.
_SHARD_LEASE_SECONDS = 8

# A reconciler has at most this number of DynamoDB calls under way at once.
_RECONCILER_THREADS = 8

# A reconciler counts as gone when it has not scanned for this number of periods plus the longest time of one scan.
_MISSED_SCANS, _LONGEST_SCAN_SECONDS = 2, 10

# A callback carries up to fifty results of 5 MiB; the body of `updateJob` carries one. Both add some JSON around them.
_CALLBACK_LIMIT_BYTES = 300_000_000
_UPDATE_LIMIT_BYTES = 6_000_000


class Wiring:
    """Builds each part that one process needs when it is first used, and keeps it."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._rng = random.Random()  # noqa: S311 -- spreads retries; guards nothing

    # Engines.

    @cached_property
    def dynamodb(self) -> Any:
        """The boto3 client; all threads share it. Raises SettingsError."""
        return dynamodb_client(self._settings, self._environment)

    @cached_property
    def redis(self) -> "Redis":
        """The Redis client; all threads share it. Raises SettingsError."""
        return redis_client(self._settings)

    @cached_property
    def redis_breaker(self) -> RedisBreaker:
        """The fail-open circuit breaker of Redis."""
        return RedisBreaker()

    # Persistence.

    @cached_property
    def requests(self) -> Requests:
        """The aggregator's requests."""
        return Requests(self._request_items, self._request_results)

    @cached_property
    def deliveries(self) -> Deliveries:
        """The aggregator's deliveries."""
        return Deliveries(self._request_items, retention=self._settings.retention)

    @cached_property
    def retrievals(self) -> Retrievals:
        """The client's retrievals."""
        return Retrievals(
            self._retrieval_items,
            self._client_table,
            Results(self._client_table, self._shards(self._client_table)),
            retention=self._settings.retention,
            awaited=self._last_delivery,
        )

    @cached_property
    def expired_request_results(self) -> ExpiredResults[Request]:
        """Deletes the aggregator's expired large results."""
        table = self._aggregator_table
        return ExpiredResults(table, self._shards(table), "request", Request.from_item, needed_by_request)

    @cached_property
    def expired_retrieval_results(self) -> ExpiredResults[Retrieval]:
        """Deletes the client's expired large results."""
        table = self._client_table
        return ExpiredResults(table, self._shards(table), KIND, retrieval_from_item, needed_by_retrieval)

    @property
    def _last_delivery(self) -> float:
        """Seconds from a request's deadline to the latest attempt to deliver its result."""
        return longest_delivery(self._settings.delivery_schedule) + _LATE_DELIVERY_SECONDS

    @cached_property
    def api_keys(self) -> ApiKeys:
        """The API keys of all callers."""
        return ApiKeys(Table(self._transport, keys_table(self._settings.table_prefix)))

    @cached_property
    def _transport(self) -> Transport:
        return Transport(self.dynamodb)

    @cached_property
    def _aggregator_table(self) -> Table:
        return Table(self._transport, aggregator_table(self._settings.table_prefix))

    @cached_property
    def _client_table(self) -> Table:
        return Table(self._transport, client_table(self._settings.table_prefix))

    @cached_property
    def _request_items(self) -> Items[Request]:
        return Items(
            self._aggregator_table,
            "request",
            Request.from_item,
            shards=self._shards(self._aggregator_table),
            heal_after=self._settings.heal_after,
        )

    @cached_property
    def _retrieval_items(self) -> Items[Retrieval]:
        return Items(
            self._client_table,
            KIND,
            retrieval_from_item,
            shards=self._shards(self._client_table),
            heal_after=self._settings.heal_after,
        )

    def _shards(self, table: Table) -> Shards:
        return Shards(table, self._settings.index_shards)

    def due_index(self, table: Table) -> DueIndex:
        """Returns the index of the due records of a table."""
        return DueIndex(table, self._shards(table))

    @cached_property
    def _request_results(self) -> Results:
        return Results(self._aggregator_table, self._shards(self._aggregator_table))

    # Outgoing calls.

    @cached_property
    def providers(self) -> Providers:
        """The providers of the providers' file. Raises SettingsError."""
        try:
            providers = load_providers(self._settings.providers_file, self._environment)
        except ProvidersError as error:
            raise SettingsError(str(error)) from None
        for name, provider in providers.items():
            self._check_url(provider.url, f"{self._settings.providers_file}: providers.{name}.url")
        return providers

    @cached_property
    def outbound(self) -> EgressPolicy:
        """The egress policy for providers and callbacks."""
        return EgressPolicy(self._settings.outbound_networks, ports=self._settings.outbound_ports)

    def _check_url(self, url: str, place: str) -> None:
        try:
            self.outbound.check_url(url)
        except DestinationForbidden as error:
            raise SettingsError(f"{place}: {error}") from None

    @cached_property
    def queue(self) -> Queue:
        """The queue of steps: fetch, deliver, submit."""
        return Queue(self.redis, JOB_FUNCTIONS, lambda name: self.providers.get(name), self.redis_breaker)

    @cached_property
    def http(self) -> Http:
        """The HTTP client for Datahog's own services, whose URLs the settings give; it has no egress policy."""
        return Http(pool_size=self._settings.worker_concurrency)

    @cached_property
    def guarded_http(self) -> Http:
        """The HTTP client for providers and callbacks; it obeys the egress policy."""
        return Http(pool_size=self._settings.worker_concurrency, outbound=self.outbound)

    @cached_property
    def signer(self) -> Signer:
        """Signs and verifies callbacks. Raises SettingsError if the settings have no secret."""
        if not self._settings.webhook_secrets:
            raise SettingsError(
                "DATAHOG_WEBHOOK_SECRETS: not set; give the client and its workers the same whsec_ secret"
            )
        return Signer(self._settings.webhook_secrets)

    def _client(self, timeouts: Timeouts) -> Operations:
        return Operations(specs.CLIENT, self._settings.client_url, self.http, timeouts=timeouts)

    def _aggregator(self, timeouts: Timeouts) -> Operations:
        if self._settings.aggregator_key is None:
            raise SettingsError(
                "DATAHOG_AGGREGATOR_KEY: not set; make a key for the client and its workers: python -m datahog keys "
                "create --name client --tenant client --unlimited --scope requests:read --scope requests:write"
            )
        return Operations(
            specs.AGGREGATOR,
            self._settings.aggregator_url,
            self.http,
            timeouts=timeouts,
            credentials={"bearerKey": self._settings.aggregator_key},
        )

    def _receivers(self) -> Operations:
        timeout = self._settings.delivery_timeout
        timeouts = Timeouts(timeout, timeout, timeout)
        return Operations(specs.AGGREGATOR, self._settings.aggregator_url, self.guarded_http, timeouts=timeouts)

    # The processes.

    @cached_property
    def fetch(self) -> Fetch:
        """The step that fetches one provider."""
        return Fetch(
            self.requests,
            self.queue,
            self.providers,
            self.guarded_http,
            self.deliver,
            result_limit=self._settings.result_limit,
            rng=self._rng,
            writes=self._writes,
        )

    @cached_property
    def deliver(self) -> Deliver:
        """The step that delivers a result to its callback."""
        return Deliver(
            self.requests,
            self.deliveries,
            self.queue,
            self.signer,
            self._receivers(),
            schedule=self._settings.delivery_schedule,
            rng=self._rng,
            writes=self._writes,
        )

    @cached_property
    def submit(self) -> Submit:
        """The step that submits a request to the aggregator."""
        return Submit(
            self.retrievals,
            self.queue,
            self._client(_SUBMIT_TIMEOUTS),
            self._aggregator(_SUBMIT_TIMEOUTS),
            rng=self._rng,
            writes=self._writes,
        )

    @cached_property
    def _writes(self) -> WriteRepetition:
        return WriteRepetition(self._rng)

    def check_jobs(self) -> None:
        """Builds the parts that jobs need, so that a wrong setting stops the process at its start.

        Raises SettingsError.
        """
        _ = (self.fetch, self.deliver, self.submit)

    def worker(self, concurrency: int) -> ConcurrentWorker:
        """Returns a worker that runs up to `concurrency` jobs at once; this process's queue wakes it."""
        memory.give_back_large_blocks()
        worker = ConcurrentWorker(
            QUEUES,
            self.redis,
            concurrency=concurrency,
            grace=self._settings.worker_grace,
            lease=self._settings.worker_lease,
            breaker=self.redis_breaker,
        )
        self.queue.wake = worker.wake
        return worker

    def reconciler(self) -> Reconciler:
        """Returns the reconciler of both tables."""
        return Reconciler(
            self.requests,
            self.retrievals,
            self.due_index(self._aggregator_table),
            self.due_index(self._client_table),
            self.queue,
            self.heartbeats,
            LeasedShards(self.redis, lease=min(_SHARD_LEASE_SECONDS, max(2, 10 * self._settings.reconciler_period))),
            Crew(_RECONCILER_THREADS),
            period=self._settings.reconciler_period,
            delivery_timeout=self._settings.delivery_timeout,
            heal_after=self._settings.heal_after,
            collectors=(self.expired_request_results, self.expired_retrieval_results),
        )

    @cached_property
    def heartbeats(self) -> Heartbeats:
        """The heartbeats of workers and reconcilers."""
        return Heartbeats(
            self.redis,
            QUEUES,
            reconciler_silence=_MISSED_SCANS * self._settings.reconciler_period + _LONGEST_SCAN_SECONDS,
            worker_silence=self._settings.worker_lease,
        )

    @cached_property
    def long_polls(self) -> "LongPolls":
        """The reads that wait for a result; they end when this process ends."""
        from handlers.long_polling import LongPolls

        return LongPolls()

    # The imports below are local because Connexion takes a second to import, and only the two APIs need it.

    def _callers(self) -> "Callers":
        from handlers.access.callers import Callers

        local_key = self._settings.local_key
        if local_key and not self._settings.is_local:
            raise SettingsError(
                f"DATAHOG_HOST: {self._settings.host} can be reached from elsewhere, where DATAHOG_LOCAL_KEY must not "
                "open anything; unset it, and make keys with python -m datahog keys create"
            )
        return Callers(self.api_keys, local_key=local_key)

    def _rate_limit(self, name: str) -> "RateLimit":
        from limits.aio.strategies import FixedWindowRateLimiter

        from handlers.access.rate_limiter import RateLimit

        counters = FixedWindowRateLimiter(redis_counters(self._settings))
        return RateLimit(counters, name, rate=self._settings.rate_limit, breaker=self.redis_breaker)

    def _open_requests(self, name: str, still_open: "StillOpen") -> "OpenRequests":
        from handlers.access.open_request_quota import OpenRequests

        quota = self._settings.open_requests
        return OpenRequests(self.redis, still_open, name, quota=quota, breaker=self.redis_breaker)

    def _health(self, table: Table) -> "Health":
        from handlers.health import Health

        # The probes call Redis even while the circuit breaker is open: they are rare and run on threads of their own.
        def redis() -> None:
            with self.redis_breaker.observed():
                self.redis.ping()

        def worker() -> str | None:
            with self.redis_breaker.observed():
                deserted = self.heartbeats.deserted_queues()
            return f"nobody listens to {', '.join(deserted)}" if deserted else None

        def reconciler() -> str | None:
            with self.redis_breaker.observed():
                there = self.heartbeats.is_reconciler_there()
            return None if there else "no reconciler has scanned recently"

        return Health({"dynamodb": table.ping, "redis": redis, "worker": worker, "reconciler": reconciler})

    def aggregator_app(self) -> "AsyncApp":
        """Returns the application of the aggregator API."""
        from datahog.bootstrap.apps import build_app
        from handlers.aggregator import Aggregator

        handlers = Aggregator(
            self.requests,
            self.deliveries,
            IdempotencyKeys(self._aggregator_table),
            self.due_index(self._aggregator_table),
            self._open_requests(specs.AGGREGATOR, self._request_items.still_open),
            self.queue,
            self.providers,
            self.outbound,
            self.long_polls,
            self._health(self._aggregator_table),
            default_deadline=self._settings.request_deadline,
            result_limit=self._settings.result_limit,
        )
        return build_app(
            specs.AGGREGATOR,
            handlers,
            callers=self._callers(),
            rate_limit=self._rate_limit(specs.AGGREGATOR),
            body_limits={"updateJob": _UPDATE_LIMIT_BYTES},
            cors_origin=self._settings.viewer_origin,
        )

    def client_app(self) -> "AsyncApp":
        """Returns the application of the client API. Raises SettingsError."""
        from datahog.bootstrap.apps import build_app
        from handlers.access.callback_signatures import SignedCallbacks
        from handlers.client import Client

        # The aggregator could not deliver any result to a client URL that the egress policy forbids.
        self._check_url(self._settings.client_url, "DATAHOG_CLIENT_URL")
        handlers = Client(
            self.retrievals,
            self._open_requests(specs.CLIENT, self._retrieval_items.still_open),
            self.queue,
            self._client(_READ_TIMEOUTS),
            self._aggregator(_READ_TIMEOUTS),
            self.long_polls,
            self._health(self._client_table),
            default_deadline=self._settings.request_deadline,
        )
        return build_app(
            specs.CLIENT,
            handlers,
            callers=self._callers(),
            rate_limit=self._rate_limit(specs.CLIENT),
            body_limits={"receiveCallback": _CALLBACK_LIMIT_BYTES},
            body_checks={"receiveCallback": SignedCallbacks(self.signer, self.retrievals.get)},
            cors_origin=self._settings.viewer_origin,
        )
