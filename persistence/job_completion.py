"""Job completion: a conditional write ends a job and counts it down. Jobs that end at the same moment share one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from persistence.dynamodb.table import Item
from persistence.errors import Conflict, NotFound
from persistence.items import Items
from persistence.records.job import Attempt, JobStatus
from persistence.records.request import Request
from persistence.write_coalescer import WriteCoalescer

# An expression of DynamoDB has at most 4 KB and 300 operators; an ending takes about 250 bytes and 13 operators.
_MOST = 10


@dataclass(frozen=True)
class JobCompletion:
    """How a job ends: DONE with the place of its `result`, if it has one, or FAILED with an `error`.

    `attempts` is what is added to its count. A failure that adds to it ends the job only if its attempt was not counted
    before: two may have made it, and one of them has planned the next. A result is welcome from both.
    """

    attempt: Attempt
    status: JobStatus
    attempts: int
    result: Item | None = None
    error: str | None = None


class JobCompletions:
    """Writes endings down. Safe for many threads, between which it gains."""

    def __init__(self, items: Items[Request]) -> None:
        self._items = items
        self._joint: WriteCoalescer[JobCompletion, Request | None] = WriteCoalescer(self._write, most=_MOST)

    def write(self, ending: JobCompletion) -> Request | None:
        """End a job; returns the request if that ended it. Of all who end its jobs exactly one gets it.

        Raises Conflict, with nothing changed, when the job or the request has ended already, or was retried meanwhile,
        or when the failure was counted before, and NotFound.
        """
        attempt = ending.attempt
        return self._joint(f"{attempt.request_id} {attempt.revision}", ending)

    def _write(self, endings: Sequence[JobCompletion]) -> Sequence[Request | None | Exception]:
        indexes = {ending.attempt.index for ending in endings}
        if len(indexes) == len(endings):
            try:
                ended = self._change(endings)
            except (Conflict, NotFound) as error:
                if len(endings) == 1:
                    return [error]
            else:
                return [*[None] * (len(endings) - 1), ended]
        # One of them is in the way of the others.
        return [answer for ending in endings for answer in self._write([ending])]

    def _change(self, endings: Sequence[JobCompletion]) -> Request | None:
        """Write the endings of different jobs down in one write.

        Each move of the due time is two writes of the index. So it stays while other jobs are open, and when it is soon
        enough for what has ended; only if neither is so, another write moves it.
        """
        write = _write_of(endings)
        soon = self._items.due_soon(self._items.clock())
        if item := self._update(write, "#openJobs > :ending OR #dueAt <= :soon", ending=len(endings), soon=soon):
            return self._ended(item)
        due = min(soon, write.attempt.deadline)
        if item := self._update(replace(write, changes=[*write.changes, "#dueAt = :due"]), due=due):
            return self._ended(item)
        self._items.get(write.attempt.request_id)
        providers = ", ".join(ending.attempt.provider for ending in endings)
        raise Conflict(
            f"the request {write.attempt.request_id} has ended already, or its job for {providers} has, "
            "or it went on meanwhile"
        )

    def _update(self, write: "_Write", condition: str | None = None, **values: Any) -> Mapping[str, Any] | None:
        return self._items.change_if(
            write.attempt.request_id,
            write.changes,
            write.values | values,
            condition=f"({condition}) AND {write.condition}" if condition else write.condition,
            remove=write.remove,
            add=["#openJobs :minus", "#doneJobs :done"],
        )

    def _ended(self, item: Mapping[str, Any]) -> Request | None:
        return self._items.parse(item) if item["openJobs"] == 0 else None


@dataclass(frozen=True)
class _Write:
    """The parts of an update that writes endings down."""

    attempt: Attempt
    changes: list[str]
    values: dict[str, Any]
    condition: str
    remove: list[str]


def _write_of(endings: Sequence[JobCompletion]) -> _Write:
    attempt = endings[0].attempt
    changes: list[str] = []
    conditions = ["#openJobs > :zero", "#revision = :revision"]
    remove: list[str] = []
    values: dict[str, Any] = {
        "revision": attempt.revision,
        "done": sum(ending.status is JobStatus.DONE for ending in endings),
        "minus": -len(endings),
        "init": JobStatus.INIT.value,
        "zero": 0,
    }
    for ending in endings:
        number = ending.attempt.index
        at = f"#jobs[{number}]"
        changes += [
            f"{at}.#status = :status{number}",
            f"{at}.#attempts = {at}.#attempts + :attempts{number}",
            f"{at}.#endedAt = :now",
        ]
        values |= {f"status{number}": ending.status.value, f"attempts{number}": ending.attempts}
        if ending.result is not None:
            changes.append(f"{at}.#result = :result{number}")
            values[f"result{number}"] = ending.result
        if ending.error is not None:
            changes.append(f"{at}.#lastError = :error{number}")
            values[f"error{number}"] = ending.error
        conditions.append(f"{at}.#status = :init")
        if ending.status is JobStatus.FAILED and ending.attempts:
            conditions.append(f"{at}.#attempts = :made{number}")
            values[f"made{number}"] = ending.attempt.made
        remove.append(f"{at}.#nextAttemptAt")
    return _Write(attempt, changes, values, " AND ".join(conditions), remove)
