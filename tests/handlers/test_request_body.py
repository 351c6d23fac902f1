"""Bodies: each has a deadline; a large one is read only when it is expected and within the memory budget."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from handlers.middleware import request_body
from handlers.middleware.request_body import DEFAULT_LIMIT, Body
from handlers.problems import Problem
from persistence.errors import NotFound

_LARGE = DEFAULT_LIMIT + 1


class Check:
    """Accepts every body; expects none if `unknown`."""

    unknown = False

    async def expect(self, arguments: Mapping[str, Any]) -> None:
        assert arguments == {"request_id": "a"}
        if self.unknown:
            raise NotFound("no request a")

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        pass


def _scope(length: int | None = None) -> dict[str, Any]:
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return {"type": "http", "headers": headers, "extensions": {"connexion_context": {"request_id": "a"}}}


def _body(check: Check | None = None) -> Body:
    return Body("receiveCallback", {}, limit=2 * _LARGE, check=check)


async def _sent() -> Any:
    return {"type": "http.request", "body": b"1"}


async def _never() -> Any:
    raise AssertionError("the body was read")


async def _status(body: Body, length: int | None, receive: Any) -> int:
    try:
        async with body.read(_scope(length), receive):
            return 200
    except Problem as problem:
        return problem.status


def test_a_stalled_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_PATIENCE", 0.01)

    async def silent() -> Any:
        await asyncio.Event().wait()

    assert asyncio.run(_status(_body(), 1, silent)) == 408


def test_a_dripping_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_PATIENCE", 0.5)
    left = iter(range(200))

    async def drip() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": next(left, None) is not None}

    assert asyncio.run(_status(_body(), 1000, drip)) == 408


def test_an_unexpected_large_body_is_not_read() -> None:
    check = Check()
    check.unknown = True

    for length in (_LARGE, None):
        with pytest.raises(NotFound):
            asyncio.run(_status(_body(check), length, _never))
    # A small body costs less to read than a lookup.
    assert asyncio.run(_status(_body(check), DEFAULT_LIMIT, _sent)) == 200


def test_large_bodies_are_limited_and_small_ones_always_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "_LARGE_AT_ONCE", 2 * _LARGE)
    body = _body(Check())

    async def play() -> list[int]:
        async with AsyncExitStack() as held:
            for _ in range(2):
                await held.enter_async_context(body.read(_scope(_LARGE), _sent))
            full = [await _status(body, length, _never) for length in (_LARGE, None)]
            small = await _status(body, DEFAULT_LIMIT, _sent)
        return [*full, small, await _status(body, _LARGE, _sent), await _status(body, None, _sent)]

    assert asyncio.run(play()) == [503, 503, 200, 200, 200]


def _parsed(operation_id: str, schema: dict[str, Any], text: bytes, check: Check | None = None) -> Any:
    async def sent() -> Any:
        return {"type": "http.request", "body": text}

    async def play() -> Any:
        scope = _scope()
        async with Body(operation_id, schema, check=check).read(scope, sent):
            return scope["extensions"]["connexion_context"]["body"]

    return asyncio.run(play())


def test_an_invalid_signed_body_logs_an_error(caplog: pytest.LogCaptureFixture) -> None:
    schema = {"properties": {"url": {"type": "string", "format": "uri"}}}

    for text, fault in ((b'{"url": "http://x/{id}"}', "body at url: "), (b"{", "the body is not JSON: ")):
        caplog.clear()
        with pytest.raises(Problem, match=fault):
            _parsed("receiveCallback", schema, text, Check())
        [alarm] = caplog.records
        assert alarm.levelname == "ERROR"
        assert alarm.message.startswith("receiveCallback: a signed body is refused, and its results are not kept: ")
        assert fault in alarm.message


def test_an_invalid_unsigned_body_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Problem):
        _parsed("createRequest", {"type": "string"}, b"1")

    assert caplog.records == []


@pytest.mark.parametrize("operation_id", ["createRequest", "updateJob"])
def test_a_number_of_thousands_of_digits_is_refused(operation_id: str) -> None:
    for text in (b'{"a": %s, "a": 1}', b'{"a": -%s}', b'{"a": 1.%s}', b'{"a": 1e-%s}'):
        with pytest.raises(Problem) as refused:
            _parsed(operation_id, {"required": ["b"]}, text % (b"1" * 5000))
        assert refused.value.status == 400
