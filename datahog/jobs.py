"""The functions that RQ's jobs name. Any RQ worker can run them: a process builds its wiring at the first call."""

import os
from datetime import UTC, datetime
from functools import cache

from datahog import settings
from datahog.bootstrap.wiring import Wiring
from persistence.records.job import Attempt
from workers.rq_worker.run_again import Later


@cache
def wiring() -> Wiring:
    """The wiring of this process, from its environment."""
    return Wiring(settings.load(os.environ), os.environ)


def fetch(
    request_id: str, provider: str, index: int, made: int, revision: int, deadline: str, known_at: float
) -> bool | None:
    """Make one attempt at a provider, as the record had it at `known_at` (epoch seconds)."""
    attempt = Attempt(request_id, provider, index, made, revision, deadline)
    return wiring().fetch(attempt, datetime.fromtimestamp(known_at, UTC))


def deliver(request_id: str, outcome: str | None = None) -> Later | None:
    """Make one attempt to deliver a result, or write down the outcome of one that was made."""
    return _later(wiring().deliver(request_id, outcome))


def submit(request_id: str) -> Later | None:
    """Make one attempt to submit a request, or its cancellation, to the aggregator."""
    return _later(wiring().submit(request_id))


def _later(wait: float | None) -> Later | None:
    return None if wait is None else Later(wait)
