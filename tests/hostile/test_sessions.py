"""One attempt at a time in this process: it ends in time, with a reason, and uses little memory and CPU."""

import time
import tracemalloc

import pytest

from outbound.egress_policy import LOOPBACK, EgressPolicy
from outbound.http_client import Http, HttpError, HttpResponse, Timeouts
from persistence.results import json_text
from tests.hostile.behaviours import LIMIT, READ, TOTAL, Behaviour, behaviours, server

# Bytes: the largest body twice, while it grows and when it is handed over, and some more.
MEMORY = 2.5 * LIMIT
ALL = [pytest.param(behaviour, id=name) for name, behaviour in behaviours()]


@pytest.mark.parametrize("behaviour", ALL)
def test_a_hostile_server_costs_little_and_leaves_a_reason(behaviour: Behaviour) -> None:
    http = Http(pool_size=1, outbound=EgressPolicy(LOOPBACK))
    with server(behaviour) as hostile:
        tracemalloc.start()
        began, processing = time.monotonic(), time.thread_time()
        answer = attempt(http, hostile.url)
        took, processing = time.monotonic() - began, time.thread_time() - processing
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    told = answer if isinstance(answer, str) else wrong_with(answer)

    assert told.startswith(behaviour.reason)
    assert told.isprintable()
    assert len(told) <= 260
    assert took < TOTAL + 0.5
    assert processing < 2
    assert peak < MEMORY


def attempt(http: Http, url: str) -> HttpResponse | str:
    """The response, or the reason why there is none."""
    timeouts = Timeouts(connect=1, read=READ, total=TOTAL)
    try:
        return http.send("GET", url, timeouts=timeouts, limit=LIMIT, redirects=True)
    except HttpError as error:
        return str(error)


def wrong_with(answer: HttpResponse) -> str:
    """The reason why a response is no result, in the words of `workers/fetch.py`."""
    if not answer.ok:
        return str(answer)
    with pytest.raises(ValueError, match="JSON|nested|more than") as caught:
        json_text.parse(answer.body)
    return f"HTTP {answer.status} with a body that is {caught.value}"
