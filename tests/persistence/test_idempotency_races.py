"""Idempotency keys under every order of events: one key makes one request, also if callers stall, die or are refused.

Hypothesis generates the events. Callers use the same key and body. Each caller that claims the key may stall at any
step, for longer than its claim lasts, and may then still make its request, be refused, or never continue.

`DATAHOG_TEST_EXAMPLES=1000 pytest tests/persistence/test_idempotency_races.py` searches for longer.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from datahog.bootstrap.connections import dynamodb_client
from datahog.settings import Settings
from persistence.errors import KeyReused, KeyUnderWay
from persistence.idempotency_keys import UNDER_WAY, Claim, IdempotencyKeys
from tests.support.repositories import Repositories, lose_one_answer

_BODY, _OTHER = {"providers": ["gas"]}, {"providers": ["water"]}
_EXAMPLES = int(os.environ.get("DATAHOG_TEST_EXAMPLES", "60"))

pytestmark = pytest.mark.timeout(_EXAMPLES * 10 + 120)


class _Callers(RuleBasedStateMachine):
    """The callers of one key: `holding` has the claims without a request, `made` those whose request is stored."""

    repositories: Repositories
    numbers: Iterator[int] = iter(range(10**9))

    def __init__(self) -> None:
        super().__init__()
        self.key = f"key-{next(self.numbers)}"
        self.keys: IdempotencyKeys = self.repositories.keys
        self.holding: list[Claim] = []
        self.made: list[Claim] = []
        self.requests: set[str] = set()
        self.responses: set[str] = set()
        self.came = 0

    @initialize(own_id=st.sampled_from([None, None, "own"]))
    def begin(self, own_id: str | None) -> None:
        """The body names the request's id, or leaves it to Datahog."""
        self.own_id = own_id

    @rule(stalled=st.booleans(), lost=st.sampled_from([False, False, False, True]))
    def come(self, stalled: bool, lost: bool) -> None:
        """A caller claims the key, perhaps after all claims ran out; the response to the first write may be lost."""
        if stalled:
            self.repositories.clock.advance(seconds=UNDER_WAY.total_seconds())
        self.came += 1
        if lost:
            lose_one_answer(self.repositories.dynamodb, "PutItem")
        request_id = self.own_id or f"r{self.came}"
        try:
            claim = self.keys.claim(self.key, _BODY, request_id)
        except KeyUnderWay:
            return
        if claim.answer is None:
            self.holding.append(claim)
        else:
            assert claim.answer == {"requestId": claim.request_id}
            self.responses.add(claim.request_id)

    @rule()
    def come_with_another_body(self) -> None:
        """The key refuses another body as long as a request exists for it."""
        if not self.requests:
            return
        with pytest.raises(KeyReused):
            self.keys.claim(self.key, _OTHER, "other")

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        """A caller stores its request, which may exist already."""
        claim = self._one_of(self.holding, data)
        self.requests.add(claim.request_id)
        self.made.append(claim)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def respond(self, data: st.DataObject) -> None:
        """A caller that has made the request stores its response."""
        claim = self._one_of(self.made, data)
        self.responses.add(claim.request_id)
        self.keys.answered(claim, {"requestId": claim.request_id})

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def be_refused(self, data: st.DataObject) -> None:
        """A caller's request is refused: its deadline has passed meanwhile, or too many requests are open."""
        self.keys.release(self._one_of(self.holding, data))

    @invariant()
    def one_request(self) -> None:
        """All callers made one request, and all responses name it."""
        assert len(self.requests) <= 1
        assert self.responses <= self.requests

    def teardown(self) -> None:
        """A last caller claims the key and still gets that one request."""
        self.repositories.clock.advance(seconds=UNDER_WAY.total_seconds())
        claim = self.keys.claim(self.key, _BODY, "last")
        assert self.requests <= {claim.request_id}
        self.repositories.clock.advance(hours=25)

    @staticmethod
    def _one_of(claims: list[Claim], data: st.DataObject) -> Claim:
        return claims.pop(data.draw(st.integers(0, len(claims) - 1)))


def test_one_key_makes_one_request_in_any_order_of_events(dynamodb_url: str) -> None:
    client: Any = dynamodb_client(Settings(dynamodb_endpoint_url=dynamodb_url), {})

    class Callers(_Callers):
        repositories = Repositories(client)

    run_state_machine_as_test(
        Callers,
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=20,
            deadline=None,
            derandomize="DATAHOG_TEST_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
