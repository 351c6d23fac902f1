"""The outgoing HTTP session: every request bounded in time, size and redirects, every failure told in one line."""

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

from outbound.bounded_body import BoundedAdapter, Excess, NoLength, within
from outbound.egress_policy import NotAllowed, Outbound

USER_AGENT = "Datahog/1.0"
# A text in a record or a log line; what another server sent is cut to this.
SHOWN = 200

_CHUNK = 65_536
_REDIRECTS = 5
# Bytes of an answer that is no success.
_START = 65_536
# The one coding that is asked for, and taken apart here: urllib3 would take others too, and several on top of one
# another, of which a few kilobytes can keep a processor busy for hours; and what it takes may break off.
_CODING = "gzip"
_PACKED, _PLAIN = ("gzip", "x-gzip"), ("", "identity")
_GZIP = 16 + zlib.MAX_WBITS
# A body may come in so many pieces however small they are; those of more have so many bytes on average, or more.
_PIECES, _PIECE = 1000, 16
# What a redirect to another host gets to see; a provider's own headers may be secrets.
_PUBLIC_HEADERS = ("Accept", "User-Agent")


class HttpError(Exception):
    """No complete answer came; the message says why in at most about 250 characters."""


class BodyTooLarge(HttpError):
    """The answer's body is larger than allowed."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds to connect, between two reads, and for the whole exchange."""

    connect: float
    read: float
    total: float

    def with_more(self, seconds: float) -> "Timeouts":
        """The same, but for an answer that may take so much longer."""
        return replace(self, read=self.read + seconds, total=self.total + seconds)


@dataclass(frozen=True)
class Answer:
    """A complete HTTP answer, its body decompressed."""

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
    """Sends requests over kept connections; `pool_size` bounds those kept for one host. Safe for many threads.

    It goes where `outbound` allows, redirects included; without, anywhere, which is for peers named by the settings.
    `authorities` is a file of the certificates that vouch for servers, instead of those that `requests` brings along.

    What a `requests.Session` adds to its adapter is nothing that is wanted here: cookies of one answer must not travel
    with the request of another job, the environment names no proxy, and the bodies of redirects are not read. Without
    it a request takes little more than half of the CPU.
    """

    def __init__(self, *, pool_size: int, outbound: Outbound | None = None, authorities: str | None = None) -> None:
        self._verify = authorities or True
        self._adapter = BoundedAdapter(outbound=outbound, pool_connections=64, pool_maxsize=pool_size, max_retries=0)
        # The same providers are asked again and again.
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
    ) -> Answer:
        """Send a request and read the whole answer, of at most `limit` bytes; with `cut`, no more than its start.

        Of an answer that is no success only the start is read in any case: people look at it, nobody else does.
        Any answer may take half as much again as `limit` on the wire, for its framing, before it is broken off.

        Raises HttpError.
        """
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": _CODING, **(headers or {})}
        ends = time.monotonic() + timeouts.total
        try:
            with within(timeouts.total, limit + limit // 2 + _START):
                for _ in range(1 + _REDIRECTS):
                    self._check(url)
                    request = _prepared(method, url, tuple(sent.items()), body)
                    timeout = (timeouts.connect, timeouts.read)
                    with self._adapter.send(request, stream=True, timeout=timeout, verify=self._verify) as response:
                        if not (redirects and response.is_redirect):
                            content = _read(response, limit, cut=cut)
                            return Answer(response.status_code, CaseInsensitiveDict(response.headers), content)
                    target = urljoin(url, response.headers["Location"])
                    if self._redirects.should_strip_auth(url, target):  # type: ignore[no-untyped-call]
                        sent = {name: value for name, value in sent.items() if name in _PUBLIC_HEADERS}
                    url = target
                raise HttpError(f"more than {_REDIRECTS} redirects")
        except NotAllowed as refused:
            raise HttpError(str(refused)) from refused
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise HttpError(_reason(error, timeouts, late=time.monotonic() >= ends)) from error


@lru_cache(maxsize=1024)
def _without_body(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> requests.PreparedRequest:
    return requests.Request(method, url, headers=dict(headers)).prepare()


def _prepared(
    method: str, url: str, headers: tuple[tuple[str, str], ...], body: bytes | None
) -> requests.PreparedRequest:
    # A provider is asked the same again and again, and an adapter does not change what it sends.
    if body is None:
        return _without_body(method, url, headers)
    return requests.Request(method, url, headers=dict(headers), data=body).prepare()


def printable(data: bytes) -> str:
    """The start of some bytes as text that is safe in a log line: one line, no control characters."""
    text = data[:SHOWN].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _anywhere(url: str) -> None:
    """The check of a session that is not guarded."""


def _read(response: requests.Response, limit: int, *, cut: bool) -> bytes:
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding not in _PACKED + _PLAIN:
        raise HttpError(f"the answer is encoded as {printable(coding.encode())[:50]}, which was not asked for")
    if not 200 <= response.status_code < 300:
        limit, cut = min(limit, _START), True
    content = bytearray()
    chunks = response.raw.stream(_CHUNK, decode_content=False)
    for number, chunk in enumerate(_unpacked(chunks) if coding in _PACKED else chunks):
        content += chunk
        if len(content) > limit:
            if cut:
                del content[limit:]
                break
            raise BodyTooLarge(f"the body is larger than {limit} bytes")
        if number > _PIECES + len(content) // _PIECE:
            raise HttpError(f"the body comes in more than {_PIECES} pieces of less than {_PIECE} bytes")
    return bytes(content)


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What gzip members say, one after another (RFC 1952, 2.2). Raises HttpError for what is none, or breaks off."""
    member = None
    for chunk in chunks:
        while chunk:
            member = member or zlib.decompressobj(_GZIP)
            try:
                yield member.decompress(chunk, _CHUNK)
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
    if refused := next((cause for cause in causes if isinstance(cause, Excess | NoLength)), None):
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
    """The exception and those it was raised from; requests and urllib3 wrap one another several times."""
    causes = []
    while isinstance(error, BaseException):
        causes.append(error)
        error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
    return causes
