"""`demo`: runs the whole stack for one request, prints each step, and leaves nothing behind."""

import json
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

import specs
from datahog.local import engines, local_secrets, stack
from datahog.local.supervisor import Interrupted, ProgramFailed, Supervisor
from datahog.settings import Settings
from outbound.http_client import Http, HttpError, Timeouts
from outbound.openapi_caller import Operations
from simulator.bills import path_of

_PROVIDERS = ("gas", "internet", "water")
_LIMIT_SECONDS = 60
"""The maximum time from the demo's start to the result."""
_SEED = 30
"""With this seed of the simulator, gas fails once, internet twice and water once."""
_RETRY = {"initialDelay": 0.5, "multiplier": 2, "maximumDelay": 4, "jitter": 0.2}
_LOG_LINES = 40
"""The number of lines from the end of the log that a failed demo prints."""
_TIMEOUTS = Timeouts(connect=5, read=10, total=10)


class DemoFailed(Exception):
    """The request did not complete; the message gives the reason."""


def demo(settings: Settings) -> int:
    """Starts the stack on free ports, makes a request, prints the result and stops the stack.

    Returns the exit code: 0 if the request completed, else 1.
    """
    started = time.monotonic()
    with TemporaryDirectory(prefix="datahog-demo-") as directory:
        log = Path(directory, "log.txt")
        try:
            _show(_prepare(settings, Path(directory)), log, started)
        except Interrupted:
            print("Interrupted; everything is stopped.", file=sys.stderr)
            return 1
        except (DemoFailed, ProgramFailed, engines.EngineMissing, HttpError) as error:
            print(f"The demo failed: {error}. The last lines of the log:", file=sys.stderr)
            print(*_last_lines(log), sep="\n", file=sys.stderr)
            return 1
    print(f"Stopped everything. The demo took {time.monotonic() - started:.1f} s.")
    return 0


def _prepare(settings: Settings, directory: Path) -> Settings:
    """Returns settings for one short run: free ports, a directory of its own, quick retries, repeatable failures."""
    file = directory / "providers.yaml"
    url = "${DATAHOG_SIMULATOR_URL}"
    providers = {name: {"url": url + path_of(name), "retry": dict(_RETRY)} for name in _PROVIDERS}
    file.write_text(yaml.safe_dump({"providers": providers}))
    changes: dict[str, object] = {
        "host": engines.HOST,
        "viewer_origin": None,
        "providers_file": file,
        "webhook_secrets": (),
        "local_key": None,
        "aggregator_key": None,
        "reconciler_period": 1,
        "simulator_failure_rate": 0.5,
        "simulator_latency": 0.2,
        "simulator_seed": _SEED,
        "data_dir": directory,
    }
    settled = stack.settle(settings.model_copy(update=changes | _free_ports()))
    return local_secrets.fill_in(settled, keep=False)


def _free_ports() -> dict[str, int]:
    names = [name for name in Settings.model_fields if name.endswith("_port")]
    with ExitStack() as held:  # holds all sockets at once, so that no port comes twice
        sockets = [held.enter_context(socket.create_server((engines.HOST, 0))) for _ in names]
        return {name: listener.getsockname()[1] for name, listener in zip(names, sockets, strict=True)}


def _show(settings: Settings, log: Path, started: float) -> None:
    with log.open("w") as output, Supervisor(output, grace=stack.grace(settings), signals=True) as supervisor:
        print("Starting Datahog on free ports:")
        for stage in stack.stages(settings):
            programs = [program for program in stage if program.name != "viewer"]
            print("  " + ", ".join(program.name for program in programs), flush=True)
            supervisor.start(*programs)
        print(f"Ready after {time.monotonic() - started:.1f} s.\n")
        print(f"API key, for this demo only: {settings.local_key}\n")
        client = Operations(
            specs.CLIENT,
            settings.client_url,
            Http(pool_size=1),
            timeouts=_TIMEOUTS,
            credentials={"bearerKey": str(settings.local_key)},
        )
        document = _ask(supervisor, client, started)
        print("\nAll have answered, and the aggregator has called the client back with the result:\n")
        print(json.dumps(document, indent=2))
        print("\nStopping ...", flush=True)


def _ask(supervisor: Supervisor, client: Operations, started: float) -> Mapping[str, Any]:
    """Posts the request and prints its progress until it has ended; returns its record.

    Raises DemoFailed and HttpError.
    """
    body = {"providers": _PROVIDERS}
    print(f"POST {client.url('createRequest')} {json.dumps(body)}")
    reply = client.call("createRequest", body=body)
    if reply.status != HTTPStatus.ACCEPTED:
        raise DemoFailed(f"the client responded with {reply}")
    request_id = reply.document["requestId"]
    print(f"202 Accepted. GET {client.url('getRequest', {'requestId': request_id})} tells how it goes:")
    asked = time.monotonic()
    told: dict[str, str] = {}
    while time.monotonic() - started < _LIMIT_SECONDS:
        document = _read(client, request_id)
        for job in document["jobs"]:
            news = _news(job)
            if news and told.get(job["provider"]) != (key := f"{job['status']} {job['attempts']}"):
                told[job["provider"]] = key
                print(f"  {time.monotonic() - asked:4.1f} s  {job['provider']:<9} {news}", flush=True)
        if document["status"] == "COMPLETE":
            return document
        if document["status"] != "OPEN":
            raise DemoFailed(f"the request ended with the status {document['status']}")
        supervisor.pause(0.1)
    raise DemoFailed(f"no result within {_LIMIT_SECONDS} s")


def _read(client: Operations, request_id: str) -> Mapping[str, Any]:
    reply = client.call("getRequest", {"requestId": request_id})
    if not reply.ok:
        raise DemoFailed(f"the client responded with {reply}")
    document: Mapping[str, Any] = reply.document
    return document


def _news(job: Mapping[str, Any]) -> str | None:
    if job["status"] == "DONE":
        return f"attempt {job['attempts']}: has answered"
    if "nextAttemptAt" not in job or "lastError" not in job:
        return None
    wait = (datetime.fromisoformat(job["nextAttemptAt"]) - datetime.now(UTC)).total_seconds()
    return f"attempt {job['attempts']}: {job['lastError']}, next attempt in {max(0.0, wait):.1f} s"


def _last_lines(log: Path) -> list[str]:
    if not log.exists():
        return []
    with log.open(errors="replace") as lines:
        return [line.rstrip() for line in deque(lines, _LOG_LINES)]
