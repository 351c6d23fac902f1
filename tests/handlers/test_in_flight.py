"""In-flight guard: copies of a callback run one at a time; they wait without a thread, for a bounded time."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
import pytest

from handlers import in_flight
from handlers.client import Client
from handlers.in_flight import InFlight
from handlers.problems import Problem


class Storing:
    """Retrievals whose first store waits for `may_end`; `stored` lists the requests; the next store raises `error`."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun: list[str] = []
        self.stored: list[str] = []
        self.error: Exception | None = None

    def get(self, request_id: str) -> str:
        return request_id

    def receive(self, request_id: str, *_: object) -> bool:
        self.begun.append(request_id)
        if len(self.begun) == 1:
            assert self.may_end.wait(10)
        if self.error:
            error, self.error = self.error, None
            raise error
        self.stored.append(request_id)
        return len(self.stored) == 1


@pytest.fixture
def storing() -> Storing:
    return Storing()


@pytest.fixture
def post(storing: Storing) -> Callable[..., Awaitable[int]]:
    """Posts a callback to the client; returns the status."""
    client = Client(cast(Any, storing), *cast(Any, [None] * 6), default_deadline=1)

    async def send(request_id: str, size: int = 1) -> int:
        job = {"provider": "gas", "result": msgspec.Raw(b"1" * size)}
        body = {"requestId": request_id, "status": "COMPLETE", "jobs": [job]}
        status: int = (await client.receive_callback(request_id, body)).status_code
        return status

    return send


async def eventually(check: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


def test_a_copy_waits_for_the_first_and_is_acknowledged(storing: Storing, post: Callable[..., Awaitable[int]]) -> None:
    async def both() -> list[int]:
        first = asyncio.ensure_future(post("r1"))
        await eventually(lambda: storing.begun)
        second = asyncio.ensure_future(post("r1"))
        await asyncio.sleep(0.1)
        assert storing.begun == ["r1"]
        storing.may_end.set()
        return list(await asyncio.gather(first, second))

    assert asyncio.run(both()) == [204, 204]
    assert storing.stored == ["r1", "r1"]


def test_a_copy_is_stored_when_the_first_failed(storing: Storing, post: Callable[..., Awaitable[int]]) -> None:
    async def both() -> list[int | BaseException]:
        storing.error = ZeroDivisionError()
        first = asyncio.ensure_future(post("r1"))
        await eventually(lambda: storing.begun)
        second = asyncio.ensure_future(post("r1"))
        storing.may_end.set()
        return list(await asyncio.gather(first, second, return_exceptions=True))

    failed, acknowledged = asyncio.run(both())

    assert isinstance(failed, ZeroDivisionError)
    assert acknowledged == 204
    assert storing.stored == ["r1"]


def test_many_copies_leave_threads_to_other_requests(storing: Storing, post: Callable[..., Awaitable[int]]) -> None:
    async def all_of_them() -> list[int]:
        copies = [asyncio.ensure_future(post("r1")) for _ in range(200)]
        await eventually(lambda: storing.begun)
        async with asyncio.timeout(5):
            others = await asyncio.gather(*(post(f"other-{number}") for number in range(20)))
        assert not any(copy.done() for copy in copies)
        storing.may_end.set()
        return others + list(await asyncio.gather(*copies))

    assert asyncio.run(all_of_them()) == [204] * 220
    assert len(storing.stored) == 220


def test_waiting_too_long_gives_503_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "_SECONDS", 0.05)
    guard = InFlight()

    async def both() -> Problem:
        async with guard.alone("r1", 1):
            with pytest.raises(Problem) as refusal:
                async with guard.alone("r1", 1):
                    pass
            async with guard.alone("r2", 1):
                pass
        async with guard.alone("r1", 1):
            return refusal.value

    problem = asyncio.run(both())

    assert problem.status == 503
    assert int(problem.headers["Retry-After"]) >= 1


def test_a_large_result_may_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "_SECONDS", 0.05)
    guard = InFlight()

    async def both() -> None:
        async with guard.alone("r1", 1):
            second = asyncio.ensure_future(enter(guard, 100_000_000))
            await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await second

    asyncio.run(both())


def test_one_request_cannot_exceed_its_memory_budget() -> None:
    guard = InFlight()

    async def three() -> Problem:
        async with guard.alone("r1", 250_000_000):
            second = asyncio.ensure_future(enter(guard, 250_000_000))
            await asyncio.sleep(0)
            with pytest.raises(Problem) as refusal:
                await enter(guard, 1_000_000)
        async with asyncio.timeout(5):
            await second
            await enter(guard, 250_000_000)
        return refusal.value

    assert asyncio.run(three()).status == 503


async def enter(guard: InFlight, size: int) -> None:
    async with guard.alone("r1", size):
        pass


def test_a_cancelled_copy_leaves_the_others_waiting() -> None:
    guard = InFlight()

    async def all_of_them() -> None:
        async with guard.alone("r1", 1):
            gone, stays = (asyncio.ensure_future(enter(guard, 1)) for _ in range(2))
            await asyncio.sleep(0.01)
            gone.cancel()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await stays
        assert gone.cancelled()

    asyncio.run(all_of_them())
    assert guard._guards == {}
