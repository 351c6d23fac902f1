"""Generates the load: HTTP requests over kept connections, one after the other or at a steady rate."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools


@dataclass(frozen=True)
class Sent:
    """One request: the status of its response, and the seconds it took."""

    status: int
    seconds: float


class Connection(asyncio.Protocol):
    """A connection that sends one request after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[int] | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Each event loop has its own class for TCP transports.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._parser = httptools.HttpResponseParser(self)
        if self._answer is not None:
            self._answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))

    async def send(self, head: bytes, body: bytes) -> Sent:
        """Send a request; `head` is without Content-Length. Raises OSError."""
        started = time.monotonic()
        self._answer = self._loop.create_future()
        self.transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        status = await self._answer
        return Sent(status, time.monotonic() - started)


class Poster:
    """Posts JSON bodies to one URL over `connections` connections."""

    def __init__(self, url: str, *, connections: int, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        lines = {"Host": parts.netloc, "Content-Type": "application/json", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._head = f"POST {parts.path or '/'} HTTP/1.1\r\n{head}".encode()
        self._connections = connections
        # Last in, first out: servers close connections that are idle for seconds.
        self._idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()

    async def __aenter__(self) -> "Poster":
        for _ in range(self._connections):
            self._idle.put_nowait(await self._connect())
        return self

    async def __aexit__(self, *_: object) -> None:
        while not self._idle.empty():
            self._idle.get_nowait().transport.close()

    async def post(self, body: bytes) -> Sent:
        """Post one body as soon as a connection is free. Raises OSError."""
        connection = await self._idle.get()
        try:
            if connection.transport.is_closing():
                connection = await self._connect()
            return await connection.send(self._head, body)
        finally:
            self._idle.put_nowait(connection)

    async def flood(self, bodies: Iterable[bytes]) -> list[Sent]:
        """Post all bodies; each connection posts the next as soon as it has its response."""
        left = iter(bodies)
        sent: list[Sent] = []

        async def one_after_the_other() -> None:
            for body in left:
                sent.append(await self.post(body))

        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(one_after_the_other())
        return sent

    async def pace(self, bodies: Iterable[bytes], *, rate: float) -> list[Sent]:
        """Post `rate` bodies a second, whether or not earlier ones have responses."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for number, body in enumerate(bodies):
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                tasks.append(group.create_task(self.post(body)))
        return [task.result() for task in tasks]

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _transport, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection


def all_accepted(sent: Iterable[Sent]) -> list[float]:
    """The seconds of each request. Raises AssertionError when one was refused."""
    refused = sorted({answer.status for answer in sent if not 200 <= answer.status < 300})
    if refused:
        raise AssertionError(f"requests were refused with {refused}")
    return [answer.seconds for answer in sent]
