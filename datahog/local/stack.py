"""Defines the stack on one machine: its programs, their order of start and their settings."""

import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from datahog.local import engines
from datahog.local.supervisor import Program
from datahog.settings import PREFIX, Settings
from outbound.egress_policy import LOOPBACK, Network

# A program gets this time to stop, on top of a worker's own grace.
_STOPPING_SECONDS = 5
# The embedded DynamoDB reads the whole table for each query of an index shard, so a local stack has few.
_SHARDS = 2


def settle(settings: Settings) -> Settings:
    """Returns the settings with all URLs and addresses set to those of this stack."""
    return settings.model_copy(
        update={
            "dynamodb_endpoint_url": url(engines.HOST, settings.dynamodb_port),
            "redis_url": f"redis://{engines.HOST}:{settings.redis_port}/0",
            "client_url": url(settings.host, settings.client_port),
            "aggregator_url": url(settings.host, settings.aggregator_port),
            "outbound_networks": tuple(dict.fromkeys((*_own(settings.host), *settings.outbound_networks))),
            "viewer_origin": settings.viewer_origin or url(settings.host, settings.viewer_port),
            "data_dir": settings.data_dir.resolve(),
            "index_shards": settings.index_shards if "index_shards" in settings.model_fields_set else _SHARDS,
            # All programs share one machine.
            "worker_processes": settings.worker_processes or 1,
        }
    )


def _own(host: str) -> tuple[Network, ...]:
    """Returns the networks that contain the simulator and the client, and no other address of this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return LOOPBACK
    return LOOPBACK if address.is_loopback or address.is_unspecified else (*LOOPBACK, ipaddress.ip_network(host))


def stages(settings: Settings) -> Sequence[Sequence[Program]]:
    """Returns the programs in stages, each of which needs those before it. Raises EngineMissing.

    `settings` are settled ones.
    """
    environment = _environment(settings)

    def program(name: str, port: int | None = None, *, once: bool = False) -> Program:
        return Program(
            name,
            (sys.executable, "-m", "datahog", name),
            host=settings.host,
            port=port,
            once=once,
            environment=environment,
        )

    return (
        (
            engines.dynamodb(settings.dynamodb_port, settings.data_dir / "dynamodb"),
            engines.redis(settings.redis_port, settings.data_dir / "redis"),
        ),
        (program("tables", once=True), program("simulator", settings.simulator_port)),
        (
            program("aggregator", settings.aggregator_port),
            program("client", settings.client_port),
            program("worker"),
            program("reconciler"),
            program("viewer", settings.viewer_port),
        ),
    )


def grace(settings: Settings) -> float:
    """Returns the seconds that each program gets to stop by itself."""
    return settings.worker_grace + _STOPPING_SECONDS


def _environment(settings: Settings) -> Mapping[str, str | None]:
    values = {PREFIX + name.upper(): _text(getattr(settings, name)) for name in Settings.model_fields}
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]))
    return {
        **values,
        **engines.CREDENTIALS,
        "DATAHOG_SIMULATOR_URL": url(settings.host, settings.simulator_port),
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PYTHONUNBUFFERED": "1",
    }


def _text(value: object) -> str | None:
    match value:
        case None:
            return None
        case tuple():
            return ",".join(str(item) for item in value)
        case Path():
            return str(value.resolve())
        case _:
            return str(value)


def url(host: str, port: int) -> str:
    """Returns the URL at which this machine reaches a server that binds to the host."""
    # A wildcard address is not an address to connect to.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (nothing is bound here)
    name = f"[{reachable}]" if ":" in reachable else reachable
    # Browsers omit the default port from an origin.
    return f"http://{name}" if port == 80 else f"http://{name}:{port}"
