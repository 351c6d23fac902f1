"""Failpoints: points between two writes at which a test can kill a process.

A failpoint is before or after a call of one of Datahog's own methods. It wraps the method from outside, so the code
that runs in production has no line for it.
"""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from datahog.settings import SettingsError

# Comma-separated failpoints, or @ and the path of a file that lists them; each failpoint reads that file when reached.
VARIABLE = "DATAHOG_FAILPOINTS"
# Only tests set this variable, to 1.
TESTING = "DATAHOG_TESTING"


@dataclass(frozen=True)
class Failpoint:
    """A point at which `program` (a command of the command line) dies: before or after a call of `method`.

    `method` is written `module:Class.method`. `about` limits the failpoint to calls with that subject, such as an
    operationId; None stands for all calls.
    """

    name: str
    program: str
    when: Literal["before", "after"]
    method: str
    about: str | None = None


_CALL = "outbound.openapi_caller:Operations.call"
_COUNT = "handlers.access.open_request_quota:OpenRequests.count"
_CLOSE = "persistence.requests:Requests.close"
_FINISH = "persistence.requests:Requests.finish_job"
_STORE = "persistence.results.store:Results.store"
_PUT = "workers.queue:Queue.put"
_PUT_MISSING = "workers.queue:Queue.put_missing"
_DROP = "workers.queue:Queue.drop"
_START_ANEW = "persistence.deliveries:Deliveries.start_anew"
_END = "workers.rq_worker.leases:Batches.end"
_LOOK_AGAIN = "persistence.items:Items.look_again"

FAILPOINTS = (
    # The client creates or cancels a request, and receives the aggregator's callback.
    Failpoint("client.create.counted", "client", "after", _COUNT),
    Failpoint("client.create.written", "client", "after", "persistence.retrievals:Retrievals.create"),
    Failpoint("client.create.enqueued", "client", "after", _PUT),
    Failpoint("client.cancel.written", "client", "after", "persistence.retrievals:Retrievals.request_cancel"),
    Failpoint("client.callback.stored", "client", "after", _STORE),
    Failpoint("client.callback.received", "client", "after", "persistence.retrievals:Retrievals.receive"),
    # A worker submits the client's request to the aggregator.
    Failpoint("submit.sending", "worker", "before", _CALL, "createRequest"),
    Failpoint("submit.sent", "worker", "after", _CALL, "createRequest"),
    Failpoint("submit.accepted", "worker", "after", "persistence.retrievals:Retrievals.accepted"),
    Failpoint("submit.failed", "worker", "after", "persistence.retrievals:Retrievals.submission_failed"),
    Failpoint("submit.refused", "worker", "after", "persistence.retrievals:Retrievals.refused"),
    Failpoint("submit.cancel.sent", "worker", "after", _CALL, "cancelRequest"),
    Failpoint("submit.cancelled", "worker", "after", "persistence.retrievals:Retrievals.cancelled"),
    Failpoint("submit.cancel.late", "worker", "after", "persistence.retrievals:Retrievals.cancel_came_late"),
    Failpoint("submit.checked", "worker", "after", "persistence.retrievals:Retrievals.check_again"),
    Failpoint("submit.received", "worker", "after", "persistence.retrievals:Retrievals.receive"),
    # The aggregator creates, cancels, retries, redelivers or updates a request.
    Failpoint("aggregator.create.claimed", "aggregator", "after", "persistence.idempotency_keys:IdempotencyKeys.claim"),
    Failpoint(
        "aggregator.create.refused", "aggregator", "before", "persistence.idempotency_keys:IdempotencyKeys.release"
    ),
    Failpoint("aggregator.create.counted", "aggregator", "after", _COUNT),
    Failpoint("aggregator.create.written", "aggregator", "after", "persistence.requests:Requests.create"),
    Failpoint("aggregator.create.enqueued", "aggregator", "after", _PUT, "fetch"),
    Failpoint(
        "aggregator.create.answered", "aggregator", "after", "persistence.idempotency_keys:IdempotencyKeys.answered"
    ),
    Failpoint("aggregator.cancel.written", "aggregator", "after", _CLOSE),
    Failpoint("aggregator.cancel.dropped", "aggregator", "after", _DROP),
    Failpoint("aggregator.retry.written", "aggregator", "after", "persistence.requests:Requests.retry"),
    Failpoint("aggregator.redeliver.written", "aggregator", "after", _START_ANEW),
    Failpoint("aggregator.redeliver-all.written", "aggregator", "after", _START_ANEW),
    Failpoint("aggregator.update.stored", "aggregator", "after", _STORE),
    Failpoint("aggregator.update.written", "aggregator", "after", _FINISH),
    Failpoint("aggregator.update.dropped", "aggregator", "after", _DROP),
    # A worker fetches a provider.
    Failpoint("fetch.taken", "worker", "before", "workers.rq_worker.thread_pool:Pool.submit"),
    Failpoint("fetch.got", "worker", "after", "outbound.http_client:Http.send", "GET"),
    Failpoint("fetch.stored", "worker", "after", _STORE),
    Failpoint("fetch.one-ended", "worker", "after", _FINISH),
    Failpoint("fetch.ended", "worker", "after", _FINISH),
    Failpoint("fetch.gave-up", "worker", "after", "persistence.requests:Requests.fail_job"),
    Failpoint("fetch.failed", "worker", "after", "persistence.requests:Requests.record_failure"),
    Failpoint("fetch.requeued", "worker", "after", _PUT, "fetch"),
    Failpoint("fetch.closed", "worker", "after", _CLOSE),
    Failpoint("fetch.dropped", "worker", "after", _DROP),
    Failpoint("fetch.place-given-back", "worker", "before", _END, "permit"),
    Failpoint("fetch.finished", "worker", "before", _END, "Ended"),
    # A worker delivers a result.
    Failpoint("deliver.posting", "worker", "before", _CALL, "deliverResult"),
    Failpoint("deliver.posted", "worker", "after", _CALL, "deliverResult"),
    Failpoint("deliver.marked", "worker", "after", "persistence.deliveries:Deliveries.succeeded"),
    Failpoint("deliver.failed", "worker", "after", "persistence.deliveries:Deliveries.attempt_failed"),
    Failpoint("deliver.requeued", "worker", "after", _PUT, "deliver"),
    # The reconciler puts a missing step back.
    Failpoint("reconcile.closed", "reconciler", "after", _CLOSE),
    Failpoint("reconcile.dropped", "reconciler", "after", _DROP),
    Failpoint("reconcile.request.put", "reconciler", "after", _PUT_MISSING, "fetch"),
    Failpoint("reconcile.request.looked", "reconciler", "after", _LOOK_AGAIN, "Request"),
    Failpoint("reconcile.retrieval.put", "reconciler", "after", _PUT_MISSING, "submit"),
    Failpoint("reconcile.retrieval.looked", "reconciler", "after", _LOOK_AGAIN, "Retrieval"),
)
_NAMES = tuple(failpoint.name for failpoint in FAILPOINTS)


def lay(program: str, environment: Mapping[str, str]) -> None:
    """Installs the program's failpoints if the environment names any. Raises SettingsError."""
    for name in environment:
        # With a mistyped variable nothing dies, and the test run looks good.
        if name != VARIABLE and get_close_matches(name, [VARIABLE], cutoff=0.9):
            raise SettingsError(f"{name}: no such setting; {VARIABLE} is one")
    value = environment.get(VARIABLE)
    if not value:
        return
    if environment.get(TESTING) != "1":
        raise SettingsError(f"{VARIABLE}: it kills processes and is for tests only; unset it")
    _named(value)
    for failpoint in FAILPOINTS:
        if failpoint.program == program:
            _surround(failpoint, lambda name: name in _named(value))


def _named(value: str) -> list[str]:
    text = Path(value[1:]).read_text() if value.startswith("@") else value
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _NAMES:
            raise SettingsError(f"{VARIABLE}: there is no {name[:80]!r}; the failpoints are {', '.join(_NAMES)}")
    return names


def _surround(failpoint: Failpoint, is_named: Callable[[str], bool]) -> None:
    module, _, path = failpoint.method.partition(":")
    class_name, _, method_name = path.partition(".")
    owner = getattr(import_module(module), class_name)
    method = getattr(owner, method_name)

    @wraps(method)
    def surrounded(self: Any, *arguments: Any, **options: Any) -> Any:
        here = failpoint.about in (None, *_subjects(arguments[:1])) and is_named(failpoint.name)
        if here and failpoint.when == "before":
            _die(failpoint)
        returned = method(self, *arguments, **options)
        if here:
            _die(failpoint)
        return returned

    setattr(owner, method_name, surrounded)


def _subjects(arguments: Iterable[Any]) -> Iterator[str]:
    """Yields the subjects of a call: an operationId, an HTTP method, the function of a step, else the class's name."""
    for argument in arguments:
        if isinstance(argument, list):
            yield from _subjects(argument)
        elif isinstance(argument, str):
            yield argument
        elif getattr(argument, "goes_on", False):
            # The job is not complete: it only releases its permit.
            yield "permit"
        else:
            yield getattr(argument, "function", type(argument).__name__)


def _die(failpoint: Failpoint) -> None:
    os.write(2, f"failpoint {failpoint.name}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
