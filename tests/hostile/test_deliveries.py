"""Deliveries to hostile receivers and forbidden destinations: the attempt fails, and its reason is recorded."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest

from datahog.bootstrap.wiring import Wiring
from persistence.records.request import CloseReason, Delivery, DeliveryStatus
from tests.hostile.behaviours import behaviours, server

ALL = dict(behaviours())
DeliverTo = Callable[[str], Delivery]


@pytest.fixture
def deliver(make_wiring: Callable[..., Wiring]) -> DeliverTo:
    """Makes one attempt to deliver to a URL, and returns the recorded delivery."""
    only = make_wiring(delivery_timeout=1, outbound_networks=(ip_network("127.0.0.1/32"),))

    def to(url: str) -> Delivery:
        deadline = datetime.now(UTC) + timedelta(days=1)
        only.requests.create("r1", [("gas", "http://gas")], url, deadline=deadline, content={})
        only.requests.close("r1", CloseReason.CANCELLED)
        assert only.deliver("r1") is None
        return only.requests.get("r1").delivery

    return to


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("silent", "timeout: no complete answer within 1 s"),
        ("closing", "connection failed: Remote end closed connection without response"),
        ("drip-head", "timeout: no complete answer within 1 s"),
        ("drip-body", "timeout: no complete answer within 1 s"),
        ("large-head", "the answer's head is larger than 65536 bytes on the wire"),
        ("flood-103", "more than 10 interim answers (1xx)"),
        ("http-0-9", "the answer is not HTTP/1: [1, 2]"),
        ("endless-error", "HTTP 500 nonono"),
        ("resetting", "the answer broke off: "),
        ("br-bomb", "the answer is encoded as br, which was not asked for"),
        ("redirect-loop", "HTTP 302"),
        ("to-metadata", "HTTP 302"),
    ],
)
def test_a_hostile_receiver_makes_the_attempt_fail(deliver: DeliverTo, name: str, reason: str) -> None:
    with server(ALL[name]) as receiver:
        delivery = deliver(receiver.url)

    assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 1)
    assert (delivery.last_error or "").startswith(reason)
    assert len(delivery.last_error or "") <= 260


@pytest.mark.parametrize("name", ["endless", "endless-chunks", "gzip-bomb"])
def test_an_endless_acknowledgement_is_read_only_in_part(deliver: DeliverTo, name: str) -> None:
    with server(ALL[name]) as receiver:
        assert deliver(receiver.url).status is DeliveryStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://10.0.0.1/", "not allowed: 10.0.0.1 is in a private network"),
        ("http://127.0.0.2:8080/", "not allowed: 127.0.0.2 is this machine (loopback)"),
        ("http://127.0.0.1:70000/", "not allowed: port 70000 (DATAHOG_OUTBOUND_PORTS can allow it)"),
    ],
)
def test_a_forbidden_destination_makes_the_attempt_fail(deliver: DeliverTo, url: str, reason: str) -> None:
    delivery = deliver(url)

    assert (delivery.status, delivery.attempts) == (DeliveryStatus.PENDING, 1)
    assert (delivery.last_error or "").startswith(reason)
