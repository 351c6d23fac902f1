"""A scene: one failpoint of one system, with the steps and checks that scenes are made of."""

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from datahog.bootstrap.wiring import Wiring
from datahog.failpoints import Failpoint
from persistence.errors import Conflict
from persistence.records.request import DeliveryStatus
from persistence.records.timestamps import utc_now
from persistence.results.store import INLINE_LIMIT
from specs.operations import operations
from tests.support.load import accepted_callbacks
from tests.support.providers import path_of
from tests.support.servers.receiver import Answer, Call, Receiver
from tests.support.system import AUTHORIZED, System, eventually


@dataclass(frozen=True)
class Scene:
    """`armed` is the file from which the system's programs read the names of failpoints."""

    system: System
    receiver: Receiver
    failpoint: Failpoint
    armed: Path
    _called_before: dict[str, int] = field(default_factory=dict)

    @property
    def hook(self) -> str:
        """The receiver's path for the callback of this scene's request."""
        return f"/hooks/{self.failpoint.name}"

    def arm(self) -> None:
        """Let the program die at the failpoint from now on."""
        self.armed.write_text(self.failpoint.name)

    def provider(self, name: str, *answers: Answer) -> str:
        """Set a provider's responses; returns its name."""
        self._called_before[name] = len(self.receiver.calls(path_of(name)))
        self.receiver.answers(path_of(name), *answers or [Answer(200, body=b'{"amount": 22.27}')])
        return name

    def large(self) -> str:
        """The name of a provider whose result is so large that it is stored in parts."""
        return self.provider("steady", Answer(200, body=json.dumps(large_result()).encode()))

    def steady(self) -> str:
        """The name of a provider that responds at once."""
        return self.provider("steady")

    def failing(self) -> str:
        """The name of a provider that always fails."""
        return self.provider("failing", Answer(500, body=b"#fail"))

    def hand_over(self, *providers: str, **members: Any) -> str:
        """Create a request at the aggregator; returns its id."""
        return self.system.hand_over(*providers, callback_url=self.receiver.url(self.hook), **members)

    def soon(self) -> dict[str, str]:
        """A member `deadline` that is 1.5 s away."""
        return {"deadline": (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()}

    def is_cut_off(self, api: str, operation_id: str, arguments: Any = None, body: Any = None, **headers: str) -> None:
        """Call an operation, and assert that it gets no response."""
        with pytest.raises(requests.ConnectionError):
            self.call(api, operation_id, arguments, body, **headers)

    def call(
        self, api: str, operation_id: str, arguments: Any = None, body: Any = None, **headers: str
    ) -> requests.Response:
        """Call an operation, and return its response."""
        operation = operations(api)[operation_id]
        url = self.system.settings.api_urls[api] + operation.target(arguments or {})
        with requests.Session() as session:
            # Scenes run on threads, which cannot safely read the environment while pytest changes it.
            session.trust_env = False
            return session.request(operation.method, url, headers=AUTHORIZED | headers, json=body, timeout=20)

    def limited(self) -> dict[str, str]:
        """The header of a caller with a quota of open requests."""
        keys = Wiring(self.system.settings, {}).api_keys
        return {"Authorization": f"Bearer {keys.create(self.failpoint.name, ['requests:write'])}"}

    def empty_redis(self) -> None:
        """Empty Redis, and with it the queue."""
        with redis.Redis.from_url(self.system.settings.redis_url) as connection:
            connection.flushall()

    def undelivered(self) -> str:
        """Create a request at the client, and let its delivery fail while the client is away; returns its id."""
        request_id = self.system.ask(self.provider("slow", Answer(200, body=b"1", delay=1)))
        eventually(lambda: self.system.read(request_id)["submission"]["status"] == "ACCEPTED")
        self.system.kill("client")
        wiring = Wiring(self.system.settings, {})

        def is_given_up() -> bool:
            with suppress(Conflict):
                wiring.deliveries.attempt_failed(wiring.requests.get(request_id), "HTTP 410", None)
            return wiring.requests.get(request_id).delivery.status is DeliveryStatus.FAILED

        eventually(is_given_up)
        self.system.start("client")
        return request_id

    def have_asked_for(self, request_id: str) -> None:
        """Make the client's wait for the callback be over, so that a worker asks for the result."""
        retrievals = Wiring(self.system.settings, {}).retrievals
        retrievals.check_again(retrievals.get(request_id), utc_now())

    # The checks. Each waits until its outcome is there.

    def has_come_back(self, status: str = "COMPLETE") -> None:
        """Assert that the receiver has the result, under one webhook-id, and that the aggregator has recorded it."""
        first = json.loads(self._calls()[0].body)
        assert first["status"] == status
        self._is_settled(first["requestId"], status)
        assert len({call.webhook_id for call in self._calls()}) == 1
        assert len({call.body for call in self._calls()}) == 1

    def is_at_the_client(self, request_id: str, status: str = "COMPLETE") -> None:
        """Assert that the client has the whole result, and that the aggregator has recorded the delivery."""
        document = self.system.read_until_ended(request_id, 30)
        assert document["status"] == status
        assert all(("result" in job) is (job["status"] == "DONE") for job in document["jobs"])
        self._is_settled(request_id, status)
        assert accepted_callbacks(self.system)[request_id] <= 1

    def is_at_the_client_only(self, request_id: str) -> None:
        """Assert that the client has the result, although its delivery has failed."""
        document = self.system.read_until_ended(request_id, 30)
        assert (document["status"], document["jobs"][0]["result"]) == ("COMPLETE", 1)
        assert self.system.look(request_id)["delivery"]["status"] == "FAILED"
        assert accepted_callbacks(self.system)[request_id] == 0

    def _calls(self) -> list[Call]:
        """The whole calls: a worker that dies while it posts sends a part of one, which no receiver accepts."""
        return eventually(lambda: [c for c in self.receiver.calls(self.hook) if _is_whole(c)], 30)

    def _is_settled(self, request_id: str, status: str) -> None:
        record = eventually(lambda: (d := self.system.look(request_id))["delivery"]["status"] == "SUCCEEDED" and d)
        assert record["status"] == status
        for job in record["jobs"]:
            calls = len(self.receiver.calls(path_of(job["provider"])))
            assert job["attempts"] <= calls - self._called_before[job["provider"]]


def _is_whole(call: Call) -> bool:
    return len(call.body) == int(call.headers["Content-Length"])


def large_result() -> str:
    """A result that stays too large for the request's own item when compressed."""
    return secrets.token_hex(10 * INLINE_LIMIT)
