"""The judging parts of the chaos run: its schedule, its count and its times to heal; each count can fail."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import specs
from tests.faults.chaos.count import Count, count
from tests.faults.chaos.evidence import Evidence
from tests.faults.chaos.faults import Injected
from tests.faults.chaos.healing import times_to_heal
from tests.faults.chaos.load import Asked
from tests.faults.chaos.memory import Resident
from tests.faults.chaos.schedule import KINDS, Fault, make_schedule
from tests.faults.chaos.world import Sent, Taken

RESULT = {"provider": "p1", "number": 7, "padding": ""}
JOB = {"provider": "p1", "status": "DONE", "attempts": 2, "endedAt": "1970-01-01T00:01:45Z", "result": RESULT}
DOCUMENT: dict[str, Any] = {"requestId": "r", "status": "COMPLETE", "jobs": [JOB]}
RECORD = DOCUMENT | {"openJobs": 0, "delivery": {"status": "SUCCEEDED"}}
BY_HOOK = Asked(specs.AGGREGATOR, "h", ("p1",), 100.0, "r")
BY_CLIENT = replace(BY_HOOK, api=specs.CLIENT)
SENT = (Sent("p1", 101.0, None), Sent("p1", 104.0, RESULT))
TAKEN = Taken("h", "msg_r_1", True, json.dumps(DOCUMENT).encode(), 106.0)


def counted(
    asked: Asked = BY_HOOK,
    record: dict[str, Any] | None = RECORD,
    retrieval: dict[str, Any] | None = None,
    sent: Sequence[Sent] = SENT,
    taken: Sequence[Taken] = (TAKEN,),
    accepted: int = 1,
) -> Count:
    return count([asked], [Evidence(asked, record, retrieval)], sent, taken, {"r": accepted})


def amiss(found: Count) -> tuple[int, int, int]:
    return len(found.lost), len(found.double), len(found.wrong)


def test_a_result_delivered_once_and_unchanged_is_clean() -> None:
    posted = counted(taken=(TAKEN, TAKEN))
    read = counted(BY_CLIENT, retrieval=DOCUMENT, taken=())

    assert posted.clean
    assert (posted.accepted, posted.ended, posted.callbacks, posted.webhook_ids) == (1, 1, 2, 1)
    assert read.clean


@pytest.mark.parametrize(
    "found",
    [
        counted(taken=()),
        counted(record=None),
        counted(record=RECORD | {"delivery": {"status": "PENDING"}}),
        counted(BY_CLIENT, taken=(), retrieval=None),
        counted(BY_CLIENT, taken=(), retrieval=DOCUMENT | {"status": "OPEN"}),
    ],
)
def test_an_accepted_request_without_a_result_is_lost(found: Count) -> None:
    assert amiss(found) == (1, 0, 0)


@pytest.mark.parametrize(
    "found",
    [
        counted(BY_CLIENT, taken=(), retrieval=DOCUMENT, accepted=2),
        counted(taken=(TAKEN, replace(TAKEN, webhook_id="msg_other_1"))),
        counted(taken=(TAKEN, replace(TAKEN, body=json.dumps(DOCUMENT, indent=1).encode()))),
        counted(record=RECORD | {"openJobs": -1}),
        counted(record=RECORD | {"jobs": [JOB | {"attempts": 3}]}),
        counted(sent=(Sent("p1", 99.0, None), SENT[1])),
    ],
)
def test_a_request_counted_more_often_than_it_ran_is_double(found: Count) -> None:
    assert amiss(found) == (0, 1, 0)


def posted(**changes: Any) -> Count:
    """The count of a request whose callback and record both have these changes."""
    document = DOCUMENT | changes
    return counted(record=RECORD | changes, taken=(replace(TAKEN, body=json.dumps(document).encode()),))


@pytest.mark.parametrize(
    "found",
    [
        counted(taken=(replace(TAKEN, signed=False),)),
        posted(status="PARTIAL"),
        posted(requestId="other"),
        posted(jobs=[JOB | {"result": RESULT | {"number": 8}}]),
        posted(jobs=[{name: value for name, value in JOB.items() if name != "result"}]),
        counted(replace(BY_HOOK, providers=("p1", "p2"))),
        counted(sent=(SENT[0], SENT[0], replace(SENT[1], at=99.0))),
        counted(
            sent=(*SENT, Sent("p1", 104.5, RESULT | {"number": 9})),
            record=RECORD | {"jobs": [JOB | {"result": RESULT | {"number": 9}}]},
        ),
    ],
)
def test_a_result_that_differs_from_the_providers_is_wrong(found: Count) -> None:
    assert amiss(found) == (0, 0, 1)


def test_a_response_that_two_requests_got_is_wrong() -> None:
    asked = [BY_CLIENT, replace(BY_CLIENT, request_id="s")]
    documents = [DOCUMENT, DOCUMENT | {"requestId": "s"}]
    evidence = [Evidence(a, RECORD, d) for a, d in zip(asked, documents, strict=True)]

    found = count(asked, evidence, SENT, (), {"r": 1, "s": 1})

    assert found.wrong == ("response 7 was given to 2 requests",)


def test_a_seed_decides_a_schedule_of_every_kind_without_overlap() -> None:
    faults = make_schedule(7, seconds=60, count=len(KINDS))

    assert faults == make_schedule(7, seconds=60, count=len(KINDS))
    assert faults != make_schedule(8, seconds=60, count=len(KINDS))
    assert {(fault.kind, fault.target) for fault in faults} == set(KINDS)
    for number, fault in enumerate(faults):
        assert all(
            fault.at + fault.seconds < later.at for later in faults[number + 1 :] if later.target == fault.target
        )


def test_every_other_freeze_of_the_worker_outlasts_its_lease() -> None:
    faults = make_schedule(7, seconds=1200, count=200, long_freezes=True)

    frozen = [fault.seconds for fault in faults if (fault.kind, fault.target) == ("freeze", "worker")]
    assert [seconds > 20 for seconds in frozen] == [number % 2 == 0 for number in range(len(frozen))]


def test_a_request_counts_only_for_the_first_fault_it_met() -> None:
    kill = Injected(Fault("kill", "worker", 0, 4), 10, 14)
    cut = Injected(Fault("cut", "providers", 3, 4), 13, 17)
    again = Injected(Fault("kill", "worker", 90, 4), 100, 104)

    healed = times_to_heal([kill, cut, again], [(5, 9), (9, 20), (9, 12), (15, 19), (30, 31)])

    assert healed == {"kill worker": [6, 0], "cut providers": [2]}


@pytest.mark.parametrize(
    ("quarters", "flat"),
    [((60, 100, 101, 102, 103), True), ((60, 100, 140, 90, 95), True), ((60, 100, 110, 120, 130), False)],
)
def test_memory_that_stops_growing_once_warm_is_flat(quarters: tuple[float, ...], flat: bool) -> None:
    assert Resident(quarters, max(quarters), 1).flat is flat
