"""A link: a TCP proxy in front of a service or an engine, which cuts, delays, or loses responses when told to."""

import asyncio
import random
import threading

_HOST = "127.0.0.1"
# Seconds.
_DELAY = 0.4
# The share of responses that are lost. Some must pass, or the manner would be the same as a cut.
_LOST = 0.5
# Bytes.
_CHUNK = 65_536


class Link:
    """Forwards connections to a port of this machine while its block runs."""

    def __init__(self, upstream: int, seed: str) -> None:
        self._upstream = upstream
        self._rng = random.Random(seed)
        self._manner: str | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def disturb(self, manner: str) -> None:
        """Until `calm`, "cut" open and new connections, "delay" all data, or "lose responses" to received requests."""
        self._manner = manner
        if manner == "cut":
            self._loop.call_soon_threadsafe(self._cut)

    def calm(self) -> None:
        """Forward everything."""
        self._manner = None

    def __enter__(self) -> "Link":
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, _HOST, 0, backlog=512))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        forwarding = asyncio.all_tasks() - {asyncio.current_task()}
        for task in forwarding:
            task.cancel()
        await asyncio.gather(*forwarding, return_exceptions=True)

    def _cut(self) -> None:
        for writer in self._connections:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._manner != "cut":
                await self._forward(reader, writer)
        except OSError:
            return
        finally:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(_HOST, self._upstream)
        ends = {writer, far_writer}
        self._connections |= ends
        ways = [
            asyncio.ensure_future(self._pipe(reader, far_writer, responses=False)),
            asyncio.ensure_future(self._pipe(far_reader, writer, responses=True)),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            self._connections -= ends
            for way in ways:
                way.cancel()
            far_writer.transport.abort()

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, responses: bool) -> None:
        while data := await source.read(_CHUNK):
            if self._manner == "delay":
                await asyncio.sleep(_DELAY)
            if self._manner == "lose responses" and responses and self._rng.random() < _LOST:
                return
            sink.write(data)
            await sink.drain()
        # All written data leaves before the connection ends.
        sink.close()
        await sink.wait_closed()
