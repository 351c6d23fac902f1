"""An adapter for `requests` with a deadline and size limits, since the timeouts of `requests` restart at each byte."""

import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException, HTTPResponse, UnknownProtocol, parse_headers
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from outbound.connections import connect
from outbound.egress_policy import EgressPolicy

# The maximum size of a response's status line and headers, interim responses (1xx) included, plus one buffer.
_HEAD_BYTES = 65_536
# The maximum number of interim responses.
_MAX_INTERIM = 10
# The CPU time that reading a response may take: a fixed part, and a part in proportion to its size; a hundred times
# the usual. The limit ends responses that arrive fast and carry nothing, such as empty chunks, and keep a CPU busy.
_CPU_SECONDS, _BYTES_PER_CPU_SECOND = 0.5, 10_000_000
# A proxy may have joined several Content-Length headers into one; urllib3 checks that they are equal.
_LENGTHS = re.compile(r"[0-9]{1,18}(?:\s*,\s*[0-9]{1,18})*\s*", re.ASCII)
# The size of one `send`. TLS has records of this size, and a larger `send` would restart the timeout for each record.
_SEND_BYTES = 16_384

# The deadline and size of the current exchange; one thread makes an exchange from start to end.
_exchange = threading.local()


class ResponseTooLarge(HTTPException):
    """A response exceeds a limit on size or CPU time; the message names the limit."""


class NoLength(HTTPException):
    """A response has an invalid Content-Length, with which http.client would read to the end of the connection."""


@contextmanager
def within(seconds: float, size: int) -> Iterator[None]:
    """Limits the exchanges that this thread makes by a BoundedAdapter in this block to `seconds` in total.

    An exchange that takes longer raises the timeout errors of `requests`. Each response body may have at most `size`
    bytes on the wire, compressed and framed; a larger body raises ResponseTooLarge, and so does a head that is too
    large or a response that takes too much CPU time to read.
    """
    _exchange.ends = time.monotonic() + seconds
    _exchange.size = size
    try:
        yield
    finally:
        del _exchange.ends, _exchange.size


def _seconds_left(at_most: float | None) -> float:
    left: float = _exchange.ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left if at_most is None else min(left, at_most)


class _Reader(io.RawIOBase):
    """Reads from a socket within the exchange's deadline and size limits."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase) -> None:
        self._connection = connection
        self._raw = raw
        self._timeout = connection.gettimeout()
        # The CPU time is measured from here, without that of sending the request.
        self._processing = _CPU_SECONDS + _exchange.size / _BYTES_PER_CPU_SECOND
        self._processing_ends = time.thread_time() + self._processing
        self.allow("head", _HEAD_BYTES)

    def allow(self, part: str, size: int) -> None:
        """Allows `size` more bytes; `part` names that part of the response in an error."""
        self._part, self._size, self._left = part, size, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._left <= 0:
            raise ResponseTooLarge(f"the answer's {self._part} is larger than {self._size} bytes on the wire")
        if time.thread_time() > self._processing_ends:
            raise ResponseTooLarge(f"the answer takes more than {self._processing:.1f} s of processor time to read")
        self._connection.settimeout(_seconds_left(self._timeout))
        count: int | None = self._raw.readinto(buffer)
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _Reader(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        # RFC 9110, 8.6.
        if not all(map(_LENGTHS.fullmatch, self.headers.get_all("Content-Length", ()))):
            raise NoLength("the answer's Content-Length is no number")
        self._reader.allow("body", _exchange.size)

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips any number of 100s, and takes another interim response for the final one: it would then
        # read the final one as the response to the next request.
        for _ in range(1 + _MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not version.startswith("HTTP/1."):
                raise UnknownProtocol(version)
            if status >= 200:
                return version, status, reason
            if status == 101:  # the next bytes belong to another protocol
                raise UnknownProtocol("switching protocols, which was not asked for")
            parse_headers(self.fp)
        raise ResponseTooLarge(f"more than {_MAX_INTERIM} interim answers (1xx)")


class _Connection(HTTPConnection):
    response_class = _Response

    def __init__(self, *args: Any, outbound: EgressPolicy | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outbound = outbound

    def connect(self) -> None:
        self.timeout = _seconds_left(self.timeout)
        super().connect()

    def send(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _SEND_BYTES):
            if self.sock is not None:
                self.sock.settimeout(_seconds_left(self.timeout))
            super().send(view[start : start + _SEND_BYTES])

    def _new_conn(self) -> socket.socket:
        try:
            return connect(
                self._dns_host.strip("[]"),
                self.port,
                seconds=_seconds_left(self.timeout),
                outbound=self._outbound,
                options=self.socket_options or (),
            )
        except (socket.gaierror, UnicodeError) as error:
            raise NewConnectionError(self, f"{self.host}: no such host") from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection in time") from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error


class _TlsConnection(_Connection, HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError as error:
            # urllib3 would report an unfinished handshake as a read timeout.
            raise ConnectTimeoutError(self, "no handshake in time") from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class BoundedAdapter(HTTPAdapter):
    """Sends requests inside a `within` block; `outbound` is the egress policy, None allows all destinations."""

    def __init__(self, *, outbound: EgressPolicy | None, **options: Any) -> None:
        self._outbound = outbound
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Called by `requests`. Installs the pools of bounded connections."""
        super().init_poolmanager(*args, **kwargs)
        # A pool passes options that it does not know to its connections.
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(_Pool, outbound=self._outbound),
            "https": partial(_TlsPool, outbound=self._outbound),
        }
