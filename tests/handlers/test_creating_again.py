"""A repeated creation gives the accepted request, even when the same content would now be refused as new."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from datahog.bootstrap.wiring import Wiring
from handlers.access.callers import Caller
from handlers.aggregator import Aggregator
from handlers.problems import Problem
from handlers.request_checks import deadline_of
from outbound.egress_policy import EgressPolicy
from persistence.errors import Conflict
from persistence.records.request import SKEW
from persistence.records.timestamps import to_text, utc_now
from providers.model import Provider, Providers

_BODY = {"providers": ["gas"], "callbackUrl": "http://8.8.8.8/"}
_GAS = {"gas": Provider(url="http://gas.test/")}
_MONTH = timedelta(days=30)

Create = Callable[..., int]


class _Quota:
    """Replaces the quota of open requests, and refuses each request."""

    def count(self, caller: Caller, request_id: str) -> None:
        raise Problem("too-many-open-requests", "too many")


class _UnlimitedQuota(_Quota):
    def count(self, caller: Caller, request_id: str) -> None:
        """Accepts each request."""


@pytest.fixture
def create(wiring: Wiring) -> Create:
    """Creates the record `r1` at an aggregator with the given parts; returns the status."""

    def call(
        body: dict[str, Any] = _BODY,
        *,
        tenant: str = "ada",
        providers: Providers = _GAS,
        ports: str = "80",
        quota: _Quota | None = None,
        now: datetime | None = None,
    ) -> int:
        unused = cast(Any, None)
        aggregator = Aggregator(
            wiring.requests,
            wiring.deliveries,
            unused,
            unused,
            cast(Any, quota or _UnlimitedQuota()),
            wiring.queue,
            providers,
            EgressPolicy(ports=ports),
            unused,
            unused,
            default_deadline=3600,
            result_limit=1000,
            clock=lambda: now or utc_now(),
        )
        caller = Caller("key", tenant)
        status: int = aggregator.create_record(caller, "r1", body).status_code
        return status

    return call


_REFUSED_AS_NEW: dict[str, dict[str, Any]] = {
    "provider gone": {"providers": {}},
    "callback forbidden": {"ports": "443"},
    "quota full": {"quota": _Quota()},
    "deadline past": {"now": utc_now() + timedelta(days=1)},
}


@pytest.mark.parametrize("changes", _REFUSED_AS_NEW.values(), ids=_REFUSED_AS_NEW)
def test_repeated_content_is_accepted_where_new_is_refused(create: Create, changes: dict[str, Any]) -> None:
    body = _BODY | {"deadline": to_text(utc_now() + timedelta(hours=1))}
    with pytest.raises(Problem) as refused:
        create(body, **changes)

    assert create(body) == 201
    assert create(body, **changes) == 200
    with pytest.raises(Problem, match=str(refused.value)[:20]):
        create(body, **changes, tenant="bob")
    with pytest.raises(Conflict):
        create(body, tenant="bob")
    with pytest.raises(Problem):
        create(body | {"callbackUrl": "http://8.8.4.4/"}, **changes)


@pytest.mark.parametrize("behind", [timedelta(), SKEW])
def test_the_aggregator_accepts_the_clients_latest_deadline(behind: timedelta) -> None:
    now = utc_now()
    for ahead, accepted in ((timedelta(), True), (SKEW, True), (SKEW + timedelta(milliseconds=1), False)):
        body = {"deadline": to_text(now.replace(microsecond=0) + _MONTH + ahead)}
        at_client = now.replace(microsecond=0)
        if not accepted:
            with pytest.raises(Problem, match="within the next 30 days"):
                deadline_of(body, at_client, _MONTH)
            continue
        deadline = deadline_of(body, at_client, _MONTH)
        assert deadline_of(body, at_client - behind, _MONTH, clocks=2) == deadline


def test_a_clock_behind_accepts_the_longest_default() -> None:
    now = utc_now()
    deadline = deadline_of({}, now, _MONTH)

    deadline_of({"deadline": to_text(deadline)}, now - SKEW, _MONTH, clocks=2)


def test_a_past_deadline_is_reported_as_past() -> None:
    with pytest.raises(Problem, match="^deadline: has passed; must"):
        deadline_of({"deadline": to_text(utc_now() - timedelta(seconds=1))}, utc_now(), _MONTH)
