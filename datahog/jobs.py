"""The functions that RQ's jobs name. Any RQ worker can run them: a process builds its wiring at the first call."""

import os
from functools import cache

from datahog import settings
from datahog.wiring import Wiring
from workers.worker import Later


@cache
def wiring() -> Wiring:
    """The wiring of this process, from its environment."""
    return Wiring(settings.load(os.environ), os.environ)


def fetch(request_id: str, provider: str) -> Later | None:
    """Make one attempt at a provider."""
    return _later(wiring().fetch(request_id, provider))


def deliver(request_id: str) -> Later | None:
    """Make one attempt to deliver a result."""
    return _later(wiring().deliver(request_id))


def submit(request_id: str) -> Later | None:
    """Make one attempt to submit a request, or its cancellation, to the aggregator."""
    return _later(wiring().submit(request_id))


def _later(wait: float | None) -> Later | None:
    return None if wait is None else Later(wait)
