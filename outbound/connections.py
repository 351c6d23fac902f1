"""Connects to a host by an address that was looked at first, and to no other, in the time that there is."""

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any

from outbound.egress_policy import Outbound

# Of a name with many addresses so many are tried.
_TRIED = 4

SocketOptions = Sequence[tuple[int, int, int | bytes]]


def connect(
    host: str, port: int, *, seconds: float, outbound: Outbound | None, options: SocketOptions
) -> socket.socket:
    """A socket connected to one of the host's addresses, all of which `outbound` allows.

    The name is looked up once and the very addresses that were checked are connected to, so that it cannot lead
    elsewhere a moment later (DNS rebinding). All of that together takes at most so many seconds.

    Raises NotAllowed, UnicodeError for a name that cannot be one, and OSError: TimeoutError, socket.gaierror ...
    """
    ends = time.monotonic() + seconds
    found = _look_up(host, port, seconds)
    if outbound is not None:
        for *_, address in found:
            outbound.check_address(ip_address(address[0]), host if host == address[0] else f"the address of {host}")
    return _first_to_answer(found[:_TRIED], ends, options)


def _look_up(host: str, port: int, seconds: float) -> list[Any]:
    """What `getaddrinfo` finds. It cannot be told to end: a name is looked up by a thread that may be left."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # a name
    found: Future[list[Any]] = Future()

    def ask() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return found.result(seconds)


def _first_to_answer(found: Sequence[Any], ends: float, options: SocketOptions) -> socket.socket:
    *others, last = found
    for one in others:
        try:
            # Half of the time is left for the next.
            return _connected(one, (ends - time.monotonic()) / 2, options)
        except OSError:
            continue
    return _connected(last, ends - time.monotonic(), options)


def _connected(found: Any, seconds: float, options: SocketOptions) -> socket.socket:
    family, kind, protocol, _, address = found
    made = socket.socket(family, kind, protocol)
    try:
        for option in options:
            made.setsockopt(*option)
        made.settimeout(max(seconds, 0.001))  # 0 would mean not to wait at all, and to fail in another way
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made
