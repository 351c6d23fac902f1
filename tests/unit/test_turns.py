"""Turns: one at a time for each request, and free again however it ended."""

from typing import Any, cast

import pytest

from handlers.client import Client
from handlers.problems import Problem
from handlers.turns import Turns


def test_who_comes_meanwhile_is_told_to_come_again() -> None:
    turns = Turns()

    with turns.of("r1"), pytest.raises(Problem) as refusal, turns.of("r1"):
        pass

    assert refusal.value.status == 503
    assert int(refusal.value.headers["Retry-After"]) >= 1


def test_other_requests_have_turns_of_their_own() -> None:
    turns = Turns()

    with turns.of("r1"), turns.of("r2"):
        pass


def test_a_turn_that_failed_is_over() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.of("r1"):
        _ = 1 / 0

    with turns.of("r1"):
        pass


def test_a_callback_that_is_repeated_while_it_is_written_down_is_not_written_down_twice() -> None:
    body = {"requestId": "r1", "status": "COMPLETE", "jobs": []}
    kept: list[str] = []

    class Retrievals:
        def get(self, request_id: str) -> str:
            return request_id

        def receive(self, request_id: str, *_: object) -> bool:
            kept.append(request_id)
            if len(kept) == 1:
                with pytest.raises(Problem) as refusal:
                    client.receive_callback("r1", body)
                assert refusal.value.status == 503
            return True

    client = Client(cast(Any, Retrievals()), *cast(Any, [None] * 6), default_deadline=1)

    assert client.receive_callback("r1", body).status_code == 204
    assert kept == ["r1"]
    assert client.receive_callback("r1", body).status_code == 204
