"""Processes of Datahog that die: the others go on, and the work of the dead one is done nevertheless."""

import signal
from typing import Any

from tests.support.load import accepted_callbacks, ask_many, assert_complete_and_accepted_once, some_under_way
from tests.support.providers import path_of
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually

# Seconds: a lease of 25 s, the time to notice that it has ended, and the work.
LEASE_OVER = 60


def test_a_worker_killed_while_it_runs_jobs_loses_none(fragile: System, receiver: Receiver) -> None:
    receiver.answers(path_of("steady"), Answer(200, body=b"1", delay=2))
    in_hand = [fragile.ask("steady") for _ in range(3)]
    eventually(lambda: len(receiver.calls(path_of("steady"))) >= 3)
    asked = some_under_way(fragile, 10)

    fragile.kill("worker")
    receiver.answers(path_of("steady"), Answer(200, body=b"1"))
    fragile.start("worker")

    assert_complete_and_accepted_once(fragile, in_hand + asked, LEASE_OVER)


def test_a_stopping_worker_finishes_jobs_and_gives_the_rest_back(fragile: System, receiver: Receiver) -> None:
    longer_than_the_grace = Answer(200, body=b"1", delay=fragile.settings.worker_grace + 10)
    receiver.answers(path_of("slow"), longer_than_the_grace, Answer(200, body=b"2"))
    slow = fragile.ask("slow")
    eventually(lambda: receiver.calls(path_of("slow")))
    asked = some_under_way(fragile, 10)

    fragile.kill("worker", signal.SIGTERM)
    exit_code = fragile.exit_code("worker")
    fragile.start("worker")

    assert exit_code == 0
    documents = assert_complete_and_accepted_once(fragile, [slow, *asked], 20)
    assert documents[0]["jobs"][0]["result"] == 2


def test_without_a_reconciler_requests_complete(fragile: System) -> None:
    fragile.kill("reconciler")

    assert_complete_and_accepted_once(fragile, ask_many(fragile, 5), 20)


def test_an_aggregator_killed_in_mid_run_loses_no_request(fragile: System) -> None:
    asked = some_under_way(fragile, 10)

    fragile.kill("aggregator")
    late = ask_many(fragile, 3)
    waiting = [eventually(lambda i=i: not_submitted(fragile, i)) for i in late]  # type: ignore[misc]
    fragile.start("aggregator")

    assert all("connection failed" in submission["lastError"] for submission in waiting)
    assert_complete_and_accepted_once(fragile, asked + late, 30)


def test_a_client_that_was_down_accepts_each_callback_once(fragile: System, receiver: Receiver) -> None:
    receiver.answers(path_of("steady"), Answer(200, body=b"1", delay=1))
    asked = [fragile.ask("steady") for _ in range(3)]
    eventually(lambda: all(fragile.read(i)["submission"]["status"] == "ACCEPTED" for i in asked))

    fragile.kill("client")
    eventually(lambda: all(fragile.look(request_id)["delivery"]["attempts"] >= 2 for request_id in asked))
    fragile.start("client")

    assert_complete_and_accepted_once(fragile, asked, 30)
    eventually(lambda: all(fragile.look(i)["delivery"]["status"] == "SUCCEEDED" for i in asked))
    assert all(accepted_callbacks(fragile)[request_id] == 1 for request_id in asked)


def not_submitted(system: System, request_id: str) -> dict[str, Any] | None:
    """The submission once it has failed twice; None before."""
    submission: dict[str, Any] = system.read(request_id)["submission"]
    return submission if submission["status"] == "PENDING" and submission["attempts"] >= 2 else None
