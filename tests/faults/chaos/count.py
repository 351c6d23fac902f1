"""The count: what was lost, counted double or wrong, found by comparing what was asked, sent, got and recorded."""

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
# Seconds. A record's times are whole milliseconds, and are taken a little before the write.
_BLUR = 0.1


@dataclass(frozen=True)
class Count:
    """How many requests were asked, accepted, ended; how many callbacks and ids; and a line for each thing amiss."""

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
        """Whether nothing is amiss."""
        return not (self.lost or self.double or self.wrong)


def count(
    asked: Sequence[Asked],
    evidence: Sequence[Evidence],
    sent: Sequence[Sent],
    taken: Sequence[Taken],
    client_accepted: Mapping[str, int],
) -> Count:
    """Compare. `client_accepted` is how often the client has accepted a callback, by request."""
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
    """The logs, by what they are asked for."""

    def __init__(self, sent: Sequence[Sent], taken: Sequence[Taken], client_accepted: Mapping[str, int]) -> None:
        self.client_accepted = client_accepted
        self.sent: defaultdict[str, list[Sent]] = defaultdict(list)
        self.taken: defaultdict[str, list[Taken]] = defaultdict(list)
        for answer in sent:
            self.sent[answer.provider].append(answer)
        for callback in taken:
            self.taken[callback.hook].append(callback)


def _double(one: Evidence, logs: _Logs) -> Iterator[str]:
    """What was counted more often than it was."""
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
        yield f"{one.record['openJobs']} jobs counted as open, which are not"
    for job in one.record["jobs"]:
        until = from_text(job["endedAt"]).timestamp() + _BLUR if "endedAt" in job else float("inf")
        calls = sum(one.asked.at <= call.at <= until for call in logs.sent[job["provider"]])
        if job["attempts"] > calls:
            yield f"{job['attempts']} attempts at {job['provider']}, which was called {calls} times"


def _wrong(one: Evidence, logs: _Logs) -> Iterator[str]:
    """What of an ended request is not as the providers have it."""
    for callback in logs.taken[one.asked.hook]:
        if not callback.signed:
            yield "a callback with a wrong signature"
    for where, document in _delivered(one, logs):
        if document["requestId"] != one.asked.request_id or document["status"] != "COMPLETE":
            yield f"{where}: {document['requestId']} is {document['status']}"
        if tuple(job["provider"] for job in document["jobs"]) != one.asked.providers:
            yield f"{where}: other providers than were asked for"
        for job in document["jobs"]:
            answers = [call.result for call in logs.sent[job["provider"]] if call.at >= one.asked.at and call.result]
            if job.get("result") not in answers:
                yield f"{where}: what {job['provider']} never sent: {str(job.get('result'))[:80]}"
        if one.record and [job.get("result") for job in document["jobs"]] != _results(one.record):
            yield f"{where}: other results than the record has"


def _given_twice(evidence: Sequence[Evidence], logs: _Logs) -> Iterator[str]:
    """Answers that were given to more than one request: each call was made for one."""
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
    return (f"answer {number} was given to {times} requests" for number, times in given.items() if times > 1)


def _delivered(one: Evidence, logs: _Logs) -> Iterator[tuple[str, Document]]:
    """What whoever asked has got."""
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
