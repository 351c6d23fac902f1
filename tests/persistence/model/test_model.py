"""A model test: each request agrees with a plain model, wherever concurrent processes interleave or die.

Hypothesis generates the events: requests are created; workers claim jobs and are paused, killed or late at any step;
engines refuse calls or lose responses; Redis is emptied; time passes; providers and receivers send any response. Each
write and each record that is read is compared with the model at once (`watched`). In the end every part works again,
and each request must end and be delivered, with nothing left over.

`DATAHOG_TEST_EXAMPLES=1000 pytest tests/persistence/model/test_model.py --hypothesis-seed=1` searches for longer.
"""

import json
import logging
import os
import random
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, cast

import pytest
import redis
import rq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import persistence.requests
from datahog.bootstrap.connections import dynamodb_client
from datahog.settings import Settings
from handlers.access.callers import Caller
from handlers.problems import Problem
from persistence.dynamodb.schema import create_tables
from persistence.dynamodb.transport import Transport
from persistence.errors import Conflict, NotFound, Unavailable
from persistence.index.shards import OPEN, shard_of
from persistence.items import Items
from persistence.records.job import Attempt
from persistence.records.request import DeliveryStatus, Request
from persistence.records.timestamps import to_text
from tests.persistence.model.plain_model import Model
from tests.persistence.model.processes import Fate, Interruption, Process, current
from tests.persistence.model.watched import LEASE, PROVIDERS, QUEUE_AWAY, SCHEDULE, SHARDS, Parts, Reply
from tests.support.engines.queue_state import QueueState
from tests.support.repositories import HandClock
from workers.queue import QUEUES
from workers.reconciler.loop import Reconciler
from workers.rq_worker.leases import Batches, Ended, Taken
from workers.rq_worker.running_job import running

pytestmark = pytest.mark.timeout(int(os.environ.get("DATAHOG_TEST_EXAMPLES", "0")) * 10 + 300)

_EXAMPLES = int(os.environ.get("DATAHOG_TEST_EXAMPLES", "40"))
_CALLBACK = "https://receivers.example/callback"
# Seconds of a round, and the number of rounds until all is at rest; together less than the longer deadline (seconds).
_ROUND, _ROUNDS = 40, 40
_DEADLINES = (90, 7200)  # seconds from the creation
# Total seconds after which the clocks are no longer set back.
_MOST_SET_BACK = 1000

_WISHES = (
    "retry",
    "redeliver",
    "redeliver failed",
    "cancel",
    "create again",
    "create with other content",
)
_replies = st.sampled_from(Reply)
_interruptions = st.none() | st.tuples(st.sampled_from([0, 0, 1, 2]), st.sampled_from(Fate))
_any_one = st.integers(0, 7)


class Engines:
    """The engines, and tables that examples reuse as long as each leaves them at rest."""

    def __init__(self, dynamodb: Any, connection: "redis.Redis") -> None:
        self.dynamodb = dynamodb
        self.redis = connection
        self.transport = Transport(dynamodb)
        self._prefix: str | None = None

    def tables(self) -> str:
        """Returns the prefix of tables without open records; they stay in use until `at_rest`."""
        prefix, self._prefix = self._prefix, None
        if prefix is None:
            prefix = f"test-{uuid.uuid4().hex[:12]}"
            create_tables(self.dynamodb, prefix)
        return prefix

    def at_rest(self, prefix: str) -> None:
        self._prefix = prefix


class Datahog(RuleBasedStateMachine):
    """Datahog with its callers, processes and faults, and the model of it."""

    def __init__(self, engines: Engines) -> None:
        super().__init__()
        self._engines = engines
        self._prefix = engines.tables()
        engines.redis.flushall()
        self._clock = HandClock()
        self._rng = random.Random(1)
        self._model = Model()
        self._processes: list[Process] = []
        self._jobs: dict[Process, tuple[Batches, Taken]] = {}
        self._names = 0
        self._set_back = 0.0
        self._meddled = False
        # Each example has its own tenant, so that it does not find the failed deliveries of others.
        self._caller = Caller("tests", f"t-{uuid.uuid4().hex[:12]}", unlimited=True)

    # Calls of the API.

    @initialize(jobs=st.integers(1, 4))
    def begin(self, jobs: int) -> None:
        self.create(jobs, _DEADLINES[1], None)

    @rule(jobs=st.integers(1, 4), wait=st.sampled_from(_DEADLINES), interruption=_interruptions)
    def create(self, jobs: int, wait: int, interruption: Interruption) -> None:
        body = {
            "providers": list(PROVIDERS)[:jobs],
            "callbackUrl": _CALLBACK,
            "deadline": to_text(self._clock() + timedelta(seconds=wait)),
        }
        request_id = self._new_id()
        self._ask(lambda api: api.create_record(self._caller, request_id, body), interruption)

    @precondition(lambda self: self._model.requests)
    @rule(one=_any_one, wish=st.sampled_from(_WISHES), interruption=_interruptions)
    def ask(self, one: int, wish: str, interruption: Interruption) -> None:
        request_id = self._request_id(one)
        body = dict(self._model.requests[request_id].content)
        match wish:
            case "create with other content":
                body["callbackUrl"] = _CALLBACK + "/other"
                self._ask(lambda api: api.create_record(self._caller, request_id, body), interruption)
            case "create again":
                self._ask(lambda api: api.create_record(self._caller, request_id, body), interruption)
            case "redeliver failed":
                since = {"since": to_text(self._clock() - timedelta(days=1))}
                self._ask(lambda api: api.redeliver_failed(self._caller, since), interruption)
            case _:
                self._ask(lambda api: getattr(api, f"{wish}_request")(self._caller, request_id), interruption)

    @precondition(lambda self: self._model.requests)
    @rule(one=_any_one, number=st.integers(0, 3), result=st.none() | st.integers(0, 2), interruption=_interruptions)
    def set_job(self, one: int, number: int, result: int | None, interruption: Interruption) -> None:
        request_id = self._request_id(one)
        providers = self._model.requests[request_id].providers
        body: dict[str, Any] = {"provider": providers[number % len(providers)], "status": "FAILED"}
        if result is not None:
            body |= {"status": "DONE", "result": json.dumps(result).encode()}
        self._ask(lambda api: api.update_job(self._caller, request_id, body), interruption)

    # Steps of processes.

    @rule(wanted=st.integers(1, 4), interruption=_interruptions)
    def take(self, wanted: int, interruption: Interruption) -> None:
        """A worker claims jobs and waits for the responses of their providers or receivers."""
        self._take(wanted, interruption)

    @rule(wanted=st.integers(1, 4), reply=_replies, interruption=_interruptions)
    def work(self, wanted: int, reply: Reply, interruption: Interruption) -> None:
        """A worker claims jobs and continues with the response."""
        for process in self._take(wanted, None):
            if not process.over:
                process.go_on(reply, interruption)
        self._forget()

    @precondition(lambda self: self._processes)
    @rule(one=_any_one, reply=_replies, interruption=_interruptions)
    def go_on(self, one: int, reply: Reply, interruption: Interruption) -> None:
        self._processes[one % len(self._processes)].go_on(reply, interruption)
        self._forget()

    @rule(interruption=_interruptions)
    def look(self, interruption: Interruption) -> None:
        """A reconciler scans, beside those that are still scanning."""
        self._start("reconciler", lambda: self._parts().reconciler.look(), interruption)

    @rule(steps=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def look_at_once(self, steps: list[int]) -> None:
        """Three reconcilers scan at the same time; each pauses at its own step and continues later."""
        for number in steps:
            self.look((number, Fate.PAUSE))

    @rule(one=st.none() | _any_one)
    def beat(self, one: int | None) -> None:
        """A worker may renew the lease of one of its jobs; then it recovers jobs whose leases have run out."""
        if self._jobs and one is not None:
            batches, taken = list(self._jobs.values())[one % len(self._jobs)]
            batches.renew([taken])
        self._batches("recoverer").recover()

    # Faults.

    @precondition(lambda self: self._processes)
    @rule(one=_any_one)
    def kill(self, one: int) -> None:
        self._processes[one % len(self._processes)].kill()
        self._forget()

    @rule(seconds=st.sampled_from([1, 6, LEASE + 1, 31, 100, 700]), flush=st.sampled_from([False, False, True]))
    def wait(self, seconds: float, flush: bool) -> None:
        """Time passes, and Redis may be emptied."""
        self._clock.advance(seconds=seconds)
        if flush:
            self._engines.redis.flushall()

    @precondition(lambda self: self._set_back < _MOST_SET_BACK)
    @rule(seconds=st.sampled_from([5, 65, 700]), noticed=st.booleans())
    def set_clock_back(self, seconds: float, noticed: bool) -> None:
        """All clocks are set back at once; a running worker may notice it."""
        self._clock.advance(seconds=-seconds)
        self._set_back += seconds
        if noticed:
            self._batches("worker").wait_no_more()

    @rule(queue=st.sampled_from(QUEUES), way=st.sampled_from(["empty", "list", "leases", "scheduled"]))
    def meddle(self, queue: str, way: str) -> None:
        """A person deletes part of a queue with RQ's tools or by hand."""
        self._meddled = True
        if way == "empty":
            rq.Queue(queue, connection=self._engines.redis).empty()  # type: ignore[no-untyped-call]
        else:
            kind = {"list": "queue", "leases": "wip", "scheduled": "scheduled"}[way]
            self._engines.redis.delete(f"rq:{kind}:{queue}")

    def teardown(self) -> None:
        """Every part works again, and all comes to rest; not after a failure or an example that Hypothesis abandons."""
        if sys.exc_info()[0] is not None:
            for process in self._processes:
                process.kill()
            return
        for number, process in enumerate(list(self._processes)):
            if number % 2:
                process.kill()
            self._run(process)
        self._forget()
        for _ in range(_ROUNDS + int(self._set_back / _ROUND)):
            if self._is_at_rest():
                break
            self._clock.advance(seconds=_ROUND)
            self.beat(None)
            self.look(None)
            while taken := self._take(50, None):
                for process in taken:
                    self._run(process)
                self._forget()
        assert self._is_at_rest(), self._left()
        state = QueueState.read(self._engines.redis)
        assert (list(state.wrong_permits()) if self._meddled else state.violations()) == []
        self._check_results()
        self._engines.at_rest(self._prefix)

    def _is_at_rest(self) -> bool:
        settled = all(
            not expected.open_jobs and expected.delivery is not DeliveryStatus.PENDING
            for expected in self._model.requests.values()
        )
        return settled and not any(self._left().values())

    def _left(self) -> dict[str, Any]:
        later, connection = self._clock() + timedelta(days=30), self._engines.redis
        # A dropped job that was deleted from its list by hand stays as a hash that nothing refers to.
        kinds = ("rq:rl:*:*", "rq:wip:*", *(() if self._meddled else ("rq:job:*",)))
        keys = [key for kind in kinds for key in connection.scan_iter(kind)]
        return {"due": self._parts().due.due(later, limit=10), "Redis": keys}

    def _check_results(self) -> None:
        for request_id, expected in self._model.requests.items():
            process = self._start("reader", partial(self._read, request_id), None)
            results, request = cast(tuple[dict[str, bytes], Request], process.outcome)
            must = {p: job.result for p, job in zip(expected.providers, expected.jobs, strict=True) if job.result}
            assert results == must
            posts = self._model.posts
            if request.delivery.status is DeliveryStatus.FAILED:
                gone = posts[request_id, expected.round, Reply.GONE]
                assert gone or expected.delivery_attempts == len(SCHEDULE), "the delivery was given up too soon"

    def _read(self, request_id: str) -> object:
        requests = self._parts().requests
        request = requests.get(request_id)
        return requests.load_results(request), request

    # Helpers that start processes.

    def _parts(self, attempt: Attempt | None = None) -> Parts:
        engines = self._engines
        return Parts(engines.transport, engines.redis, self._prefix, self._model, self._clock, self._rng, attempt)

    def _batches(self, name: str) -> Batches:
        clock = self._clock
        return Batches(self._engines.redis, QUEUES, worker=name, lease=LEASE, clock=lambda: clock().timestamp())

    def _start(self, name: str, work: Callable[[], object], interruption: Interruption) -> Process:
        self._names += 1
        process = Process(f"{name} {self._names}", partial(_tolerant, work))
        process.go_on(interruption=interruption)
        if not process.over:
            self._processes.append(process)
        return process

    def _ask(self, call: Callable[[Any], object], interruption: Interruption) -> None:
        self._start("caller", lambda: call(self._parts().api), interruption)

    def _take(self, wanted: int, interruption: Interruption) -> list[Process]:
        started = []
        batches = self._batches("worker")
        for taken in batches.take(wanted):
            process = self._start(f"worker of {taken.job_id}", partial(self._work, batches, taken), interruption)
            self._jobs[process] = batches, taken
            started.append(process)
        self._forget()
        return started

    def _work(self, batches: Batches, taken: Taken) -> None:
        """Runs a job as a worker does, and completes it as soon as Redis responds."""
        returned: list[bool | None] = []

        def return_permit(answered: bool | None) -> None:
            returned.append(answered)
            batches.end([Ended(taken, answered=answered, goes_on=True)])

        with running(return_permit, begun_before=taken.begun_before):
            ended = self._perform(taken)
        if returned:
            ended = Ended(taken, wait=ended.wait)
        while True:
            try:
                current().step(lambda: batches.end([ended]), QUEUE_AWAY)
                return
            except redis.RedisError:
                continue

    def _perform(self, taken: Taken) -> Ended:
        function, _, args, _ = json.loads(zlib.decompress(taken.data))
        try:
            if function == "tests.fetch":
                attempt = Attempt(*args[:-1])
                answered = self._parts(attempt).fetch(attempt, datetime.fromtimestamp(args[-1], UTC))
                return Ended(taken, answered=answered)
            return Ended(taken, wait=self._parts().deliver(*args))
        except (Unavailable, redis.RedisError):
            return Ended(taken, wait=2)

    def _run(self, process: Process) -> None:
        while not process.over:
            process.go_on(Reply.OK)

    def _forget(self) -> None:
        self._processes = [process for process in self._processes if not process.over]
        self._jobs = {process: job for process, job in self._jobs.items() if not process.over}

    def _new_id(self) -> str:
        """Returns a new id whose shard is the same in each run of the example, and so its order in the index."""
        self._names += 1
        ids = (f"r{self._names:03}-{uuid.uuid4().hex[:12]}" for _ in count())
        return next(made for made in ids if shard_of(OPEN, made, SHARDS) == f"{OPEN}#{self._names % SHARDS}")

    def _request_id(self, one: int) -> str:
        return list(self._model.requests)[one % len(self._model.requests)]


def _tolerant(work: Callable[[], object]) -> object:
    """Returns the outcome of the work, or the error that refused it."""
    try:
        return work()
    except (Conflict, NotFound, Problem, Unavailable, redis.RedisError) as refused:
        return refused


@pytest.fixture
def shared(engines: Settings, caplog: pytest.LogCaptureFixture) -> Iterator[Engines]:
    """The engines that all examples share."""
    caplog.set_level(logging.CRITICAL)
    with redis.Redis.from_url(engines.redis_url) as connection:
        yield Engines(dynamodb_client(engines, {}), connection)


def test_every_request_agrees_with_the_model(shared: Engines) -> None:
    run_state_machine_as_test(
        cast(type[RuleBasedStateMachine], lambda: Datahog(shared)),
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=40,
            # Each run has the same examples, unless it is a search.
            derandomize="DATAHOG_TEST_EXAMPLES" not in os.environ,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_done_jobs_stay_done_when_a_request_is_retried(shared: Engines) -> None:
    machine = Datahog(shared)
    machine.begin(2)
    machine.work(1, Reply.LARGE, None)
    machine.set_job(0, 1, None, None)
    machine.ask(0, "retry", None)

    machine.teardown()


# The shortest examples that a search finds when Datahog has a fault.


def _count_in_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks Datahog: it records failures of ended jobs and of jobs of an earlier revision."""
    always = f"attribute_exists(#pk) OR {persistence.requests._STILL_OPEN}"
    monkeypatch.setattr(persistence.requests, "_STILL_OPEN", f"({always})")


def _count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks Datahog: it records a failure again."""
    change = Items.change

    def forgetful(self: Items[Any], *args: Any, condition: str, **options: Any) -> Any:
        # Only the conditions of jobs have this form, not those of deliveries.
        condition = condition.replace("].#attempts = :attempts", "].#attempts >= :attempts")
        return change(self, *args, condition=condition, **options)

    monkeypatch.setattr(Items, "change", forgetful)


def _fail_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks Datahog: a job fails by an attempt that was counted before."""
    change = Items.change_if

    def forgetful(self: Items[Any], *args: Any, condition: str, **options: Any) -> Any:
        condition = condition.replace("].#attempts = :made", "].#attempts >= :made")
        return change(self, *args, condition=condition, **options)

    monkeypatch.setattr(Items, "change_if", forgetful)


def _fail_twice(machine: Datahog) -> None:
    """Two workers make the same attempt: one counts it, the other has no time left for a next attempt."""
    machine.create(1, _DEADLINES[0], None)
    machine.take(2, None)
    machine.wait(LEASE + 1, False)
    machine.beat(None)
    machine.take(2, None)
    machine.go_on(2, Reply.ERROR, None)
    machine.go_on(0, Reply.BUSY, None)


def test_the_model_detects_a_failure_counted_on_an_ended_job(shared: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    _count_in_what_has_ended(monkeypatch)
    machine = Datahog(shared)
    machine.begin(1)
    machine.take(1, None)
    machine.set_job(0, 0, 1, None)

    with pytest.raises(AssertionError, match="wrote what had to be refused"):
        machine.go_on(0, Reply.ERROR, None)


def test_the_model_detects_an_attempt_counted_twice(shared: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    _count_twice(monkeypatch)
    machine = Datahog(shared)
    machine.begin(1)

    with pytest.raises(AssertionError, match="wrote what had to be refused"):
        machine.work(1, Reply.ERROR, (0, Fate.DONE_TWICE))


def test_a_job_continues_after_a_counted_attempt_fails_for_good(shared: Engines) -> None:
    machine = Datahog(shared)

    _fail_twice(machine)

    machine.teardown()


def test_the_model_detects_a_job_failed_by_a_counted_attempt(shared: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_after_all(monkeypatch)
    machine = Datahog(shared)

    with pytest.raises(AssertionError, match="wrote what had to be refused"):
        _fail_twice(machine)


def test_the_model_detects_a_missing_reconciler(shared: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reconciler, "look", lambda self: 0)
    machine = Datahog(shared)
    machine.begin(1)
    machine.wait(1, True)

    with pytest.raises(AssertionError, match="due"):
        machine.teardown()
