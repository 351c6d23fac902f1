"""Bench 6, the queue alone: jobs that do nothing, in jobs a second of one worker process."""

import asyncio
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import redis
from rq import Queue
from rq.serializers import JSONSerializer

from bench.noop import QUEUE
from bench.rounds import Goal, Table, alternate
from bench.stand import place
from bench.systems import Place, node_is_here, node_program, peer_environment
from datahog.local.supervisor import Program

# Jobs.
_BATCH = 1000
_CONCURRENCY = 100
# Seconds.
_LONGEST = 300.0


@dataclass(frozen=True)
class Peer:
    """A queue: how to fill it, its worker, and the Redis keys of the waiting and of the running jobs."""

    jobs: int
    fill: Callable[[Place, int], Sequence[Program]]
    worker: Callable[[Place], Program]
    waiting: str
    running: str


async def run(*, quick: bool, rounds: int) -> Table:
    """Measure all queues."""
    peers = _peers()
    measures = {name: functools.partial(_measure, peer, 50 if quick else 1) for name, peer in peers.items()}
    samples = await alternate(measures, rounds)
    table = Table(
        "Queue alone",
        f"Jobs that do nothing, by one worker process that does up to {_CONCURRENCY} at once where it can; from the "
        "first claimed to the last completed.",
        {"jobs/s": ".0f", "CPU µs per job": ".0f", "jobs": ".0f"},
        samples,
    )
    if "Bee-queue" not in samples:
        return table
    ratio = table.median("Datahog", "jobs/s") / table.median("Bee-queue", "jobs/s")
    goals = (Goal("jobs/s against Bee-queue", ratio, 0.9, at_least=True),)
    return Table(table.title, table.text, table.columns, table.samples, goals)


def _peers() -> Mapping[str, Peer]:
    waiting, running = f"rq:queue:{QUEUE}", f"rq:wip:{QUEUE}"
    peers = {
        "Datahog": Peer(50_000, _fill_rq, _python("-m", "bench.noop"), waiting, running),
        "RQ, forking": Peer(200, _fill_rq, _rq("rq.worker.Worker"), waiting, running),
        "RQ, SimpleWorker": Peer(2000, _fill_rq, _rq("rq.worker.SimpleWorker"), waiting, running),
        "Celery, threads": Peer(5000, _fill_celery, _celery("threads"), "celery", "unacked"),
        "Celery, gevent": Peer(5000, _fill_celery, _celery("gevent"), "celery", "unacked"),
    }
    if node_is_here():
        bee = Peer(50_000, _fill_bee, _bee_worker, f"bq:{QUEUE}:waiting", f"bq:{QUEUE}:active")
        peers["Bee-queue"] = bee
    return peers


async def _measure(peer: Peer, share: int) -> Mapping[str, float]:
    jobs = max(20, peer.jobs // share)
    with place("http://unused", concurrency=_CONCURRENCY) as (here, processes):
        processes.start(*peer.fill(here, jobs))
        with redis.Redis.from_url(here.redis_url) as connection:
            if (filled := connection.llen(peer.waiting)) != jobs:
                raise AssertionError(f"{filled} of {jobs} jobs are on the queue")
            worker = peer.worker(here)
            processes.start(worker)
            started = await _until(lambda: connection.llen(peer.waiting) < jobs)
            before = processes.usage(worker.name).cpu
            ended = await _until(lambda: not connection.exists(peer.waiting, peer.running))
            cpu = processes.usage(worker.name).cpu - before
    return {"jobs/s": jobs / (ended - started), "CPU µs per job": cpu / jobs * 1e6, "jobs": jobs}


async def _until(condition: Callable[[], object]) -> float:
    """Wait until the condition is true, and return that time. Raises TimeoutError."""
    ends = time.monotonic() + _LONGEST
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"the queue was not empty within {_LONGEST:g} s")
        await asyncio.sleep(0.002)
    return time.monotonic()


def _fill_rq(here: Place, jobs: int) -> Sequence[Program]:
    with redis.Redis.from_url(here.redis_url) as connection:
        queue = Queue(QUEUE, connection=connection, serializer=JSONSerializer)
        for start in range(0, jobs, _BATCH):
            count = min(_BATCH, jobs - start)
            queue.enqueue_many([Queue.prepare_data("bench.noop.noop", result_ttl=0) for _ in range(count)])
    return ()


def _fill_celery(here: Place, jobs: int) -> Sequence[Program]:
    command = (sys.executable, "-m", "bench.peers.celery_noop", str(jobs))
    return (Program("fill", command, once=True, environment=peer_environment(here)),)


def _fill_bee(here: Place, jobs: int) -> Sequence[Program]:
    program = node_program("noop", peer_environment(here))
    return (Program("fill", (*program.command, "fill", str(jobs)), once=True, environment=program.environment),)


def _bee_worker(here: Place) -> Program:
    return node_program("noop", peer_environment(here))


def _python(*arguments: str) -> Callable[[Place], Program]:
    return lambda here: Program("worker", (sys.executable, *arguments), environment=peer_environment(here))


def _rq(worker_class: str) -> Callable[[Place], Program]:
    serializer = ("-S", "rq.serializers.JSONSerializer", "--worker-class", worker_class, "--logging_level", "WARNING")

    def worker(here: Place) -> Program:
        command = (sys.executable, "-m", "rq.cli", "worker", "--url", here.redis_url, *serializer, QUEUE)
        return Program("worker", command, environment=peer_environment(here))

    return worker


def _celery(pool: str) -> Callable[[Place], Program]:
    options = ("-l", "WARNING", "-P", pool, "-c", str(_CONCURRENCY), "--without-gossip", "--without-mingle")
    return _python("-m", "celery", "--quiet", "-A", "bench.peers.celery_noop", "worker", *options)
