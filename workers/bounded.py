"""An adapter for `requests` that ends on time: its own timeouts begin anew with every byte that comes."""

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError

# An exchange is made by one thread from its start to its end, so that is where its end is known.
_exchange = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever this thread sends and reads by a BoundedAdapter in this block ends after so many seconds.

    What takes longer raises what the timeouts of `requests` raise. Looking up a host's name is not bounded.
    """
    _exchange.ends = time.monotonic() + seconds
    try:
        yield
    finally:
        del _exchange.ends


def _seconds_left(at_most: float | None) -> float:
    left: float = _exchange.ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left if at_most is None else min(left, at_most)


class _Reader(io.RawIOBase):
    """Reads from a socket, each time for no longer than the exchange has left."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase) -> None:
        self._connection = connection
        self._raw = raw
        self._timeout = connection.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_seconds_left(self._timeout))
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reader(sock, self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Response

    def connect(self) -> None:
        self.timeout = _seconds_left(self.timeout)
        super().connect()


class _TlsConnection(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        self.timeout = _seconds_left(self.timeout)
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
    """Sends what is sent `within` a time."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Called by `requests`."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
