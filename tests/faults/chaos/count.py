"""Counts lost, double and wrong results by comparing what was asked, sent, received and recorded."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import specs
from persistence.records.timestamps import from_text
from tests.faults.chaos.evidence import Evidence
from tests.faults.chaos.load import Asked
from tests.faults.chaos.world import Sent, Taken

Document = Mapping[str, Any]
# Seconds. A record's times are whole milliseconds, and a little earlier than the write.
_BLUR = 0.1


@dataclass(frozen=True)
class Count:
    """Numbers of requests asked, accepted and ended, of callbacks and webhook-ids; and one line for each error."""

    asked: int
    accepted: int
    ended: int
    callbacks: int
    webhook_ids: int
    lost: tuple[str, ...]
    double: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether there is no error."""
        return not (self.lost or self.double or self.wrong)


def count(
    asked: Sequence[Asked],
    evidence: Sequence[Evidence],
    sent: Sequence[Sent],
    taken: Sequence[Taken],
    client_accepted: Mapping[str, int],
) -> Count:
    """Compare. `client_accepted` is the number of callbacks that the client has accepted, by request id."""
    logs = _Logs(sent, taken, client_accepted)
    ended = [one for one in evidence if one.settled and (one.asked.api == specs.CLIENT or logs.taken[one.asked.hook])]
    return Count(
        asked=len(asked),
        accepted=len(evidence),
        ended=len(ended),
        callbacks=len(taken),
        webhook_ids=len({one.webhook_id for one in taken}),
        lost=tuple(f"{_name(one)}: {_how_far(one)}" for one in evidence if one not in ended),
        double=tuple(f"{_name(one)}: {why}" for one in evidence for why in _double(one, logs)),
        wrong=(
            *(f"{_name(one)}: {why}" for one in ended for why in _wrong(one, logs)),
            *_given_twice(evidence, logs),
        ),
    )


class _Logs:
    """The logs, with the responses by provider and the callbacks by hook."""

    def __init__(self, sent: Sequence[Sent], taken: Sequence[Taken], client_accepted: Mapping[str, int]) -> None:
        self.client_accepted = client_accepted
        self.sent: defaultdict[str, list[Sent]] = defaultdict(list)
        self.taken: defaultdict[str, list[Taken]] = defaultdict(list)
        for response in sent:
            self.sent[response.provider].append(response)
        for callback in taken:
            self.taken[callback.hook].append(callback)


def _double(one: Evidence, logs: _Logs) -> Iterator[str]:
    """A line for each thing that counted more often than it happened."""
    times = logs.client_accepted.get(one.asked.request_id or "", 0)
    if times > 1:
        yield f"the client accepted {times} callbacks"
    callbacks = logs.taken[one.asked.hook]
    if len(ids := {callback.webhook_id for callback in callbacks}) > 1:
        yield f"came under {len(ids)} webhook-ids"
    if len(bodies := {callback.body for callback in callbacks}) > 1:
        yield f"came with {len(bodies)} different bodies"
    if one.record is None:
        return
    if one.record["openJobs"] != sum(job["status"] == "INIT" for job in one.record["jobs"]):
        yield f"openJobs is {one.record['openJobs']}, which is not the number of open jobs"
    for job in one.record["jobs"]:
        until = from_text(job["endedAt"]).timestamp() + _BLUR if "endedAt" in job else float("inf")
        calls = sum(one.asked.at <= call.at <= until for call in logs.sent[job["provider"]])
        if job["attempts"] > calls:
            yield f"{job['attempts']} attempts at {job['provider']}, which was called {calls} times"


def _wrong(one: Evidence, logs: _Logs) -> Iterator[str]:
    """A line for each difference between an ended request and what its providers sent."""
    for callback in logs.taken[one.asked.hook]:
        if not callback.signed:
            yield "a callback with a wrong signature"
    for where, document in _delivered(one, logs):
        if document["requestId"] != one.asked.request_id or document["status"] != "COMPLETE":
            yield f"{where}: {document['requestId']} is {document['status']}"
        if tuple(job["provider"] for job in document["jobs"]) != one.asked.providers:
            yield f"{where}: not the providers of the request"
        for job in document["jobs"]:
            results = [call.result for call in logs.sent[job["provider"]] if call.at >= one.asked.at and call.result]
            if job.get("result") not in results:
                yield f"{where}: {job['provider']} never sent {str(job.get('result'))[:80]}"
        if one.record and [job.get("result") for job in document["jobs"]] != _results(one.record):
            yield f"{where}: not the results of the record"


def _given_twice(evidence: Sequence[Evidence], logs: _Logs) -> Iterator[str]:
    """A line for each response that more than one request has: a call is made for one request only."""
    given = Counter(
        number
        for one in evidence
        for number in {
            job["result"]["number"]
            for _, document in _delivered(one, logs)
            for job in document["jobs"]
            if isinstance(job.get("result"), dict)
        }
    )
    return (f"response {number} was given to {times} requests" for number, times in given.items() if times > 1)


def _delivered(one: Evidence, logs: _Logs) -> Iterator[tuple[str, Document]]:
    """(source, document) of each result that the caller has received."""
    if one.retrieval is not None:
        yield "the client", one.retrieval
    for callback in logs.taken[one.asked.hook]:
        yield "a callback", json.loads(callback.body)


def _results(document: Document) -> list[Any]:
    return [job.get("result") for job in document["jobs"]]


def _name(one: Evidence) -> str:
    return f"{one.asked.request_id} ({one.asked.api}, asked at {one.asked.at:.1f})"


def _how_far(one: Evidence) -> str:
    at_client = f"; at the client {one.retrieval['status']}" if one.retrieval else ""
    if one.record is None:
        return f"the aggregator has no record{at_client}"
    jobs = ", ".join(f"{job['provider']} {job['status']} after {job['attempts']}" for job in one.record["jobs"])
    return f"{one.record['status']}, delivery {one.record['delivery']['status']}, {jobs}{at_client}"
