"""The HTTP client: bounds each request in time, size and redirects, and reports each failure in one line."""

import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from http.client import BadStatusLine, RemoteDisconnected, UnknownProtocol
from urllib.parse import urljoin

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from outbound.bounded_body import BoundedAdapter, NoLength, ResponseTooLarge, within
from outbound.egress_policy import DestinationForbidden, EgressPolicy

USER_AGENT = "Datahog/1.0"
# Bytes. A text from another server is cut to this size before it goes into a record or a log line.
SHOWN = 200

_CHUNK_BYTES = 65_536
_MAX_REDIRECTS = 5
# The part that is read of a response without a 2xx status.
_START_BYTES = 65_536
# The one content coding that Datahog requests and decodes. urllib3 would accept others too, and several on top of one
# another, with which a few kilobytes keep a CPU busy for hours; and it would accept a truncated stream.
_CODING = "gzip"
_PACKED, _PLAIN = ("gzip", "x-gzip"), ("", "identity")
# zlib's `wbits` for a stream with a gzip header.
_GZIP_WBITS = 16 + zlib.MAX_WBITS
# A body may come in this number of pieces of any size; a body of more pieces must have this many bytes per piece.
_PIECES, _PIECE_BYTES = 1000, 16
# A redirect to another host keeps only these headers; a provider's own headers may be secrets.
_PUBLIC_HEADERS = ("Accept", "User-Agent")


class HttpError(Exception):
    """There is no complete response; the message gives the reason in at most about 250 characters."""


class BodyTooLarge(HttpError):
    """The response's body is larger than allowed."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds for connecting, between two reads, and for the whole exchange."""

    connect: float
    read: float
    total: float

    def with_more(self, seconds: float) -> "Timeouts":
        """Returns a copy in which a read and the whole exchange may take `seconds` longer."""
        return replace(self, read=self.read + seconds, total=self.total + seconds)


@dataclass(frozen=True)
class HttpResponse:
    """A complete HTTP response with a decompressed body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        return f"HTTP {self.status} {printable(self.body)}".rstrip()


class Http:
    """Sends requests over kept connections; `pool_size` limits those kept for one host. Safe for many threads.

    `outbound` is the egress policy for URLs and redirects; None allows all destinations, for peers that the settings
    name. `authorities` is a file of trusted certificates that replaces those of `requests`.

    It uses the adapter without a `requests.Session`, whose features are unwanted here: cookies of one job must not
    travel to another, the environment must not name a proxy, and the bodies of redirects are not read. A request
    without a session takes little more than half of the CPU time.
    """

    def __init__(self, *, pool_size: int, outbound: EgressPolicy | None = None, authorities: str | None = None) -> None:
        self._verify = authorities or True
        self._adapter = BoundedAdapter(outbound=outbound, pool_connections=64, pool_maxsize=pool_size, max_retries=0)
        # Jobs fetch the same providers again and again, so a check is made once for each URL.
        self._check = lru_cache(maxsize=1024)(outbound.check_url) if outbound else _anywhere
        self._redirects = requests.sessions.SessionRedirectMixin()

    def send(
        self,
        method: str,
        url: str,
        *,
        timeouts: Timeouts,
        limit: int,
        cut: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        redirects: bool = False,
    ) -> HttpResponse:
        """Sends a request and reads the whole response body, of at most `limit` bytes; with `cut` only its start.

        Of a response without a 2xx status only the start is read, because it only serves as an error text. On the wire
        a body may have half as many bytes more than `limit`, for its framing. `redirects` follows redirects.

        Raises HttpError, and BodyTooLarge for a body over the limit.
        """
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": _CODING, **(headers or {})}
        ends = time.monotonic() + timeouts.total
        try:
            with within(timeouts.total, limit + limit // 2 + _START_BYTES):
                for _ in range(1 + _MAX_REDIRECTS):
                    self._check(url)
                    request = _prepared(method, url, tuple(sent.items()), body)
                    timeout = (timeouts.connect, timeouts.read)
                    with self._adapter.send(request, stream=True, timeout=timeout, verify=self._verify) as response:
                        if not (redirects and response.is_redirect):
                            content = _read(response, limit, cut=cut)
                            return HttpResponse(response.status_code, CaseInsensitiveDict(response.headers), content)
                    target = urljoin(url, response.headers["Location"])
                    if self._redirects.should_strip_auth(url, target):  # type: ignore[no-untyped-call]
                        sent = {name: value for name, value in sent.items() if name in _PUBLIC_HEADERS}
                    url = target
                raise HttpError(f"more than {_MAX_REDIRECTS} redirects")
        except DestinationForbidden as refused:
            raise HttpError(str(refused)) from refused
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise HttpError(_reason(error, timeouts, late=time.monotonic() >= ends)) from error


@lru_cache(maxsize=1024)
def _without_body(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> requests.PreparedRequest:
    return requests.Request(method, url, headers=dict(headers)).prepare()


def _prepared(
    method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes | None
) -> requests.PreparedRequest:
    # A provider gets the same request again and again, and an adapter does not change a request without body.
    if body is None:
        return _without_body(method, url, headers)
    return requests.Request(method, url, headers=dict(headers), data=body).prepare()


def printable(data: bytes) -> str:
    """Returns the start of some bytes as text that is safe in a log: one line without control characters."""
    text = data[:SHOWN].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _anywhere(url: str) -> None:
    """Allows each URL; the check of a client without an egress policy."""


def _read(response: requests.Response, limit: int, *, cut: bool) -> bytes:
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _PACKED + _PLAIN:
        raise HttpError(f"the answer is encoded as {printable(coding.encode())[:50]}, which was not asked for")
    if not 200 <= response.status_code < 300:
        limit, cut = min(limit, _START_BYTES), True
    content = bytearray()
    chunks = response.raw.stream(_CHUNK_BYTES, decode_content=False)
    for number, chunk in enumerate(_unpacked(chunks) if coding in _PACKED else chunks):
        content += chunk
        if len(content) > limit:
            if cut:
                del content[limit:]
                break
            raise BodyTooLarge(f"the body is larger than {limit} bytes")
        if number > _PIECES + len(content) // _PIECE_BYTES:
            raise HttpError(f"the body comes in more than {_PIECES} pieces of less than {_PIECE_BYTES} bytes")
    return bytes(content)


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the content of one or more gzip members (RFC 1952, 2.2). Raises HttpError for other or truncated data."""
    member = None
    for chunk in chunks:
        while chunk:
            member = member or zlib.decompressobj(_GZIP_WBITS)
            try:
                yield member.decompress(chunk, _CHUNK_BYTES)
            except zlib.error as error:
                raise HttpError(f"the answer cannot be decompressed: {error}") from error
            chunk = member.unconsumed_tail or member.unused_data
            if member.eof:
                member = None
    if member:
        yield member.flush()
        if member.eof:
            return
        raise HttpError("the answer cannot be decompressed: it ends before its end")


def _reason(error: Exception, timeouts: Timeouts, *, late: bool) -> str:
    causes = _causes(error)
    if refused := next((cause for cause in causes if isinstance(cause, ResponseTooLarge | NoLength)), None):
        return str(refused)
    root = printable(str(causes[-1]).encode("utf-8", "replace")) or type(causes[-1]).__name__
    if any(isinstance(cause, TimeoutError | requests.Timeout) for cause in causes):
        if late:
            return f"timeout: no complete answer within {timeouts.total:g} s"
        if isinstance(error, requests.ConnectTimeout):
            return f"timeout: no connection within {timeouts.connect:g} s"
        return f"timeout: nothing came for {timeouts.read:g} s"
    if isinstance(causes[-1], BadStatusLine | UnknownProtocol) and not isinstance(causes[-1], RemoteDisconnected):
        return f"the answer is not HTTP/1: {root}"
    match error:
        case requests.exceptions.SSLError():
            return f"TLS: {root}"
        case urllib3.exceptions.ProtocolError():
            return f"the answer broke off: {root}"
        case requests.ConnectionError():
            return f"connection failed: {root}"
        case _:
            return f"{type(error).__name__}: {root}"


def _causes(error: BaseException | None) -> list[BaseException]:
    """Returns the exception and its causes, outermost first; requests and urllib3 wrap one another several times."""
    causes = []
    while isinstance(error, BaseException):
        causes.append(error)
        error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
    return causes
