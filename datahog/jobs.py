"""The functions that RQ's jobs name; a process builds its parts at the first call."""

import os
from datetime import UTC, datetime
from functools import cache

from datahog import settings
from datahog.bootstrap.wiring import Wiring
from persistence.records.job import Attempt
from workers.rq_worker.run_again import RunAgain


@cache
def wiring() -> Wiring:
    """Returns the parts of this process, built once from its environment."""
    return Wiring(settings.load(os.environ), os.environ)


def fetch(
    request_id: str, provider: str, index: int, made: int, revision: int, deadline: str, known_at: float
) -> bool | None:
    """Makes one attempt to fetch a provider; the arguments are the record's state at `known_at` (epoch seconds)."""
    attempt = Attempt(request_id, provider, index, made, revision, deadline)
    return wiring().fetch(attempt, datetime.fromtimestamp(known_at, UTC))


def deliver(request_id: str, outcome: str | None = None) -> RunAgain | None:
    """Makes one attempt to deliver a result, or records the `outcome` of an attempt already made."""
    return _later(wiring().deliver(request_id, outcome))


def submit(request_id: str) -> RunAgain | None:
    """Makes one attempt to submit a request, or its cancellation, to the aggregator."""
    return _later(wiring().submit(request_id))


def _later(wait: float | None) -> RunAgain | None:
    return None if wait is None else RunAgain(wait)
