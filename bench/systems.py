"""The systems under test, Datahog and its peers: the programs of each, on the same engines."""

import base64
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

import specs
from bench.world import HOST
from datahog.local import engines, stack
from datahog.local.supervisor import Program
from datahog.settings import Settings
from persistence.api_keys import new_key
from specs.operations import target

NODE = Path(__file__).parent / "peers" / "node"
# The path at which all peers accept requests.
_PEERS_PATH = "/requests"
_API_KEY = new_key()
_SECRET = "whsec_" + base64.b64encode(b"guards nothing but benches").decode()


@dataclass(frozen=True)
class Place:
    """The surroundings of a system: its directory, ports, providers (at `providers_url`/name) and concurrency."""

    directory: Path
    dynamodb_port: int
    redis_port: int
    port: int
    providers_url: str
    providers: Sequence[str]
    concurrency: int

    @property
    def engines(self) -> Sequence[Program]:
        """The programs of the engines, the same for all systems."""
        return (
            engines.dynamodb(self.dynamodb_port, self.directory / "dynamodb"),
            engines.redis(self.redis_port, self.directory / "redis"),
        )

    @property
    def dynamodb_url(self) -> str:
        """The URL of DynamoDB."""
        return stack.url(engines.HOST, self.dynamodb_port)

    @property
    def redis_url(self) -> str:
        """The URL of Redis."""
        return f"redis://{engines.HOST}:{self.redis_port}/0"


@dataclass(frozen=True)
class System:
    """A system at a place: the programs to start in turn, and the URL that accepts requests, with its headers.

    `front` and `worker` name the programs that accept requests and that run their jobs.
    """

    programs: Sequence[Program]
    url: str
    front: str
    worker: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> list[str]:
        """The programs that run all the time."""
        return [program.name for program in self.programs if not program.once]


def datahog_settings(place: Place) -> Settings:
    """Settings for the place: one process of each kind, and limits so high that none is reached."""
    file = place.directory / "providers.yaml"
    providers = {name: {"url": f"{place.providers_url}/{name}", "concurrency": 10_000} for name in place.providers}
    file.write_text(yaml.safe_dump({"providers": providers}))
    return stack.settle(
        Settings(
            host=HOST,
            dynamodb_port=place.dynamodb_port,
            redis_port=place.redis_port,
            aggregator_port=place.port,
            providers_file=file,
            webhook_secrets=(_SECRET,),
            local_key=_API_KEY,
            aggregator_key=_API_KEY,
            # Both are counted as usual, but never reached.
            rate_limit=1_000_000,
            open_requests=1_000_000,
            worker_concurrency=place.concurrency,
            data_dir=place.directory,
            log_level="WARNING",
        )
    )


def datahog(place: Place) -> System:
    """Datahog's aggregator, worker and reconciler."""
    settings = datahog_settings(place)
    programs = {program.name: program for stage in stack.stages(settings) for program in stage}
    chosen = [programs[name] for name in ("tables", "aggregator", "worker", "reconciler")]
    url = settings.aggregator_url + target(specs.AGGREGATOR, "createRequest")
    return System(chosen, url, "aggregator", "worker", {"Authorization": f"Bearer {_API_KEY}"})


def celery(place: Place) -> System:
    """FastAPI and a Celery chord on a gevent pool (see README.md for its settings)."""
    environment = peer_environment(place)
    tasks = "bench.peers.celery_chord.tasks"
    worker = [sys.executable, "-m", "celery", "--quiet", "-A", tasks, "worker", "-P", "gevent", "-l", "WARNING"]
    worker += ["-c", str(place.concurrency), "--without-gossip", "--without-mingle", "--without-heartbeat"]
    api = [sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning"]
    api += ["--port", str(place.port), "bench.peers.celery_chord.api:app"]
    return System(
        (
            peer_table(environment),
            Program("api", api, host=HOST, port=place.port, environment=environment),
            Program("worker", worker, environment=environment),
        ),
        stack.url(HOST, place.port) + _PEERS_PATH,
        "api",
        "worker",
    )


def node(place: Place) -> System:
    """Fastify, Bee-queue and the AWS SDK for JavaScript: a Node design of the same job (see README.md)."""
    environment = peer_environment(place)
    return System(
        (
            peer_table(environment),
            node_program("api", environment, place.port),
            node_program("worker", environment),
        ),
        stack.url(HOST, place.port) + _PEERS_PATH,
        "api",
        "worker",
    )


def peer_environment(place: Place) -> Mapping[str, str | None]:
    """The environment variables of a peer's programs."""
    return {
        **engines.CREDENTIALS,
        "DYNAMODB_URL": place.dynamodb_url,
        "REDIS_URL": place.redis_url,
        "PROVIDERS_URL": place.providers_url,
        "WEBHOOK_SECRET": _SECRET,
        "CONCURRENCY": str(place.concurrency),
        "PORT": str(place.port),
        "NODE_ENV": "production",
    }


def peer_table(environment: Mapping[str, str | None]) -> Program:
    """The program that creates the table of all peers."""
    return Program("table", (sys.executable, "-m", "bench.peers.table"), once=True, environment=environment)


def node_program(name: str, environment: Mapping[str, str | None], port: int | None = None) -> Program:
    """A script of the Node peer."""
    interpreter = shutil.which("node") or "node"
    return Program(name, (interpreter, str(NODE / f"{name}.js")), host=HOST, port=port, environment=environment)


def front_peer(framework: str, place: Place) -> System:
    """The front door alone, by `fastapi` or `flask`, each behind its own server."""
    environment = peer_environment(place)
    module = f"bench.peers.front_{framework}"
    uvicorn = ("-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--port", str(place.port), f"{module}:app")
    command = (sys.executable, *(uvicorn if framework == "fastapi" else ("-m", module)))
    front = Program("front", command, host=HOST, port=place.port, environment=environment)
    return System((peer_table(environment), front), stack.url(HOST, place.port) + _PEERS_PATH, "front", "front")


def systems() -> Mapping[str, Callable[[Place], System]]:
    """The systems that do the whole job and can run here, by name."""
    found: dict[str, Callable[[Place], System]] = {"Datahog": datahog, "Celery chord": celery}
    if node_is_here():
        found["Node, Bee-queue"] = node
    return found


def node_is_here() -> bool:
    """Whether Node and the packages of its peer are installed (`npm ci` in bench/peers/node)."""
    return shutil.which("node") is not None and (NODE / "node_modules").is_dir()
