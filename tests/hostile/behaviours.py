"""Every hostile way to respond, each for a server of its own, with the reason that its attempt must end with."""

import gzip
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain, repeat

from tests.support.servers.stub import RawServer

Handle = Callable[[socket.socket], None]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
TO_THE_END = OK + b"\r\n"
# Seconds: the read timeout, and the timeout of the whole exchange.
READ, TOTAL = 0.8, 2
# Bytes: the largest body, and the size of a write.
LIMIT = 5_242_880
_PIECE = 65_536

_NO_ANSWER = f"timeout: no complete answer within {TOTAL:g} s"
_TOO_LARGE = f"the body is larger than {LIMIT} bytes"
_HEAD = "the answer's head is larger than 65536 bytes on the wire"
# The sizes of the pieces decide which of the two limits such a line exceeds first.
_LONG_LINE = (_HEAD, "connection failed: got more than 65536 bytes when reading ")
_WIRE = "the answer's body is larger than 7929856 bytes on the wire"
# The machine and its load decide which limit such a response exceeds first.
_BUSY = ("the answer takes more than 1.3 s of processor time to read", _WIRE, _NO_ANSWER)
_SMALL_PIECES = "the body comes in more than 1000 pieces of less than 16 bytes"
_NO_LENGTH = "the answer's Content-Length is no number"
_TOO_MANY = "HTTP 200 with a body that is of more than 500000 arrays and objects"
_NOT_JSON = "HTTP 200 with a body that is not JSON: "


@dataclass(frozen=True)
class Behaviour:
    """A server's way to handle a connection, and the beginning of the reason (or of each possible reason) to record.

    `fails`: the job fails at once, without another attempt.
    """

    handle: Handle
    reason: str | tuple[str, ...]
    fails: bool = False


def says(*parts: bytes) -> Handle:
    """Send the parts, and close."""

    def handle(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return handle


def floods(head: bytes, piece: bytes) -> Handle:
    """Send a head, then the same piece without end, as fast as the caller reads."""

    def handle(connection: socket.socket) -> None:
        block = piece * (1 + _PIECE // len(piece))
        for part in chain([head], repeat(block)):
            connection.sendall(part)

    return handle


def drips(head: bytes, parts: Iterable[bytes]) -> Handle:
    """Send a head, then a little at a time, each part within the read timeout."""
    parts = list(parts)

    def handle(connection: socket.socket) -> None:
        connection.sendall(head)
        for part in chain.from_iterable(repeat(parts)):
            connection.sendall(part)
            time.sleep(0.1)

    return handle


def resets(head: bytes) -> Handle:
    """Send a head, and reset the connection."""

    def handle(connection: socket.socket) -> None:
        connection.sendall(head)
        time.sleep(0.1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return handle


def encoded(coding: str, body: bytes) -> Handle:
    """Send a body with this Content-Encoding."""
    head = OK + f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return says(head, body)


def redirects(location: str) -> Handle:
    """Redirect to the location."""
    return says(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


def json_body(body: bytes) -> Handle:
    """Send a body as JSON, in a correct response."""
    return says(OK, f"Content-Length: {len(body)}\r\n\r\n".encode(), body)


@cache
def _bomb() -> bytes:
    """Two hundred megabytes of zeros, compressed to less than one."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    megabyte = bytes(1_000_000)
    return b"".join([*(packer.compress(megabyte) for _ in range(200)), packer.flush()])


def behaviours() -> Iterator[tuple[str, Behaviour]]:
    """All behaviours, each with a name that can be a provider's."""
    bomb = _bomb()
    yield "silent", Behaviour(lambda connection: time.sleep(5), f"timeout: nothing came for {READ:g} s")
    yield "closing", Behaviour(says(), "connection failed: Remote end closed connection without response")
    yield "drip-head", Behaviour(drips(b"", [b"H"]), _NO_ANSWER)
    yield "drip-headers", Behaviour(drips(OK, [b"X: y\r\n"]), _NO_ANSWER)
    yield "drip-body", Behaviour(drips(OK + b"Content-Length: 100000\r\n\r\n", [b"1"]), _NO_ANSWER)
    yield "drip-chunks", Behaviour(drips(CHUNKED, [b"1\r\n1\r\n"]), _NO_ANSWER)
    yield "drip-interim", Behaviour(drips(b"", [b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n"]), _NO_ANSWER)

    yield "long-header", Behaviour(floods(OK + b"X: ", b"y"), _LONG_LINE)
    yield "many-headers", Behaviour(floods(OK, b"X: y\r\n"), "connection failed: got more than 100 headers")
    yield "large-head", Behaviour(floods(OK, b"X: " + b"y" * 60_000 + b"\r\n"), _HEAD)
    yield "cookies", Behaviour(floods(OK, b"Set-Cookie: a=" + b"b" * 4000 + b"; Path=/\r\n"), _HEAD)
    yield "status-line", Behaviour(floods(b"HTTP/1.1 200 ", b"O"), _LONG_LINE)
    yield "flood-100", Behaviour(floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "more than 10 interim answers (1xx)")
    yield "flood-103", Behaviour(floods(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), "more than 10 interim answers (1xx)")
    yield "large-100", Behaviour(floods(b"", b"HTTP/1.1 100 C\r\nX: " + b"y" * 50_000 + b"\r\n\r\n"), _HEAD)
    yield (
        "upgrading",
        Behaviour(
            says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n[]"),
            "the answer is not HTTP/1: switching protocols",
        ),
    )
    yield "http-0-9", Behaviour(says(b"[1, 2]\n"), "the answer is not HTTP/1: [1, 2]")
    yield "http-0-9-line", Behaviour(says(b"HTTP/0.9 200 OK\r\n\r\n[]"), "the answer is not HTTP/1: HTTP/0.9")
    yield "http-2", Behaviour(says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 9), "the answer is not HTTP/1: ")
    yield "noise", Behaviour(floods(b"", bytes(range(256))), "the answer is not HTTP/1: ")

    yield "endless", Behaviour(floods(TO_THE_END, b"1"), _TOO_LARGE, fails=True)
    yield "endless-error", Behaviour(floods(b"HTTP/1.1 500 Oh\r\n\r\n", b"no"), "HTTP 500 nonono")
    yield "endless-chunks", Behaviour(floods(CHUNKED, b"400\r\n" + b"1" * 1024 + b"\r\n"), _TOO_LARGE, fails=True)
    yield (
        "tiny-chunks",
        Behaviour(floods(CHUNKED, b"1\r\n1\r\n"), _SMALL_PIECES),
    )
    yield (
        "empty-gzip-chunks",
        Behaviour(
            floods(
                OK
                + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\na\r\n"
                + gzip.compress(b"")[:10]
                + b"\r\n",
                b"5\r\n\x00\x00\x00\xff\xff\r\n",
            ),
            _SMALL_PIECES,
        ),
    )
    yield (
        "chunk-extensions",
        Behaviour(floods(CHUNKED, b"400;" + b"x" * 50_000 + b"\r\n" + b"1" * 1024 + b"\r\n"), _WIRE),
    )
    yield "long-chunk-size", Behaviour(floods(CHUNKED, b"0"), "the answer broke off: ")
    yield "wrong-chunk-size", Behaviour(says(CHUNKED, b"zz\r\n[1]"), "the answer broke off: ")
    yield "huge-chunk", Behaviour(floods(CHUNKED + b"f" * 16 + b"\r\n", b"1"), _TOO_LARGE, fails=True)
    yield "trailers", Behaviour(floods(CHUNKED + b"2\r\n[]\r\n0\r\n", b"X: y\r\n"), _BUSY)
    yield "no-last-chunk", Behaviour(says(CHUNKED, b"5\r\n[1, 2\r\n"), "the answer broke off: ")
    yield "long-length", Behaviour(says(OK, b"Content-Length: 100\r\n\r\n[1]"), "the answer broke off: ")
    yield "short-length", Behaviour(says(OK, b"Content-Length: 4\r\n\r\n[1, 2]"), _NOT_JSON)
    yield "two-lengths", Behaviour(says(OK, b"Content-Length: 2, 5\r\n\r\n[1, 2]"), "InvalidHeader: ")
    yield "huge-length", Behaviour(floods(OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", b"1"), _NO_LENGTH)
    for name, length in (("hex", b"0x6"), ("signed", b"+6"), ("negative", b"-6"), ("grouped", b"6_0"), ("no", b"")):
        yield f"{name}-length", Behaviour(says(OK, b"Content-Length: " + length + b"\r\n\r\n[1, 2]"), _NO_LENGTH)
    yield "resetting", Behaviour(resets(OK + b"Content-Length: 100\r\n\r\n[1, 2"), "the answer broke off: ")

    yield "gzip-bomb", Behaviour(encoded("gzip", bomb), _TOO_LARGE, fails=True)
    yield (
        "gzip-twice",
        Behaviour(encoded("gzip, gzip", gzip.compress(bomb)), "the answer is encoded as gzip, gzip, which"),
    )
    yield (
        "deflate-bomb",
        Behaviour(encoded("deflate", bomb), "the answer is encoded as deflate, which was not asked for"),
    )
    yield "br-bomb", Behaviour(encoded("br", bomb), "the answer is encoded as br, which was not asked for")
    yield "zstd-bomb", Behaviour(encoded("zstd", bomb), "the answer is encoded as zstd, which was not asked for")
    yield "no-gzip", Behaviour(encoded("gzip", b"[1, 2]"), "the answer cannot be decompressed: ")
    yield (
        "short-arrays",
        Behaviour(
            encoded("gzip", gzip.compress(b"[" + b"[]," * 1_700_000 + b"[]]")),
            _TOO_MANY,
        ),
    )
    yield "cut-gzip", Behaviour(encoded("gzip", gzip.compress(b"[1, 2]")[:-4]), "the answer cannot be decompressed: ")
    yield "gzip-and-more", Behaviour(encoded("gzip", gzip.compress(b"[1, 2]") + b"x"), "the answer cannot be decompr")
    yield "gzip-members", Behaviour(floods(OK + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")), _SMALL_PIECES)

    yield "not-utf-8", Behaviour(json_body(b'["\xff\xfe"]'), _NOT_JSON)
    yield "utf-16", Behaviour(json_body("[1]".encode("utf-16")), _NOT_JSON)
    yield "nan", Behaviour(json_body(b"[NaN]"), _NOT_JSON)
    yield "infinity", Behaviour(json_body(b"[-Infinity]"), _NOT_JSON)
    yield "huge-number", Behaviour(json_body(b"9" * 5_000_000), _NOT_JSON)
    yield "huge-exponent", Behaviour(json_body(b"[1e999999999]"), _NOT_JSON)
    yield "lone-surrogate", Behaviour(json_body(b'["\\ud800"]'), _NOT_JSON)
    yield (
        "deep",
        Behaviour(json_body(b"[" * 501 + b"]" * 501), "HTTP 200 with a body that is nested more than 500 levels deep"),
    )
    yield "bottomless", Behaviour(json_body(b"[" * 5_000_000), _TOO_MANY)
    yield "far-too-deep", Behaviour(json_body(b"[" * 400_000), _NOT_JSON)
    yield "deep-objects", Behaviour(json_body(b'{"a":' * 1_000_000), _TOO_MANY)

    yield "redirect-loop", Behaviour(redirects("/again"), "more than 5 redirects")
    yield (
        "to-metadata",
        Behaviour(
            redirects("http://169.254.169.254/latest"),
            "not allowed: 169.254.169.254 is link-local, where cloud metadata is",
        ),
    )
    yield "to-private", Behaviour(redirects("//10.0.0.1:6379/"), "not allowed: 10.0.0.1 is in a private network")
    yield "to-file", Behaviour(redirects("file:///etc/passwd"), "not allowed: file is neither http nor https")
    yield "to-octal", Behaviour(redirects("http://0177.0.0.1/"), "not allowed: write an IPv4 address as four decimal")
    yield (
        "to-nowhere",
        Behaviour(redirects("http://" + "a" * 60_000), "not allowed: a URL of more than 8192 characters"),
    )


def server(behaviour: Behaviour) -> RawServer:
    """A server with this behaviour; it ignores callers that hang up."""

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            behaviour.handle(connection)

    return RawServer(handle)
