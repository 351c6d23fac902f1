"""The world around a system under test: slow providers and callback receivers, which record their times."""

import asyncio
import time
from typing import Self, cast

import httptools
import orjson

HOST = "127.0.0.1"

_BILLS = orjson.dumps(
    [
        {"billedOn": "2020-04-07T15:03:14.257Z", "amount": 22.27},
        {"billedOn": "2020-05-07T15:03:14.257Z", "amount": 30},
    ]
)
_RESULT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_BILLS), _BILLS)
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class World:
    """Serves `GET /providers/<name>` and `POST /callbacks/<id>` from the benches' own event loop.

    Times are those of `time.monotonic`.
    """

    def __init__(self, *, latency: float) -> None:
        self.latency = latency
        """Seconds that a provider takes to respond."""
        self.answered: dict[str, float] = {}
        """The time of each provider's last response."""
        self.received: dict[str, float] = {}
        """The time of each callback's first arrival."""
        self.wrong = 0
        """The number of callbacks without the results of all jobs."""
        self._expected = 0
        self._enough = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Exchange(self), HOST, 0, backlog=4096)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def providers_url(self) -> str:
        """The URL to which a provider's name is appended."""
        return f"{self.url}/providers"

    def callback_url(self, callback_id: str) -> str:
        """The URL that receives the callback of that id."""
        return f"{self.url}/callbacks/{callback_id}"

    def forget(self) -> None:
        """Forget all responses and callbacks."""
        self.answered.clear()
        self.received.clear()
        self.wrong = 0

    async def until_received(self, count: int, *, seconds: float) -> None:
        """Wait up to `seconds` for `count` callbacks in all. Raises TimeoutError; AssertionError if one is wrong."""
        self._expected = count
        self._enough.clear()
        try:
            if len(self.received) < count:
                await asyncio.wait_for(self._enough.wait(), seconds)
        except TimeoutError:
            raise TimeoutError(f"{len(self.received)} of {count} callbacks came within {seconds:g} s") from None
        if self.wrong:
            raise AssertionError(f"{self.wrong} callbacks lacked results")

    def receive(self, callback_id: str, body: bytes) -> None:
        """Record and check a callback."""
        self.received.setdefault(callback_id, time.monotonic())
        self.wrong += not all(job["status"] == "DONE" and job["result"] for job in orjson.loads(body)["jobs"])
        if len(self.received) >= self._expected:
            self._enough.set()


class _Exchange(asyncio.Protocol):
    """One connection, kept alive; its callers do not pipeline."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Each event loop has its own class for TCP transports.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        kind, *rest = self._url.decode().strip("/").split("/")
        if kind == "callbacks":
            self._world.receive(rest[0], self._body)
            self._transport.write(_NO_CONTENT)
        else:
            asyncio.get_running_loop().call_later(self._world.latency, self._answer, rest[0])

    def _answer(self, provider: str) -> None:
        self._world.answered[provider] = time.monotonic()
        if not self._transport.is_closing():
            self._transport.write(_RESULT)
