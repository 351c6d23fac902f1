"""A property test of the queue's scripts: `docs/queue.md` holds after any order of calls, and all jobs run.

Each rule is one script, which Redis runs as one step, so the orders of rules cover the interleavings of processes.
Workers crash, the clock is set forward and back, and people delete keys with RQ's tools or by hand.
"""

import os
from datetime import UTC, datetime
from functools import partial
from typing import cast

import pytest
import redis
import rq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from rq.job import Job
from rq.serializers import JSONSerializer

from providers.model import BreakerPolicy, Provider
from tests.support.engines.queue_state import QueueState
from tests.support.engines.rq_state import DELIVER, FETCH, step
from workers.queue import QUEUES, Queue, Step
from workers.rq_worker.leases import Batches, Ended, Taken

LEASE = 20  # seconds
# The queue and the provider of each job; there are few jobs, so that rules often meet on the same one.
JOBS = {
    "gas-0": (FETCH, "gas"),
    "gas-1": (FETCH, "gas"),
    "gas-2": (FETCH, "gas"),
    "water-0": (FETCH, "water"),
    "water-1": (FETCH, "water"),
    "free-0": (FETCH, None),
    "deliver-0": (DELIVER, None),
    "deliver-1": (DELIVER, None),
}
PROVIDERS = {
    "gas": Provider(url="http://x", concurrency=2, breaker=BreakerPolicy(failures=3, open_seconds=30)),
    "water": Provider(url="http://x", concurrency=1, breaker=BreakerPolicy(failures=3, open_seconds=30)),
}
OUTCOMES = {
    "done": {"answered": True},
    "failed": {"answered": False},
    "not asked": {},
    "again": {"wait": 0.0},
    "later": {"wait": 60.0},
    "goes on": {"answered": True, "goes_on": True},
}
BY_HAND = (
    "rq empty",
    "rq cancel",
    "rq delete",
    "rq:queue:",
    "rq:wip:",
    "rq:scheduled:",
    "hash",
    "pop",
    "flush",
)

# `DATAHOG_TEST_EXAMPLES=2000 pytest tests/workers/test_queue_invariants.py --hypothesis-seed=1` searches for longer.
_EXAMPLES = int(os.environ.get("DATAHOG_TEST_EXAMPLES", "60"))

_jobs = st.sets(st.sampled_from(sorted(JOBS)), min_size=1, max_size=4).map(sorted)
_workers = st.integers(0, 2)


class TheQueue(RuleBasedStateMachine):
    """The queue, three workers and the jobs that they believe to hold."""

    def __init__(self, connection: "redis.Redis") -> None:
        super().__init__()
        connection.flushall()
        self.connection = connection
        self.now = 1_800_000_000.0
        self.queue = Queue(connection, "tests.support.workers.job_functions", PROVIDERS.get, clock=lambda: self.now)
        self.workers = [self._worker(f"w{number}") for number in range(3)]
        self.held: list[list[Taken]] = [[], [], []]
        # `wanted`: the jobs that must still run; `went_on`: the executions that returned their permits;
        # `meddled`: keys were deleted by hand and not healed since.
        self.wanted: set[str] = set()
        self.went_on: set[str] = set()
        self.meddled = self.ever_meddled = False

    def _worker(self, name: str) -> Batches:
        return Batches(self.connection, QUEUES, worker=name, lease=LEASE, clock=lambda: self.now)

    # Calls of Datahog.

    @rule(jobs=_jobs, wait=st.sampled_from([None, None, 0.0, 5.0, 700.0]))
    def put(self, jobs: list[str], wait: float | None) -> None:
        self.queue.put(*(self._step(job_id, wait) for job_id in jobs))
        self.wanted.update(jobs)

    @rule(jobs=_jobs)
    def put_missing(self, jobs: list[str]) -> None:
        before = QueueState.read(self.connection)
        self.queue.put_missing([self._step(job_id, None) for job_id in jobs])
        self.wanted.update(jobs)
        after = QueueState.read(self.connection)
        for job_id in jobs:
            if not self.meddled and job_id in before.jobs:
                assert after.jobs[job_id] == before.jobs[job_id], "what was there was touched"

    @rule(worker=_workers, wanted=st.integers(1, 6), most=st.sampled_from([1, 2, 6]))
    def take(self, worker: int, wanted: int, most: int) -> None:
        taken = self.workers[worker].take(wanted, most=most)
        assert len(taken) <= wanted
        assert len({job.job_id for job in taken}) == len(taken)
        self.held[worker] += taken

    @precondition(lambda self: any(self.held))
    @rule(worker=_workers, number=st.integers(0, 5), outcome=st.sampled_from(sorted(OUTCOMES)), twice=st.booleans())
    def end(self, worker: int, number: int, outcome: str, twice: bool) -> None:
        if not self.held[worker]:
            return
        job = self.held[worker][number % len(self.held[worker])]
        ended = Ended(job, **OUTCOMES[outcome])  # type: ignore[arg-type]
        holds = QueueState.read(self.connection).jobs.get(job.job_id, {}).get("execution") == job.execution
        self.workers[worker].end([ended, ended] if twice else [ended])
        if ended.goes_on:
            self.went_on.add(job.execution)
            return
        self.held[worker].remove(job)
        if holds and ended.wait is None and not self.connection.exists(f"rq:job:{job.job_id}"):
            self.wanted.discard(job.job_id)

    @rule(jobs=_jobs)
    def drop(self, jobs: list[str]) -> None:
        self.queue.drop(*jobs)
        running = {
            job_id for job_id, job in QueueState.read(self.connection).jobs.items() if job["status"] == "started"
        }
        self.wanted -= set(jobs) - running

    @rule(worker=_workers)
    def beat(self, worker: int) -> None:
        self.workers[worker].renew(self.held[worker])

    @rule(worker=_workers)
    def recover(self, worker: int) -> None:
        self.workers[worker].recover()

    @rule()
    def sweep(self) -> None:
        assert self.queue.sweep() == 0 or self.meddled

    # Faults.

    @rule(worker=_workers)
    def crash(self, worker: int) -> None:
        self.held[worker] = []

    @rule(seconds=st.sampled_from([1, 6, LEASE + 1, 61, 700]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([5, 3600]), noticed=st.booleans())
    def set_clock_back(self, seconds: float, noticed: bool) -> None:
        self.now -= seconds
        if noticed:
            self.workers[0].wait_no_more()

    @rule(way=st.sampled_from(BY_HAND), queue=st.sampled_from([FETCH, DELIVER]), job_id=st.sampled_from(sorted(JOBS)))
    def meddle(self, way: str, queue: str, job_id: str) -> None:
        self.meddled = self.ever_meddled = True
        match way:
            case "rq empty":
                rq.Queue(queue, connection=self.connection, serializer=JSONSerializer).empty()  # type: ignore[no-untyped-call]
            case "rq cancel" | "rq delete" if self.connection.exists(f"rq:job:{job_id}"):
                job = Job.fetch(job_id, connection=self.connection, serializer=JSONSerializer)
                job.delete() if way == "rq delete" or job.is_canceled else job.cancel()
            case "hash":
                self.connection.delete(f"rq:job:{job_id}")
            case "pop":
                self.connection.lpop(f"rq:queue:{queue}")
            case "flush":
                self.connection.flushall()
            case _ if way.endswith(":"):
                self.connection.delete(way + queue)

    @precondition(lambda self: self.meddled)
    @rule()
    def heal(self) -> None:
        """Sweeps permits and enqueues missing steps, as the reconciler does."""
        self.queue.sweep()
        self.queue.put_missing([self._step(job_id, None) for job_id in sorted(self.wanted)])
        self.meddled = False

    # Invariants.

    @invariant()
    def all_is_as_the_page_says(self) -> None:
        if self.meddled:
            return
        state = QueueState.read(self.connection)
        assert state.violations(deleted_by_hand=self.ever_meddled) == []
        assert self.wanted <= state.jobs.keys()
        for job_id, job in state.jobs.items():
            if job["status"] == "started" and job["key"] and job_id not in state.members("permits", job["key"]):
                assert job["execution"] in self.went_on, f"{job_id} runs without a permit"

    def teardown(self) -> None:
        """The workers die, and another runs all jobs: all wanted jobs run, and nothing is left."""
        if self.meddled:
            self.heal()
        worker = self._worker("last")
        ran: set[str] = set()
        for _ in range(40):
            self.now += 1000
            worker.recover()
            while taken := worker.take(10):
                ran |= {job.job_id for job in taken}
                worker.end([Ended(job, answered=True) for job in taken])
        assert self.wanted <= ran
        state = QueueState.read(self.connection)
        assert (state.jobs, state.violations(deleted_by_hand=self.ever_meddled)) == ({}, [])
        assert not any(state.found["permits"].values())

    def _step(self, job_id: str, wait: float | None) -> Step:
        queue, provider = JOBS[job_id]
        made = step("note", job_id, queue=queue, provider=provider)
        if wait is None:
            return made
        return Step(made.queue, made.function, made.args, job_id, _at(self.now + wait), provider)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@pytest.mark.timeout(_EXAMPLES * 2 + 120)
def test_every_order_of_scripts_keeps_the_invariants(connection: "redis.Redis") -> None:
    checks = list(HealthCheck)
    run_state_machine_as_test(
        cast(type[RuleBasedStateMachine], partial(TheQueue, connection)),
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=checks,
            derandomize="DATAHOG_TEST_EXAMPLES" not in os.environ,
        ),
    )
