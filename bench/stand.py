"""The test stand: one warm system on fresh engines, and the world around it."""

import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import Poster, all_accepted
from bench.processes import Processes, free_ports
from bench.systems import Place, System
from bench.world import HOST, World

PROVIDERS = ("gas", "internet", "water")
ENGINES = ("dynamodb", "redis")
# Requests.
_WARM_UP = 30


@dataclass(frozen=True)
class Stand:
    """A running system, ready to be measured."""

    world: World
    place: Place
    processes: Processes
    system: System
    poster: Poster

    def request(self, providers: Sequence[str] = PROVIDERS) -> tuple[str, bytes]:
        """(id of its callback, body) of a new request."""
        callback_id = uuid.uuid4().hex
        body = {"providers": list(providers), "callbackUrl": self.world.callback_url(callback_id)}
        return callback_id, json.dumps(body).encode()

    def requests(self, count: int) -> Iterator[bytes]:
        """The bodies of `count` new requests."""
        return (self.request()[1] for _ in range(count))


@contextmanager
def place(
    providers_url: str, *, providers: Sequence[str] = PROVIDERS, concurrency: int = 300
) -> Iterator[tuple[Place, Processes]]:
    """Run fresh engines in a directory that is deleted with them."""
    with tempfile.TemporaryDirectory(prefix="datahog-bench-") as name, Processes(Path(name)) as processes:
        dynamodb, redis, port = free_ports(HOST, 3)
        here = Place(Path(name), dynamodb, redis, port, providers_url, providers, concurrency)
        processes.start(*here.engines)
        yield here, processes


@asynccontextmanager
async def stand(
    make: Callable[[Place], System],
    *,
    providers: Sequence[str] = PROVIDERS,
    concurrency: int = 300,
    connections: int = 32,
    work: bool = True,
) -> AsyncIterator[Stand]:
    """Start a system, or only its front if not `work`, and warm it up with requests of providers that take 200 ms."""
    async with World(latency=0.2) as world:
        with place(world.providers_url, providers=providers, concurrency=concurrency) as (here, processes):
            system = make(here)
            processes.start(*(p for p in system.programs if work or p.once or p.name == system.front))
            async with Poster(system.url, connections=connections, headers=system.headers) as poster:
                running = Stand(world, here, processes, system, poster)
                warm_up = [running.request(providers[:3])[1] for _ in range(_WARM_UP)]
                all_accepted(await poster.flood(warm_up))
                await world.until_received(_WARM_UP if work else 0, seconds=60)
                world.forget()
                yield running
