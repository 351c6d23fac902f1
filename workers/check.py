"""Check: asks the aggregator for the result of a request whose callback is overdue."""

import logging
import math
import random
import threading
from datetime import datetime, timedelta
from typing import Any

import msgspec

from outbound.http_client import HttpError
from outbound.openapi_caller import CheckedResponse, ContractBroken, Operations
from persistence.records.retrieval import Retrieval
from persistence.records.timestamps import Clock, from_text
from persistence.results.cut_out import cut_out
from persistence.retrievals import Retrievals
from providers.retry_policy import RetryPolicy

log = logging.getLogger(__name__)

# Seconds between two checks: from half a minute to five minutes.
_POLICY = RetryPolicy(initial_delay=30, multiplier=2, maximum_delay=250, jitter=0.2)
# Seconds that an attempt to deliver may take: its signature is valid for no longer. A check leaves the result to it.
_DELIVERY_SECONDS = 300
# An attempt to deliver counts as under way from this many seconds before its time.
_IMMINENT_SECONDS = 5
# Extra seconds for a response with results: fifty results have up to 300 MB.
_EXTRA_SECONDS = 300
# Seconds until the next try while another thread stores a result.
_BUSY_SECONDS = 5
_RESULT_MEMBERS = ("requestId", "status", "revision", "jobs", "callbackUrl", "createdAt", "endedAt")
_LOST = "the aggregator has this request or its results no more, so that they cannot come; ask for the data again"


class Check:
    """Checks requests at the aggregator. Only the results of one request at a time are in memory."""

    def __init__(self, retrievals: Retrievals, aggregator: Operations, *, rng: random.Random, clock: Clock) -> None:
        self._retrievals = retrievals
        self._aggregator = aggregator
        self._rng = rng
        self._clock = clock
        self._taking = threading.Lock()

    def __call__(self, retrieval: Retrieval) -> float | None:
        """Store the result if the aggregator has it, as its callback would have; otherwise schedule the next check.

        Returns the seconds to wait while another thread stores the result of its request.
        Raises Conflict or NotFound when the record has changed, and `persistence.errors.Unavailable`.
        """
        try:
            # The first call asks for no results: they may be missing yet, or a delivery may bring them.
            reply = self._aggregator.call("getRequest", {"requestId": retrieval.request_id, "results": False})
            if not (reply.ok and is_to_be_taken(reply.document, self._clock())):
                self._ask_again(retrieval, reply)
                return None
            if not self._taking.acquire(blocking=False):
                return _BUSY_SECONDS
            try:
                self._take(retrieval)
            finally:
                self._taking.release()
        except HttpError as error:
            if isinstance(error, ContractBroken):
                log.warning("%s: the result cannot be read: %s", retrieval.request_id, error)
            self._wait(retrieval, str(error))
        return None

    def _take(self, retrieval: Retrieval) -> None:
        texts: list[msgspec.Raw | None] = []

        def read(body: bytes) -> Any:
            document, found = cut_out(body)
            texts.extend(found)
            return document

        arguments = {"requestId": retrieval.request_id, "results": True}
        reply = self._aggregator.call("getRequest", arguments, more_seconds=_EXTRA_SECONDS, read=read)
        if not reply.ok or reply.document["status"] == "OPEN":
            self._ask_again(retrieval, reply)
            return
        outcome = {name: reply.document[name] for name in _RESULT_MEMBERS}
        # zlib and DynamoDB accept any object with the buffer protocol, so that nothing is copied.
        results: dict[str, Any] = {
            job["provider"]: text for job, text in zip(outcome["jobs"], texts, strict=True) if text is not None
        }
        if self._retrievals.receive(retrieval, outcome, results):
            log.info("%s: %s, read from the aggregator as no callback came", retrieval.request_id, outcome["status"])

    def _ask_again(self, retrieval: Retrieval, reply: CheckedResponse) -> None:
        if reply.status == 404:
            log.warning("%s: lost: %s", retrieval.request_id, reply)
            self._retrievals.lost(retrieval, _LOST)
        elif reply.ok:
            self._wait(retrieval, f"{reply.document['status']} at the aggregator", reply.document["deadline"])
        else:
            self._wait(retrieval, str(reply))

    def _wait(self, retrieval: Retrieval, reason: str, deadline: str | None = None) -> None:
        delay = _POLICY.delay(retrieval.checks + 1, remaining=math.inf, rng=self._rng) or _POLICY.maximum_delay
        log.info("%s: no result yet, next check in %.0f s: %s", retrieval.request_id, delay, reason)
        at = self._clock() + timedelta(seconds=delay)
        self._retrievals.check_again(retrieval, at, from_text(deadline) if deadline else None)


def is_to_be_taken(document: Any, now: datetime) -> bool:
    """Whether a `Request` of the aggregator has ended, and probably no attempt to deliver its result is under way."""
    if document["status"] == "OPEN":
        return False
    delivery = document["delivery"]
    begins = from_text(delivery.get("nextAttemptAt") or document.get("endedAt") or document["updatedAt"])
    since = (now - begins).total_seconds()
    return delivery["status"] != "PENDING" or not -_IMMINENT_SECONDS <= since < _DELIVERY_SECONDS
