"""The simulated providers: they fail at the given rate, with the original data provider's response."""

from collections.abc import Callable
from datetime import datetime

import pytest
from flask.testing import FlaskClient

from simulator.app import create_app
from simulator.bills import PROVIDERS


def client(*, failure_rate: float = 0.0, latency: float = 0.0, seed: int | None = None) -> FlaskClient:
    return create_app(failure_rate=failure_rate, latency=latency, seed=seed).test_client()


def outcomes(asked: FlaskClient, name: str, count: int) -> list[int]:
    return [asked.get(f"/providers/{name}").status_code for _ in range(count)]


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_sends_its_bills(name: str) -> None:
    answer = client().get(f"/providers/{name}")

    assert (answer.status_code, answer.content_type) == (200, "application/json")
    bills = answer.get_json()
    assert bills
    for bill in bills:
        assert bill.keys() == {"billedOn", "amount"}
        assert datetime.fromisoformat(bill["billedOn"]).tzinfo
        assert bill["amount"] > 0


def test_a_failure_equals_the_original_data_providers() -> None:
    answer = client(failure_rate=1).get("/providers/gas")

    assert (answer.status_code, answer.mimetype, answer.text) == (500, "text/plain", "#fail")


def test_providers_fail_at_the_given_rate() -> None:
    failed = outcomes(client(failure_rate=0.5, seed=1), "gas", 1000).count(500)

    assert 450 < failed < 550


@pytest.mark.parametrize("order", [lambda names: names, reversed])
def test_a_seed_makes_each_providers_failures_repeatable(order: Callable[..., list[str]]) -> None:
    first, second = (client(failure_rate=0.5, seed=7) for _ in range(2))
    expected = {name: outcomes(first, name, 20) for name in PROVIDERS}

    assert {name: outcomes(second, name, 20) for name in order(list(PROVIDERS))} == expected
    assert expected["gas"] != expected["water"]


def test_an_unknown_provider_is_not_found() -> None:
    assert client().get("/providers/soap").status_code == 404
