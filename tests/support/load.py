"""A load of requests, and the proof from outside that each came back whole and once."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from tests.support.providers import SIMULATED
from tests.support.system import System, eventually


def ask_many(system: System, count: int) -> list[str]:
    """Ask the client that often, for all simulated providers; returns the requests' ids."""
    with ThreadPoolExecutor(8) as people:
        return list(people.map(lambda _: system.ask(*SIMULATED), range(count)))


def some_under_way(system: System, count: int) -> list[str]:
    """Ask as `ask_many` does, and wait until the first job of these has ended."""
    before = system.log("worker").count(": DONE")
    asked = ask_many(system, count)
    eventually(lambda: system.log("worker").count(": DONE") > before, pause=0.01)
    return asked


def assert_complete_and_accepted_once(system: System, asked: list[str], seconds: float = 60) -> list[dict[str, Any]]:
    """All are COMPLETE within the time, the client has accepted one callback for each; returns what it has."""
    with ThreadPoolExecutor(8) as people:
        documents = list(people.map(lambda request_id: system.read_until_ended(request_id, seconds), asked))
    assert Counter(document["status"] for document in documents) == {"COMPLETE": len(asked)}
    accepted = accepted_callbacks(system)
    assert {request_id: accepted[request_id] for request_id in asked} == dict.fromkeys(asked, 1)
    return documents


def accepted_callbacks(system: System) -> Counter[str]:
    """How often the client has accepted a callback, by request."""
    return Counter(re.findall(r"(\w+): \w+, callback accepted", system.log("client")))


def sent_by(job: dict[str, Any]) -> Any:
    """What the provider of a job sends when it does not fail."""

    def ask() -> requests.Response | None:
        answer = requests.get(job["url"], timeout=10)
        return answer if answer.status_code == 200 else None

    return eventually(ask).json()
