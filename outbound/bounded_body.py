"""An adapter for `requests` that ends on time and on size: its own timeouts begin anew with every byte that comes."""

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
from outbound.egress_policy import Outbound

# Bytes of an answer's status line and headers, and of all interim answers (1xx) before it, give or take a buffer.
_HEAD = 65_536
_INTERIM = 10
# Seconds of processor time that reading an answer may take, and bytes that may take one more: a hundred times what they
# need. It ends what comes fast and amounts to nothing, such as empty chunks, and would occupy the whole process.
_PROCESSING, _PROCESSED = 0.5, 10_000_000
# Whoever is in between may have put several into one line; they must then be the same, which urllib3 looks after.
_LENGTHS = re.compile(r"[0-9]{1,18}(?:\s*,\s*[0-9]{1,18})*\s*", re.ASCII)
# Bytes sent at a time. TLS sends in records of this size, and would take the timeout anew for each.
_PIECE = 16_384

# An exchange is made by one thread from its start to its end, so that is where its end is known.
_exchange = threading.local()


class Excess(HTTPException):
    """More came than an answer may have; the message says of what."""


class NoLength(HTTPException):
    """The answer gives a length that is none: http.client would read on to the end of the connection."""


@contextmanager
def within(seconds: float, size: int) -> Iterator[None]:
    """Whatever this thread sends and reads by a BoundedAdapter in this block ends after so many seconds.

    What takes longer raises what the timeouts of `requests` raise. Of the body of each answer `size` bytes are read off
    the wire, compressed and framed as they come: more raises Excess, as does too large a head, or an answer that takes
    too much processor time to read.
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
    """Reads from a socket, each time for no longer than the exchange has left, and no more than allowed."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase) -> None:
        self._connection = connection
        self._raw = raw
        self._timeout = connection.gettimeout()
        # Counted from here: sending a large body takes its time, too.
        self._processing = _PROCESSING + _exchange.size / _PROCESSED
        self._processing_ends = time.thread_time() + self._processing
        self.allow("head", _HEAD)

    def allow(self, part: str, size: int) -> None:
        """From now on read at most so many bytes, which are of that part of the answer."""
        self._part, self._size, self._left = part, size, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._left <= 0:
            raise Excess(f"the answer's {self._part} is larger than {self._size} bytes on the wire")
        if time.thread_time() > self._processing_ends:
            raise Excess(f"the answer takes more than {self._processing:.1f} s of processor time to read")
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
        # http.client skips 100 only, without end, and takes other interim answers for the answer: what came next on
        # the connection would be the answer to another request.
        for _ in range(1 + _INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not version.startswith("HTTP/1."):
                raise UnknownProtocol(version)
            if status >= 200:
                return version, status, reason
            if status == 101:  # what follows is of another protocol
                raise UnknownProtocol("switching protocols, which was not asked for")
            parse_headers(self.fp)
        raise Excess(f"more than {_INTERIM} interim answers (1xx)")


class _Connection(HTTPConnection):
    response_class = _Response

    def __init__(self, *args: Any, outbound: Outbound | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outbound = outbound

    def connect(self) -> None:
        self.timeout = _seconds_left(self.timeout)
        super().connect()

    def send(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            if self.sock is not None:
                self.sock.settimeout(_seconds_left(self.timeout))
            super().send(view[start : start + _PIECE])

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
            # urllib3 would take a handshake that does not end for a slow answer.
            raise ConnectTimeoutError(self, "no handshake in time") from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class BoundedAdapter(HTTPAdapter):
    """Sends what is sent `within` a time, and where `outbound` allows; without, anywhere."""

    def __init__(self, *, outbound: Outbound | None, **options: Any) -> None:
        self._outbound = outbound
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Called by `requests`."""
        super().init_poolmanager(*args, **kwargs)
        # What a pool does not know is for its connections.
        self.poolmanager.pool_classes_by_scheme = {
            "http": partial(_Pool, outbound=self._outbound),
            "https": partial(_TlsPool, outbound=self._outbound),
        }
