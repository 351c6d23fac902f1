"""The client's side of a request: asked for, submitted to the aggregator, answered by a callback."""

import base64
import heapq
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from persistence.dynamodb import ConditionFailed, Item, Table
from persistence.errors import Conflict
from persistence.items import Items
from persistence.records import RequestStatus
from persistence.results import Results
from persistence.retrieval_record import KIND, Retrieval, SubmissionStatus, retrieval_from_item
from persistence.shards import OPEN
from persistence.tables import NEWEST_INDEX
from persistence.tenants import DEFAULT_TENANT, kind_of
from persistence.times import from_text, to_text

_NEWEST = "newest"
_NEWEST_KEY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z#[A-Za-z0-9_-]{1,64}", re.ASCII)
_NOT_ENDED = "attribute_not_exists(#outcome) AND attribute_not_exists(#cancelledAt) AND #submission.#status <> :refused"


class BadCursor(Exception):
    """A cursor that no list has given out."""


class Retrievals:
    """The repository of retrievals. `retention` (seconds) is how long an ended one is kept.

    `awaited` (seconds) is how long after its deadline a callback may still come.

    Every method raises `persistence.dynamodb.Unavailable` when DynamoDB cannot answer.
    """

    def __init__(
        self, items: Items[Retrieval], table: Table, results: Results, *, retention: float, awaited: float
    ) -> None:
        self._items = items
        self._table = table
        self._results = results
        self._retention = timedelta(seconds=retention)
        self._awaited = timedelta(seconds=awaited)
        self.get = items.get
        self.look_again = items.look_again
        self.get_due = items.get_due

    def create(
        self, request_id: str, providers: Sequence[str], *, deadline: datetime, tenant: str = DEFAULT_TENANT
    ) -> Retrieval:
        """Write a new retrieval down, under an id of its own."""
        facts = {
            "tenant": tenant,
            "providers": list(providers),
            "deadline": to_text(deadline),
            "submission": {"status": SubmissionStatus.PENDING.value, "attempts": 0},
            "newestShard": self._items.shards.of(kind_of(_NEWEST, tenant), request_id),
            "newestKey": f"{to_text(self._items.clock())}#{request_id}",
        }
        try:
            return self._items.put_new(request_id, facts)
        except ConditionFailed:
            # boto3 repeats a write whose answer was lost, which then finds what it has written itself.
            return self.get(request_id)

    def newest(
        self, *, limit: int, cursor: str | None, tenant: str = DEFAULT_TENANT
    ) -> tuple[list[Retrieval], str | None]:
        """At most `limit` (up to 100) of a tenant's retrievals, newest first, from where an earlier list's cursor is.

        Returns them with the next cursor, None at the end. Raises BadCursor.
        """
        before = _read_cursor(cursor) if cursor else "~"  # "~" sorts after every digit

        def read(shard: str) -> Iterator[tuple[str, str]]:
            values = {"shard": shard, "before": before}
            condition = "#newestShard = :shard AND #newestKey < :before"
            for item in self._table.query(condition, values, index=NEWEST_INDEX, limit=limit + 1, newest_first=True):
                yield item["newestKey"], item["pk"]

        merged = heapq.merge(*map(read, self._items.shards.names(kind_of(_NEWEST, tenant))), reverse=True)
        page = list(islice(merged, limit))
        more = next(merged, None) is not None
        items = self._table.get_many([{"pk": request_id, "sk": KIND} for _, request_id in page])
        now = self._items.clock().timestamp()
        found = [retrieval_from_item(item) for item in items if item.get("expiresAt", float("inf")) > now]
        found.sort(key=lambda retrieval: retrieval.newest_key, reverse=True)
        return found, _write_cursor(page[-1][0]) if more else None

    def load_results(self, retrieval: Retrieval) -> dict[str, bytes]:
        """The results that are there, as JSON text, by provider. Raises `persistence.results.ResultLost`."""
        jobs = retrieval.outcome["jobs"] if retrieval.outcome else []
        return {j["provider"]: self._results.load(retrieval.request_id, j["result"]) for j in jobs if "result" in j}

    def accepted(self, retrieval: Retrieval) -> None:
        """The aggregator has the request; now its callback is awaited. Raises Conflict when the record has changed."""
        self._settle(
            retrieval,
            [
                "#submission.#status = :status",
                "#submission.#attempts = #submission.#attempts + :one",
                "#expiresAt = :expires",
            ],
            # Should the callback never come, this does not stay for ever.
            {"status": SubmissionStatus.ACCEPTED.value, "expires": self._expires_at(from_text(retrieval.deadline))},
            ["#submission.#nextAttemptAt", "#submission.#lastError", "#dueShard", "#dueAt"],
        )

    def refused(self, retrieval: Retrieval, error: str) -> None:
        """The aggregator will never take the request: it has FAILED. Raises Conflict when the record has changed."""
        self._settle(
            retrieval,
            [
                "#submission.#status = :status",
                "#submission.#attempts = #submission.#attempts + :one",
                "#submission.#lastError = :error",
                "#expiresAt = :expires",
            ],
            {"status": SubmissionStatus.REFUSED.value, "error": error, "expires": self._expires_at()},
            ["#submission.#nextAttemptAt", "#dueShard", "#dueAt"],
        )

    def submission_failed(self, retrieval: Retrieval, error: str, next_attempt_at: datetime) -> None:
        """Count a failed attempt to reach the aggregator. Raises Conflict when the record has changed."""
        self._settle(
            retrieval,
            [
                "#submission.#attempts = #submission.#attempts + :one",
                "#submission.#lastError = :error",
                "#submission.#nextAttemptAt = :next",
                "#dueAt = :due",
            ],
            {
                "error": error,
                "next": to_text(next_attempt_at),
                "due": self._items.due_soon(next_attempt_at),
            },
        )

    def request_cancel(self, request_id: str) -> Retrieval:
        """Write down that the request is to be cancelled. Raises NotFound, and Conflict when it has ended."""
        values = {
            "refused": SubmissionStatus.REFUSED.value,
            "shard": self._items.shards.of(OPEN, request_id),
            "due": self._items.due_soon(self._items.clock()),
        }
        changes = [
            "#cancelRequestedAt = if_not_exists(#cancelRequestedAt, :now)",
            "#dueShard = :shard",
            "#dueAt = :due",
        ]
        item = self._items.change(
            request_id,
            changes,
            values,
            condition=_NOT_ENDED,
            conflict="has ended already",
            remove=["#submission.#nextAttemptAt"],
        )
        return self._items.parse(item)

    def cancelled(self, retrieval: Retrieval) -> None:
        """The aggregator works on it no more: it has ended. Raises Conflict when the record has changed."""
        values = {"expires": self._expires_at()}
        self._settle(retrieval, ["#cancelledAt = :now", "#expiresAt = :expires"], values, ["#dueShard", "#dueAt"])

    def receive(self, retrieval: Retrieval, outcome: dict[str, Any], results: dict[str, bytes]) -> bool:
        """Take what the callback said, with the results as JSON text by provider.

        Returns False, with nothing changed, when this revision or a later one was received before, or when the
        request was cancelled and this says otherwise.
        """
        revision = outcome["revision"]
        if retrieval.outcome and retrieval.outcome["revision"] >= revision:
            return False
        expires_at = self._expires_at()
        places = {
            provider: self._results.store(retrieval.request_id, text, expires_at=expires_at + 86_400)
            for provider, text in results.items()
        }
        jobs = [
            {**job, **({"result": places[job["provider"]]} if job["provider"] in places else {})}
            for job in outcome["jobs"]
        ]
        try:
            self._items.change(
                retrieval.request_id,
                ["#outcome = :outcome", "#submission.#status = :accepted", "#expiresAt = :expires"],
                {
                    "outcome": {**outcome, "jobs": jobs},
                    "accepted": SubmissionStatus.ACCEPTED.value,
                    "expires": expires_at,
                    "revision": revision,
                    "status": outcome["status"],
                    "cancelled": RequestStatus.CANCELLED.value,
                },
                # What was cancelled stays so, whatever comes late.
                condition="(attribute_not_exists(#outcome) OR #outcome.#revision < :revision) "
                "AND (attribute_not_exists(#cancelledAt) OR :status = :cancelled)",
                conflict="has this outcome already",
                remove=["#dueShard", "#dueAt", "#submission.#nextAttemptAt"],
            )
        except Conflict:
            # boto3 repeats a write whose answer was lost, which then conflicts with what it has written itself.
            recorded = self.get(retrieval.request_id).outcome
            kept = [job.get("result") for job in recorded["jobs"]] if recorded else []
            for place in places.values():
                if place not in kept:
                    self._results.discard(retrieval.request_id, place)
            return False
        return True

    def cancel_came_late(self, retrieval: Retrieval) -> None:
        """It had ended before it could be cancelled; its callback is awaited. Raises Conflict as `accepted` does."""
        self._settle(
            retrieval,
            ["#submission.#status = :status", "#expiresAt = :expires"],
            {"status": SubmissionStatus.ACCEPTED.value, "expires": self._expires_at(from_text(retrieval.deadline))},
            ["#cancelRequestedAt", "#dueShard", "#dueAt"],
        )

    def _settle(self, retrieval: Retrieval, changes: list[str], values: Item, remove: Sequence[str] = ()) -> None:
        self._items.change(
            retrieval.request_id,
            changes,
            values | {"seen": retrieval.version},
            condition="#version = :seen",
            conflict="was changed at the same moment",
            remove=remove,
        )

    def _expires_at(self, deadline: datetime | None = None) -> int:
        ends = deadline + self._awaited if deadline else self._items.clock()
        return int((ends + self._retention).timestamp())


def _write_cursor(newest_key: str) -> str:
    return base64.urlsafe_b64encode(newest_key.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    # Decoding is lenient, so what it gave must also be what makes this very cursor.
    if not _NEWEST_KEY.fullmatch(text) or _write_cursor(text) != cursor:
        raise BadCursor("this cursor was not given out by this API")
    return text
