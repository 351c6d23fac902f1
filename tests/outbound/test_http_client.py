"""The HTTP client: bounded in time, size and redirects against misbehaving servers; each failure is one line."""

import gzip
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outbound.egress_policy import LOOPBACK, EgressPolicy
from outbound.http_client import BodyTooLarge, Http, HttpError, HttpResponse, Timeouts, printable
from tests.support.servers.stub import RawServer, Reply, StubServer
from tests.support.servers.tls import over_tls

PATIENT = Timeouts(connect=2, read=5, total=5)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def get(url: str, *, timeouts: Timeouts = PATIENT, limit: int = 1_000_000, redirects: bool = False) -> HttpResponse:
    return Http(pool_size=2).send("GET", url, timeouts=timeouts, limit=limit, redirects=redirects)


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(HttpError) as caught:
        call()
    reason = str(caught.value)
    assert reason
    assert reason.isprintable()
    assert len(reason) <= 260
    return reason


def drip(head: bytes, byte: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.sendall(head)
        with suppress(OSError):
            while True:
                connection.sendall(byte)
                time.sleep(0.05)

    return handle


def test_a_response_is_returned_whole(stub: StubServer) -> None:
    stub.replies = [Reply(201, b'{"a":1}', {"X-Some": "thing"})]

    answer = get(stub.url)

    assert (answer.status, answer.body, answer.headers["x-some"], answer.ok) == (201, b'{"a":1}', "thing", True)


def test_a_body_and_headers_are_sent_unchanged(stub: StubServer) -> None:
    Http(pool_size=1).send("POST", stub.url, timeouts=PATIENT, limit=10, headers={"X-Key": "k"}, body=b"\x00 raw")

    [asked] = stub.asked
    assert (asked.method, asked.body, asked.headers["x-key"]) == ("POST", b"\x00 raw", "k")
    assert asked.headers["user-agent"].startswith("Datahog/")


@pytest.mark.parametrize(
    ("head", "byte"),
    [
        pytest.param(b"", b"H", id="status line"),
        pytest.param(HEAD + b"X-Endless: ", b"x", id="headers"),
        pytest.param(HEAD + b"Content-Length: 100000\r\n\r\n", b"x", id="body"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
        pytest.param(HEAD + b"\r\n", b"x", id="body to the end"),
    ],
)
def test_a_dripping_server_is_left_at_the_deadline(head: bytes, byte: bytes) -> None:
    with RawServer(drip(head, byte)) as server:
        began = time.monotonic()
        reason = reason_of(lambda: get(server.url, timeouts=Timeouts(connect=1, read=1, total=0.5)))

    assert time.monotonic() - began < 0.8
    assert reason == "timeout: no complete answer within 0.5 s"


def test_a_silent_server_is_left_after_the_read_timeout() -> None:
    with RawServer(lambda connection: time.sleep(3)) as server:
        began = time.monotonic()
        reason = reason_of(lambda: get(server.url, timeouts=Timeouts(connect=1, read=0.3, total=5)))

    assert time.monotonic() - began < 1
    assert reason == "timeout: nothing came for 0.3 s"


def test_a_silence_within_a_body_ends_at_the_read_timeout() -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: 10\r\n\r\n12345")
        time.sleep(3)

    with RawServer(handle) as server:
        reason = reason_of(lambda: get(server.url, timeouts=Timeouts(connect=1, read=0.3, total=5)))

    assert reason == "timeout: nothing came for 0.3 s"


def test_redirects_do_not_restart_the_deadline() -> None:
    def handle(connection: socket.socket) -> None:
        time.sleep(0.2)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")

    with RawServer(handle) as server:
        reason = reason_of(lambda: get(server.url, timeouts=Timeouts(1, 1, 0.5), redirects=True))

    assert reason == "timeout: no complete answer within 0.5 s"


def test_an_endless_connect_ends_at_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        reason = reason_of(lambda: get(f"http://127.0.0.1:{address[1]}", timeouts=Timeouts(0.3, 5, 5)))
        for one in waiting:
            one.close()

    assert reason == "timeout: no connection within 0.3 s"


def test_an_error_reports_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert reason_of(lambda: get(f"http://127.0.0.1:{port}")) == "connection failed: [Errno 111] Connection refused"


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/", "ftp://x/", "http://", "http://[::1", "http://x:y/"])
def test_an_error_reports_an_impossible_url(url: str) -> None:
    assert reason_of(lambda: get(url))


def test_a_body_of_exactly_the_limit_is_accepted(stub: StubServer) -> None:
    stub.replies = [Reply(body=b"x" * 1000)]

    assert len(get(stub.url, limit=1000).body) == 1000


def test_a_body_larger_than_the_limit_is_refused(stub: StubServer) -> None:
    stub.replies = [Reply(body=b"x" * 1001)]

    with pytest.raises(BodyTooLarge, match="^the body is larger than 1000 bytes$"):
        get(stub.url, limit=1000)


def test_a_body_without_end_is_left_at_the_limit() -> None:
    sent = 0

    def handle(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(HEAD + b"\r\n")
        with suppress(OSError):
            while True:
                sent += connection.send(b"x" * 65_536)

    with RawServer(handle) as server, pytest.raises(BodyTooLarge):
        get(server.url, limit=100_000)

    assert sent < 20_000_000


def test_a_gzip_bomb_is_left_at_the_limit(stub: StubServer) -> None:
    bomb = gzip.compress(bytes(200_000_000), 1)
    stub.replies = [Reply(body=bomb, headers={"Content-Encoding": "gzip"})]
    began = time.process_time()

    with pytest.raises(BodyTooLarge):
        get(stub.url, limit=1_000_000)

    assert time.process_time() - began < 0.2


def test_with_cut_only_the_start_of_a_large_body_is_read(stub: StubServer) -> None:
    stub.replies = [Reply(body=b"x" * 10_000_000)]

    answer = Http(pool_size=1).send("POST", stub.url, timeouts=PATIENT, limit=1000, cut=True)

    assert (answer.status, answer.body) == (200, b"x" * 1000)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        pytest.param(gzip.compress(b"[1]"), b"[1]", id="one member"),
        pytest.param(gzip.compress(b"[1") + gzip.compress(b"]"), b"[1]", id="two members"),
        pytest.param(gzip.compress(b"[" + b" " * 900_000 + b"]"), b"[" + b" " * 900_000 + b"]", id="much in little"),
        pytest.param(b"", b"", id="nothing"),
    ],
)
def test_a_compressed_body_comes_back_decompressed(stub: StubServer, sent: bytes, body: bytes) -> None:
    stub.replies = [Reply(body=sent, headers={"Content-Encoding": "gzip"})]

    assert get(stub.url).body == body


def test_an_error_reports_a_body_that_is_not_gzip(stub: StubServer) -> None:
    stub.replies = [Reply(body=b"not gzip", headers={"Content-Encoding": "gzip"})]

    assert reason_of(lambda: get(stub.url)).startswith("the answer cannot be decompressed: ")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HEAD + b"Content-Length: 100\r\n\r\n[1, 2", id="shorter than its Content-Length"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n[1, 2\r\n", id="no last chunk"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n[1]", id="no chunk at all"),
    ],
)
def test_a_truncated_body_is_an_error(answer: bytes) -> None:
    with RawServer(lambda connection: connection.sendall(answer)) as server:
        assert reason_of(lambda: get(server.url)).startswith("the answer broke off: ")


def test_a_connection_reset_within_a_body_is_an_error() -> None:
    def handle(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n[1, 2")
        time.sleep(0.1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with RawServer(handle) as server:
        assert "reset" in reason_of(lambda: get(server.url))


def test_an_error_reports_a_connection_closed_without_response() -> None:
    with RawServer(lambda connection: None) as server:
        assert reason_of(lambda: get(server.url)) == (
            "connection failed: Remote end closed connection without response"
        )


def test_five_redirects_are_followed(stub: StubServer) -> None:
    stub.replies = [Reply(302, b"", {"Location": f"/{hop}"}) for hop in range(1, 6)] + [Reply(body=b"[5]")]

    assert get(stub.url, redirects=True).body == b"[5]"
    assert [asked.path for asked in stub.asked] == ["/", "/1", "/2", "/3", "/4", "/5"]


def test_a_sixth_redirect_is_an_error(stub: StubServer) -> None:
    stub.replies = [Reply(301, b"", {"Location": "/again"})]

    assert reason_of(lambda: get(stub.url, redirects=True)) == "more than 5 redirects"
    assert len(stub.asked) == 6


def test_redirects_are_not_followed_by_default(stub: StubServer) -> None:
    stub.replies = [Reply(302, b"elsewhere", {"Location": "/elsewhere"})]

    answer = get(stub.url)

    assert (answer.status, answer.body, len(stub.asked)) == (302, b"elsewhere", 1)


def test_an_error_reports_a_redirect_to_another_scheme(stub: StubServer) -> None:
    stub.replies = [Reply(302, b"", {"Location": "gopher://x/"})]

    assert "gopher" in reason_of(lambda: get(stub.url, redirects=True))


@pytest.mark.parametrize(
    ("redirects", "told"),
    [(True, "not allowed: ftp is neither http nor https"), (False, "HTTP 302 " + "x" * 200)],
)
def test_the_endless_body_of_a_redirect_is_left(redirects: bool, told: str) -> None:
    sent = 0

    def handle(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\n\r\n")
        with suppress(OSError):
            while True:
                sent += connection.send(b"x" * 65_536)

    with RawServer(handle) as server:
        http = Http(pool_size=1, outbound=EgressPolicy(LOOPBACK))
        try:
            said = str(http.send("GET", server.url, timeouts=PATIENT, limit=1000, redirects=redirects))
        except HttpError as error:
            said = str(error)

    assert said == told
    assert sent < 20_000_000


def test_a_redirect_to_another_host_drops_secret_headers(stub: StubServer) -> None:
    with StubServer() as other:
        stub.replies = [Reply(302, b"", {"Location": "/same"}), Reply(302, b"", {"Location": other.url})]
        headers = {"Authorization": "Bearer s", "X-Api-Key": "s", "Accept": "application/json"}

        Http(pool_size=1).send("GET", stub.url, timeouts=PATIENT, limit=10, headers=headers, redirects=True)

    assert [asked.headers.get("x-api-key") for asked in stub.asked] == ["s", "s"]
    [elsewhere] = other.asked
    assert elsewhere.headers["accept"] == "application/json"
    assert elsewhere.headers.keys().isdisjoint({"authorization", "x-api-key"})


def test_cookies_are_never_sent(stub: StubServer) -> None:
    stub.replies = [Reply(302, b"", {"Location": "/", "Set-Cookie": "a=1"}), Reply(headers={"Set-Cookie": "b=2"})]
    http = Http(pool_size=1)

    for _ in range(2):
        http.send("GET", stub.url, timeouts=PATIENT, limit=10, redirects=True)

    assert [asked.headers.get("cookie") for asked in stub.asked] == [None, None, None]


def test_a_connection_is_reused(stub: StubServer) -> None:
    http = Http(pool_size=1)

    for _ in range(3):
        http.send("GET", stub.url, timeouts=PATIENT, limit=100)

    assert len({asked.connection for asked in stub.asked}) == 1


def test_many_threads_share_a_client(stub: StubServer) -> None:
    http = Http(pool_size=4)

    def ask(number: int) -> bool:
        http.send("GET", f"{stub.url}/{number}", timeouts=PATIENT, limit=100)
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))
    assert {asked.path for asked in stub.asked} == {f"/{number}" for number in range(200)}


def test_the_text_of_a_response_is_one_printable_line(stub: StubServer) -> None:
    stub.replies = [Reply(500, b"#fail\n\x1b[31mred\x00 \xe2\x80\xae\xff" + b"y" * 1000)]

    shown = str(get(stub.url))

    assert shown.startswith("HTTP 500 #fail  [31mred")
    assert shown.isprintable()
    assert len(shown) <= 210


@given(st.binary(max_size=2000))
def test_any_bytes_become_a_short_printable_text(data: bytes) -> None:
    shown = printable(data)

    assert shown.isprintable()
    assert len(shown) <= 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda body: HEAD + b"\r\n" + body)))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nx")
@example(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip, br, zstd\r\n\r\nxxxx")
@example(b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe//[\r\n\r\n")
@example(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n")
@example(b"HTTP/1.1 302 Found\r\nLocation: http://\xc3\xa4..x/\r\n\r\n")
@example(b"HTTP/1.1 999999999999 \r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500 + b"\r\n")
@example(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n")
@example(b"HTTP/1.1 100 Continue\r\n\r\n")
def test_any_bytes_of_a_server_are_a_response_or_an_error(sent: bytes) -> None:
    with RawServer(lambda connection: connection.sendall(sent)) as server:
        try:
            told = str(get(server.url, timeouts=Timeouts(1, 1, 1), redirects=True))
        except HttpError as error:
            told = str(error)

    assert told.isprintable()
    assert len(told) <= 260


def trusting(certificate: Path) -> Http:
    return Http(pool_size=1, authorities=str(certificate))


def test_a_self_signed_certificate_is_refused(certificate: Path) -> None:
    with over_tls(certificate, lambda connection: connection.sendall(HEAD + b"\r\n[]")) as server:
        reason = reason_of(lambda: get(server.url))

    assert reason.startswith("TLS: ")
    assert "self-signed" in reason


def test_a_server_with_a_trusted_certificate_is_read(certificate: Path) -> None:
    with over_tls(certificate, lambda connection: connection.sendall(HEAD + b"Content-Length: 2\r\n\r\n[]")) as server:
        answer = trusting(certificate).send("GET", server.url, timeouts=PATIENT, limit=10)

    assert answer.body == b"[]"


def test_a_dripping_server_over_tls_is_left_at_the_deadline(certificate: Path) -> None:
    with over_tls(certificate, drip(HEAD + b"\r\n", b"x")) as server:
        timeouts = Timeouts(connect=1, read=1, total=0.5)
        reason = reason_of(lambda: trusting(certificate).send("GET", server.url, timeouts=timeouts, limit=1000))

    assert reason == "timeout: no complete answer within 0.5 s"


def test_an_endless_tls_handshake_ends_at_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        reason = reason_of(lambda: get(url, timeouts=Timeouts(connect=0.3, read=5, total=5)))

    assert time.monotonic() - began < 1
    assert reason == "timeout: no connection within 0.3 s"
