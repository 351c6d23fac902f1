"""The outgoing HTTP session: every request bounded in time, size and redirects, every failure told in one line."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

USER_AGENT = "Datahog/1.0"
# A text in a record or a log line; what another server sent is cut to this.
SHOWN = 200

_CHUNK = 65_536
_REDIRECTS = 5


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
    """Sends requests over kept connections; `pool_size` bounds those kept for one host. Safe for many threads."""

    def __init__(self, *, pool_size: int) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.max_redirects = _REDIRECTS
        # Cookies of one answer must not travel with the request of another job.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = HTTPAdapter(pool_connections=64, pool_maxsize=pool_size, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def send(
        self,
        method: str,
        url: str,
        *,
        timeouts: Timeouts,
        limit: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        redirects: bool = False,
    ) -> Answer:
        """Send a request and read the whole answer, of at most `limit` bytes. Raises HttpError."""
        ends = time.monotonic() + timeouts.total
        try:
            with self._session.request(
                method,
                url,
                headers={"User-Agent": USER_AGENT, **(headers or {})},
                data=body,
                timeout=(min(timeouts.connect, timeouts.total), min(timeouts.read, timeouts.total)),
                allow_redirects=redirects,
                stream=True,
            ) as response:
                content = bytearray()
                for chunk in response.iter_content(_CHUNK):
                    content += chunk
                    if len(content) > limit:
                        raise BodyTooLarge(f"the body is larger than {limit} bytes")
                    if time.monotonic() > ends:
                        raise HttpError(f"timeout: no complete answer within {timeouts.total:g} s")
                return Answer(response.status_code, CaseInsensitiveDict(response.headers), bytes(content))
        except requests.RequestException as error:
            raise HttpError(_reason(error, timeouts)) from error
        except (OSError, ValueError) as error:
            raise HttpError(f"{type(error).__name__}: {printable(str(error).encode())}") from error


def printable(data: bytes) -> str:
    """The start of some bytes as text that is safe in a log line: one line, no control characters."""
    text = data[:SHOWN].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _reason(error: requests.RequestException, timeouts: Timeouts) -> str:
    match error:
        case requests.ConnectTimeout():
            return f"timeout: no connection within {timeouts.connect:g} s"
        case requests.Timeout():
            return f"timeout: no answer within {timeouts.read:g} s"
        case requests.TooManyRedirects():
            return f"more than {_REDIRECTS} redirects"
        case requests.exceptions.SSLError():
            return f"TLS: {printable(str(error).encode())}"
        case requests.ConnectionError():
            return f"connection failed: {_root_cause(error)}"
        case _:
            return f"{type(error).__name__}: {printable(str(error).encode())}"


def _root_cause(error: BaseException) -> str:
    """The innermost reason of a chain of exceptions; requests and urllib3 wrap one another several times."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return printable(str(error).encode()) or type(error).__name__
        error = inner
