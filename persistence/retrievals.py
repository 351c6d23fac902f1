"""The client's side of a request: asked for, submitted to the aggregator, answered by a callback."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from persistence.dynamodb.table import Item, Table
from persistence.errors import ConditionFailed, Conflict
from persistence.index.newest import RetrievalList, newest_first
from persistence.index.shards import OPEN
from persistence.items import Items
from persistence.records.request import RequestStatus
from persistence.records.retrieval import Retrieval, SubmissionStatus
from persistence.records.tenants import DEFAULT_TENANT
from persistence.records.timestamps import from_text, to_text
from persistence.results.store import Results

# Seconds after the deadline for the aggregator to end the request, and to deliver its result for the first time.
FIRST_DELIVERY = 20
_NOT_ENDED = "attribute_not_exists(#outcome) AND attribute_not_exists(#cancelledAt) AND #submission.#status <> :refused"


class Retrievals:
    """The repository of retrievals. `retention` (seconds) is how long an ended one is kept.

    `awaited` (seconds) is how long after its deadline a callback may still come.

    Every method raises `persistence.errors.Unavailable` when DynamoDB cannot answer.
    """

    def __init__(
        self, items: Items[Retrieval], table: Table, results: Results, *, retention: float, awaited: float
    ) -> None:
        self._items = items
        self._results = results
        self._retention = timedelta(seconds=retention)
        self._awaited = timedelta(seconds=awaited)
        self.newest = RetrievalList(table, items.shards, items.clock).newest
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
            **newest_first(request_id, tenant, self._items.clock(), self._items.shards),
        }
        try:
            return self._items.put_new(request_id, facts)
        except ConditionFailed:
            # boto3 repeats a write whose answer was lost, which then finds what it has written itself.
            return self.get(request_id)

    def load_results(self, retrieval: Retrieval) -> dict[str, bytes]:
        """The results that are there, as JSON text, by provider. Raises `persistence.errors.ResultLost`."""
        jobs = retrieval.outcome["jobs"] if retrieval.outcome else []
        return {j["provider"]: self._results.load(retrieval.request_id, j["result"]) for j in jobs if "result" in j}

    def accepted(self, retrieval: Retrieval) -> None:
        """The aggregator has the request; now its callback is awaited. Raises Conflict when the record has changed.

        Should it not have come by a while after the deadline, the aggregator is to be asked for the result.
        """
        deadline = from_text(retrieval.deadline)
        check_at = to_text(deadline + timedelta(seconds=FIRST_DELIVERY))
        self._settle(
            retrieval,
            [
                "#submission.#status = :status",
                "#submission.#attempts = #submission.#attempts + :one",
                "#nextCheckAt = :check",
                "#dueAt = :check",
                "#expiresAt = :expires",
            ],
            # Should no result ever come, this does not stay for ever.
            {"status": SubmissionStatus.ACCEPTED.value, "check": check_at, "expires": self._expires_at(deadline)},
            ["#submission.#nextAttemptAt", "#submission.#lastError"],
        )

    def check_again(self, retrieval: Retrieval, at: datetime, deadline: datetime | None = None) -> None:
        """There is no result to be had yet: ask the aggregator again at that time. Raises Conflict as `accepted` does.

        `deadline` is the one that the aggregator names; until a while after it the record is kept.
        """
        changes = ["#checks = if_not_exists(#checks, :none) + :one", "#nextCheckAt = :at", "#dueAt = :at"]
        values: Item = {"none": 0, "at": to_text(at)}
        if deadline:
            changes.append("#expiresAt = :expires")
            values["expires"] = self._expires_at(max(deadline, from_text(retrieval.deadline)))
        self._settle(retrieval, changes, values)

    def refused(self, retrieval: Retrieval, error: str) -> None:
        """The aggregator will never take the request: it has FAILED. Raises Conflict when the record has changed."""
        self._fail(retrieval, error, attempts=1)

    def lost(self, retrieval: Retrieval, error: str) -> None:
        """The aggregator has the request no more: it has FAILED. Raises Conflict when the record has changed."""
        self._fail(retrieval, error, attempts=0)

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
        changes = ["#cancelledAt = :now", "#expiresAt = :expires"]
        self._settle(retrieval, changes, values, ["#nextCheckAt", "#dueShard", "#dueAt"])

    def receive(self, retrieval: Retrieval, outcome: dict[str, Any], results: dict[str, bytes]) -> bool:
        """Take what a callback said, or the aggregator when asked, with the results as JSON text by provider.

        Returns False, with nothing changed, when this revision or a later one was received before, or when the
        request was cancelled and this says otherwise. After Unavailable the same callback, told again to any process,
        goes on with the result that could not be stored.
        """
        revision = outcome["revision"]
        if retrieval.outcome and retrieval.outcome["revision"] >= revision:
            return False
        places: dict[str, Item] = {}
        try:
            for provider, text in results.items():
                job = f"{provider} of {outcome['status']}"
                pending = self._results.begin(retrieval.request_id, text, revision=revision, job=job)
                places[provider] = self._results.store(pending)
            jobs = [
                {**job, **({"result": places[job["provider"]]} if job["provider"] in places else {})}
                for job in outcome["jobs"]
            ]
            self._items.change(
                retrieval.request_id,
                ["#outcome = :outcome", "#submission.#status = :accepted", "#expiresAt = :expires"],
                {
                    "outcome": {**outcome, "jobs": jobs},
                    "accepted": SubmissionStatus.ACCEPTED.value,
                    "expires": self._expires_at(),
                    "revision": revision,
                    "status": outcome["status"],
                    "cancelled": RequestStatus.CANCELLED.value,
                },
                # What was cancelled stays so, whatever comes late.
                condition="(attribute_not_exists(#outcome) OR #outcome.#revision < :revision) "
                "AND (attribute_not_exists(#cancelledAt) OR :status = :cancelled)",
                conflict="has this outcome already",
                remove=["#dueShard", "#dueAt", "#nextCheckAt", "#submission.#nextAttemptAt"],
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

    def cancel_came_late(self, retrieval: Retrieval) -> Retrieval:
        """It had ended before it could be cancelled: the aggregator is to be asked for the result at once.

        Returns the record as it is then. Raises Conflict as `accepted` does.
        """
        now = self._items.clock()
        return self._settle(
            retrieval,
            [
                "#submission.#status = :status",
                "#nextCheckAt = :now",
                "#dueAt = :due",
                "#expiresAt = :expires",
            ],
            {
                "status": SubmissionStatus.ACCEPTED.value,
                "due": self._items.due_soon(now),
                # The aggregator may have run it again since, for longer than it was to take at first.
                "expires": self._expires_at(max(now, from_text(retrieval.deadline))),
            },
            ["#cancelRequestedAt", "#submission.#nextAttemptAt", "#submission.#lastError"],
        )

    def _fail(self, retrieval: Retrieval, error: str, *, attempts: int) -> None:
        self._settle(
            retrieval,
            [
                "#submission.#status = :status",
                "#submission.#attempts = #submission.#attempts + :made",
                "#submission.#lastError = :error",
                "#expiresAt = :expires",
            ],
            {"status": SubmissionStatus.REFUSED.value, "made": attempts, "error": error, "expires": self._expires_at()},
            ["#submission.#nextAttemptAt", "#nextCheckAt", "#dueShard", "#dueAt"],
        )

    def _settle(self, retrieval: Retrieval, changes: list[str], values: Item, remove: Sequence[str] = ()) -> Retrieval:
        item = self._items.change(
            retrieval.request_id,
            changes,
            values | {"seen": retrieval.version},
            condition="#version = :seen",
            conflict="was changed at the same moment",
            remove=remove,
        )
        return self._items.parse(item)

    def _expires_at(self, deadline: datetime | None = None) -> int:
        ends = deadline + self._awaited if deadline else self._items.clock()
        return int((ends + self._retention).timestamp())
