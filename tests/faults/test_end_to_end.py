"""The main job, on real processes: everything that was asked for comes back, once."""

import requests

from tests.system import System

PROVIDERS = ("gas", "internet", "water", "electricity", "phone")


def test_a_request_is_aggregated_from_flaky_providers(system: System) -> None:
    document = system.read_until_ended(system.ask("gas", "internet", "water"))

    assert document["status"] == "COMPLETE"
    assert [job["provider"] for job in document["jobs"]] == ["gas", "internet", "water"]
    for job in document["jobs"]:
        sent = requests.get(job["url"], timeout=10)
        while sent.status_code != 200:
            sent = requests.get(job["url"], timeout=10)
        assert job["result"] == sent.json()
