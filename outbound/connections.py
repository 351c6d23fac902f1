"""Connects to a host at an address that the egress policy has checked, within a time limit."""

import socket
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any

from outbound.egress_policy import EgressPolicy

# The maximum number of addresses of one name that are tried.
_MAX_ADDRESSES = 4

SocketOptions = Sequence[tuple[int, int, int | bytes]]


def connect(
    host: str, port: int, *, seconds: float, outbound: EgressPolicy | None, options: SocketOptions
) -> socket.socket:
    """Returns a socket that is connected to one of the host's addresses; `outbound` must allow all of them.

    The name is resolved once, and the connection goes to a checked address, so that the name cannot point elsewhere
    a moment later (DNS rebinding). Resolving and connecting take at most `seconds` together.

    Raises DestinationForbidden, UnicodeError for an impossible name, and OSError: TimeoutError, socket.gaierror ...
    """
    ends = time.monotonic() + seconds
    found = _look_up(host, port, seconds)
    if outbound is not None:
        for *_, address in found:
            outbound.check_address(ip_address(address[0]), host if host == address[0] else f"the address of {host}")
    return _first_to_answer(found[:_MAX_ADDRESSES], ends, options)


def _look_up(host: str, port: int, seconds: float) -> list[Any]:
    """Returns the result of `getaddrinfo`. It has no timeout, so a thread makes the call and may be abandoned."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # the host is a name, not an address
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
            # Half of the remaining time is left for the next address.
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
        made.settimeout(max(seconds, 0.001))  # 0 would make the socket non-blocking
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made
