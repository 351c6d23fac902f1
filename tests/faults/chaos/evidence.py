"""The evidence: what the client and the aggregator say about each request once it has ended, or the time is up."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests

import specs
from tests.faults.chaos.load import Asked
from tests.support.system import System

# Seconds between two reads of a request.
_PAUSE = 0.5
# Threads.
_READERS = 4


@dataclass(frozen=True)
class Evidence:
    """The documents of an accepted request; None for a document that could not be read."""

    asked: Asked
    record: dict[str, Any] | None
    """The aggregator's view."""
    retrieval: dict[str, Any] | None
    """The client's view, if the client accepted the request."""

    @property
    def settled(self) -> bool:
        """Whether the request has ended and its result is where it belongs."""
        delivered = self.record is not None and self.record["delivery"]["status"] == "SUCCEEDED"
        if self.asked.api == specs.AGGREGATOR:
            return delivered
        return delivered and self.retrieval is not None and self.retrieval["status"] != "OPEN"


def gather(system: System, accepted: Sequence[Asked], *, within: float) -> list[Evidence]:
    """Read each request until it is settled, or `within` seconds have passed."""
    ends = time.monotonic() + within
    found: list[Evidence] = []
    waiting = list(accepted)
    with ThreadPoolExecutor(_READERS) as readers:
        while True:
            read = list(readers.map(lambda asked: _read(system, asked), waiting))
            found += [evidence for evidence in read if evidence.settled]
            open_still = [evidence for evidence in read if not evidence.settled]
            if not open_still or time.monotonic() > ends:
                return found + open_still
            waiting = [evidence.asked for evidence in open_still]
            time.sleep(_PAUSE)


def _read(system: System, asked: Asked) -> Evidence:
    record = _document(system, specs.AGGREGATOR, asked)
    retrieval = _document(system, specs.CLIENT, asked) if asked.api == specs.CLIENT else None
    return Evidence(asked, record, retrieval)


def _document(system: System, api: str, asked: Asked) -> dict[str, Any] | None:
    try:
        answer = system.call(api, "getRequest", {"requestId": asked.request_id}, timeout=10)
    except requests.RequestException:
        return None
    document: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
    return document
