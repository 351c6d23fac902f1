"""The egress policy: refuses forbidden URLs in all notations, and host names that resolve to forbidden addresses."""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import urllib3
from hypothesis import assume, given
from hypothesis import strategies as st

from datahog.local.stack import settle
from datahog.settings import Settings
from outbound.egress_policy import LOOPBACK, DestinationForbidden, EgressPolicy
from outbound.http_client import Http, HttpError, HttpResponse, Timeouts
from tests.support.servers.stub import RawServer, Reply, StubServer
from tests.support.servers.tls import make_certificate, over_tls

HINT = "(DATAHOG_OUTBOUND_NETWORKS can allow it)"
PATIENT = Timeouts(connect=2, read=5, total=5)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The addresses of each name, one list per look-up; the last list serves all further look-ups."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *_: Any, type: int = 0, flags: int = 0) -> list[Any]:
        if host not in known or flags & socket.AI_NUMERICHOST:
            return real(host, port, type=type, flags=flags)
        found = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [answer for address in found for answer in real(address, port, type=type)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def refusal(url: str, outbound: EgressPolicy | None = None) -> str:
    with pytest.raises(DestinationForbidden) as caught:
        (outbound or EgressPolicy()).check_url(url)
    message = str(caught.value)
    assert message.startswith("not allowed: ")
    assert len(message) <= 200
    return message


def get(url: str, outbound: EgressPolicy, **options: Any) -> HttpResponse:
    return Http(pool_size=1, outbound=outbound).send("GET", url, timeouts=PATIENT, limit=1000, **options)


def reason(url: str, outbound: EgressPolicy, **options: Any) -> str:
    with pytest.raises(HttpError) as caught:
        get(url, outbound, **options)
    assert len(str(caught.value)) <= 250
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://EXAMPLE.com.:443/a?b=c#d",
        "HTTPS://example.com:8443?x",
        "http://xn--bcher-kva.example/ä",
        "http://8.8.8.8/",
        "http://[2606:4700::1111]:8080/",
        "http://[64:ff9b::808:808]/",
        "http://[::ffff:8.8.8.8]/",
        "http://example.com/\\@evil.example/",
        "http://under_score.example/",
        "http://1.example/",
    ],
)
def test_urls_on_the_public_internet_are_allowed(url: str) -> None:
    EgressPolicy().check_url(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1/", "127.0.0.1 is this machine (loopback)"),
        ("http://127.255.0.1/", "127.255.0.1 is this machine (loopback)"),
        ("http://[::1]/", "[::1] is this machine (loopback)"),
        ("http://localhost/", "localhost is this machine (loopback)"),
        ("http://a.LOCALHOST./", "a.LOCALHOST. is this machine (loopback)"),
        ("http://0.0.0.0/", "0.0.0.0 is this machine (unspecified)"),
        ("http://[::]/", "[::] is this machine (unspecified)"),
        ("http://10.1.2.3/", "10.1.2.3 is in a private network"),
        ("http://172.31.0.1/", "172.31.0.1 is in a private network"),
        ("http://192.168.0.1/", "192.168.0.1 is in a private network"),
        ("http://100.100.100.200/", "100.100.100.200 is in a private network"),
        ("http://198.18.0.1/", "198.18.0.1 is in a private network"),
        ("http://240.0.0.1/", "240.0.0.1 is in a private network"),
        ("http://[fc00::1]/", "[fc00::1] is in a private network"),
        ("http://[fec0::1]/", "[fec0::1] is in a private network"),
        ("http://[2001:db8::1]/", "[2001:db8::1] is in a private network"),
        ("http://192.0.0.192/", "192.0.0.192 is in a special network"),
        ("http://169.254.169.254/latest", "169.254.169.254 is link-local, where cloud metadata is"),
        ("http://[fe80::1]/", "[fe80::1] is link-local"),
        ("http://[fd00:ec2::254]/", "[fd00:ec2::254] is a metadata address"),
        ("http://168.63.129.16/", "168.63.129.16 is a metadata address"),
        ("http://224.0.0.1/", "224.0.0.1 is multicast"),
        ("http://[ff02::1]/", "[ff02::1] is multicast"),
        ("http://[::ffff:127.0.0.1]/", "[::ffff:127.0.0.1] is this machine (loopback)"),
        ("http://[::ffff:a9fe:a9fe]/", "[::ffff:a9fe:a9fe] is link-local, where cloud metadata is"),
        ("http://[64:ff9b::7f00:1]/", "[64:ff9b::7f00:1] is this machine (loopback)"),
        ("http://[64:ff9b::10.0.0.1]/", "[64:ff9b::10.0.0.1] is in a private network"),
        ("http://[64:ff9b:1::808:808]/", "[64:ff9b:1::808:808] is in a private network"),
        ("http://[::127.0.0.1]/", "[::127.0.0.1] is in a private network"),
        ("http://[2002:7f00:1::]/", "[2002:7f00:1::] is in a special network"),
        ("http://[2001:0:1::80ff:fffe]/", "[2001:0:1::80ff:fffe] is in a special network"),
    ],
)
def test_non_public_addresses_are_refused_unless_allowed(url: str, why: str) -> None:
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]

    assert refusal(url) == f"not allowed: {why} {HINT}"
    EgressPolicy(everything).check_url(url)


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7F.1", "017700000001", "0177.0.0.1", "127.1", "127.0.0.1.", "127.0.0.0x1", "0x"]
    + ["127.0.0.256", "1.2.3.4.5", "example.1", "08.8.8.8", "[127.0.0.1.]", "[1::2::3]", "[:]", "[::ffff:127.1]"],
)
def test_other_notations_of_an_allowed_address_are_refused(host: str) -> None:
    written = "not allowed: write an IPv4 address as four decimal numbers, an IPv6 one as RFC 4291 does"

    assert refusal(f"http://{host}/", EgressPolicy(LOOPBACK)) == written


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://u:p@example.com/", "a URL with a user or a password in it"),
        ("http://127.0.0.1@example.com/", "a URL with a user or a password in it"),
        ("http://example.com:80@127.0.0.1/", "a URL with a user or a password in it"),
        ("http://@example.com/", "a URL with a user or a password in it"),
        ("ftp://example.com/", "ftp is neither http nor https"),
        ("file:///etc/passwd", "file is neither http nor https"),
        ("gopher://example.com:6379/_FLUSHALL", "gopher is neither http nor https"),
        ("http:example.com", "not an absolute http or https URL"),
        ("//example.com/", "not an absolute http or https URL"),
        ("", "not an absolute http or https URL"),
        ("http://example.com/" + "a" * 9000, "a URL of more than 8192 characters"),
        ("http://a\\@example.com/", "not an absolute http or https URL"),
        ("http://example.com/\r\nX: y", "not an absolute http or https URL"),
        ("http://example.com/a b", "not an absolute http or https URL"),
        ("http://example.com:25/", "port 25 (DATAHOG_OUTBOUND_PORTS can allow it)"),
        ("http://example.com:0/", "port 0 (DATAHOG_OUTBOUND_PORTS can allow it)"),
        ("http://example.com:65536/", "port 65536 (DATAHOG_OUTBOUND_PORTS can allow it)"),
        ("https://example.com:22", "port 22 (DATAHOG_OUTBOUND_PORTS can allow it)"),
    ],
)
def test_a_url_that_is_not_plain_http_is_refused(url: str, why: str) -> None:
    assert refusal(url) == f"not allowed: {why}"


@pytest.mark.parametrize(
    "host",
    ["①②⑦.⓪.⓪.①", "127。0。0。1", "ⓛocalhost", "exämple.com", "127%2e0%2e0%2e1", "loca\u00adlhost", "a b", "", ":80"]
    + ["[fe80::1%25eth0]", "x:port", "x:-1", "x:123456", "[::1", "::1", "[::1]x", "a;b", "a\x00b", "a\tb"],
)
def test_a_malformed_or_non_ascii_host_is_refused(host: str) -> None:
    assert refusal(f"http://{host}/", EgressPolicy(LOOPBACK)) in (
        "not allowed: a host is written in ASCII, an international one as xn--...",
        "not allowed: not an absolute http or https URL",
    )


def test_only_ports_of_the_setting_are_allowed() -> None:
    outbound = EgressPolicy(ports="81,8000-8002")

    outbound.check_url("http://example.com:81")
    outbound.check_url("http://example.com:8001")
    assert "port 80 " in refusal("http://example.com/", outbound)
    assert "port 443 " in refusal("https://example.com/", outbound)
    assert "port 8003 " in refusal("https://example.com:8003", outbound)


@given(st.from_regex(r"(?is)https?:.{0,40}"))
def test_all_parsers_see_the_same_host_in_an_allowed_url(url: str) -> None:
    try:
        EgressPolicy().check_url(url)
    except DestinationForbidden as error:
        told = str(error)
    else:
        prepared = requests.Request("GET", url).prepare()
        told = str(urllib3.util.parse_url(prepared.url or "").host)
        assert told == urlsplit(url).hostname
    assert len(told) <= 200


@given(st.ip_addresses())
def test_addresses_non_public_to_python_are_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    wrapped = ("::ffff:0:0/96", "64:ff9b::/96")
    assume(not any(address in ipaddress.ip_network(network) for network in wrapped))
    assume(not address.is_global or address.is_multicast or address.is_reserved)

    with pytest.raises(DestinationForbidden):
        EgressPolicy().check_address(address, "x")


def test_a_name_that_resolves_to_this_machine_is_refused(stub: StubServer, names: dict[str, list[list[str]]]) -> None:
    names["evil.example"] = [["127.0.0.1"]]
    url = stub.url.replace("127.0.0.1", "evil.example")

    assert reason(url, EgressPolicy()) == f"not allowed: the address of evil.example is this machine (loopback) {HINT}"
    assert stub.asked == []


@pytest.mark.parametrize("addresses", [["8.8.8.8", "10.0.0.1"], ["::ffff:10.0.0.1"], ["64:ff9b::a00:1", "8.8.8.8"]])
def test_one_forbidden_address_forbids_the_name(names: dict[str, list[list[str]]], addresses: list[str]) -> None:
    names["evil.example"] = [addresses]

    assert reason("http://evil.example/", EgressPolicy()) == (
        f"not allowed: the address of evil.example is in a private network {HINT}"
    )


def test_the_connection_goes_to_the_checked_address(stub: StubServer, names: dict[str, list[list[str]]]) -> None:
    names["rebinding.example"] = [["127.0.0.1"], ["127.0.0.66"]]
    only = EgressPolicy([ipaddress.ip_network("127.0.0.1/32")])
    http = Http(pool_size=1, outbound=only)
    url = stub.url.replace("127.0.0.1", "rebinding.example")

    for _ in range(3):
        assert http.send("GET", url, timeouts=PATIENT, limit=10).ok

    # There was one look-up: a kept connection keeps its address.
    assert names["rebinding.example"] == [["127.0.0.66"]]
    assert [asked.headers["host"] for asked in stub.asked] == [url.removeprefix("http://")] * 3
    assert "this machine" in reason(url, only)


def test_the_next_address_is_tried_when_one_refuses(stub: StubServer, names: dict[str, list[list[str]]]) -> None:
    names["two.example"] = [["127.0.0.2", "127.0.0.1"]]

    assert get(stub.url.replace("127.0.0.1", "two.example"), EgressPolicy(LOOPBACK)).ok


def test_an_error_reports_a_name_without_address(names: dict[str, list[list[str]]]) -> None:
    assert reason("http://no-such-host.invalid/", EgressPolicy()) == (
        "connection failed: [Errno -2] Name or service not known"
    )


def test_an_endless_look_up_ends_at_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def look_up(host: str, *_: Any, flags: int = 0, **__: Any) -> list[Any]:
        if flags:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        answered.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began = time.monotonic()
    with pytest.raises(HttpError, match=r"^timeout: no connection within 0\.3 s$"):
        Http(pool_size=1).send("GET", "http://slow.example/", timeouts=Timeouts(0.3, 5, 5), limit=10)
    answered.set()

    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://127.0.0.2:8080/", f"127.0.0.2 is this machine (loopback) {HINT}"),
        ("http://169.254.169.254/latest", f"169.254.169.254 is link-local, where cloud metadata is {HINT}"),
        ("//10.0.0.1/", f"10.0.0.1 is in a private network {HINT}"),
        ("http://u:p@127.0.0.1/", "a URL with a user or a password in it"),
        ("http://0x7f.1/", "write an IPv4 address as four decimal numbers, an IPv6 one as RFC 4291 does"),
        ("file:///etc/passwd", "file is neither http nor https"),
        ("http://127.0.0.1:22/", "port 22 (DATAHOG_OUTBOUND_PORTS can allow it)"),
    ],
)
def test_each_redirect_is_checked(stub: StubServer, location: str, why: str) -> None:
    stub.replies = [Reply(302, b"", {"Location": "/next"}), Reply(302, b"", {"Location": location})]
    only = EgressPolicy([ipaddress.ip_network("127.0.0.1/32")])

    assert reason(stub.url, only, redirects=True) == f"not allowed: {why}"
    assert [asked.path for asked in stub.asked] == ["/", "/next"]


def test_a_redirect_to_a_name_with_a_private_address_is_refused(
    stub: StubServer, names: dict[str, list[list[str]]]
) -> None:
    names["evil.example"] = [["10.0.0.1"]]
    stub.replies = [Reply(307, b"", {"Location": "https://evil.example/"})]

    assert "the address of evil.example is in a private network" in reason(
        stub.url, EgressPolicy(LOOPBACK), redirects=True
    )


@pytest.mark.parametrize(("name", "trusted"), [("127.0.0.1", True), ("other.example", False)])
def test_certificates_are_verified_for_the_host_of_the_url(
    tmp_path: Path, names: dict[str, list[list[str]]], name: str, trusted: bool
) -> None:
    names["other.example"] = [["127.0.0.1"]]
    make_certificate(tmp_path / "certificate.pem")
    http = Http(pool_size=1, outbound=EgressPolicy(LOOPBACK), authorities=str(tmp_path / "certificate.pem"))

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    with over_tls(tmp_path / "certificate.pem", answer) as server:
        url = server.url.replace("127.0.0.1", name)
        if trusted:
            assert http.send("GET", url, timeouts=PATIENT, limit=10).body == b"[]"
        else:
            with pytest.raises(HttpError, match=r"^TLS: .*other\.example"):
                http.send("GET", url, timeouts=PATIENT, limit=10)


def test_proxies_of_the_environment_are_ignored(stub: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert get(stub.url, EgressPolicy(LOOPBACK)).ok


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", "b\r\nX-Other: c"), ("X-A", "b\nX-Other: c"), ("X-A\r\nX-Other", "c"), ("X-A", "b\rX-Other: c")],
)
def test_a_header_cannot_inject_another(stub: StubServer, name: str, value: str) -> None:
    assert reason(stub.url, EgressPolicy(LOOPBACK), headers={name: value}).startswith("InvalidHeader: ")
    assert stub.asked == []


@pytest.mark.parametrize("path", ["/a%0d%0aX-Other:%20c", "/a?b%0d%0aX-Other:%20c"])
def test_a_url_cannot_inject_a_header(stub: StubServer, path: str) -> None:
    get(stub.url + path, EgressPolicy(LOOPBACK))

    [asked] = stub.asked
    assert "x-other" not in asked.headers
    assert asked.path == path.replace("%0d%0a", "%0D%0A")


def slow_reader(connection: socket.socket) -> None:
    while connection.recv(1024):
        time.sleep(0.05)


@pytest.mark.parametrize("serve", [RawServer, over_tls])
def test_a_slow_reader_of_a_body_is_left_at_the_deadline(tmp_path: Path, serve: Callable[..., RawServer]) -> None:
    make_certificate(tmp_path / "certificate.pem")
    http = Http(pool_size=1, authorities=str(tmp_path / "certificate.pem"))
    server = RawServer(slow_reader) if serve is RawServer else over_tls(tmp_path / "certificate.pem", slow_reader)
    with server:
        began = time.monotonic()
        with pytest.raises(HttpError, match=r"^timeout: "):
            http.send("POST", server.url, timeouts=Timeouts(1, 1, 0.6), limit=10, body=bytes(50_000_000))

    assert time.monotonic() - began < 1.5


def test_interim_responses_are_skipped_on_a_kept_connection() -> None:
    answers = iter([b"[1]", b"[2]"])

    def handle(connection: socket.socket) -> None:
        for body in answers:
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.1)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + body)
            connection.recv(65_536)

    http = Http(pool_size=1)
    with RawServer(handle) as server:
        bodies = [http.send("GET", server.url, timeouts=PATIENT, limit=10).body for _ in range(2)]

    assert bodies == [b"[1]", b"[2]"]


@pytest.mark.parametrize(
    ("host", "added"),
    [("127.0.0.1", []), ("0.0.0.0", []), ("localhost", []), ("192.168.1.5", ["192.168.1.5/32"])],  # noqa: S104 -- nothing is bound
)
def test_run_allows_only_this_machine_and_the_set_networks(host: str, added: list[str]) -> None:
    given = (ipaddress.ip_network("10.0.0.0/8"),)

    settled = settle(Settings(host=host, outbound_networks=given))

    assert settled.outbound_networks == (*LOOPBACK, *map(ipaddress.ip_network, added), *given)
    assert settle(Settings()).outbound_networks == LOOPBACK
