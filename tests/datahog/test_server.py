"""The HTTP server: an unfinished head ends with a problem, and no connection takes much memory."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from datahog import server
from tests.support.system import eventually


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that waits 0.5 s for a head."""
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.5)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while scope["path"] != "/early" and (await receive()).get("more_body"):
            pass
        seen = b",".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": 204, "headers": [(b"seen", seen)]})
        await send({"type": "http.response.body"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=server._Protocol, lifespan="off", log_config=None)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        eventually(lambda: running.started)
        yield int(listener.getsockname()[1])
        running.should_exit = True
        thread.join(10)


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_an_unfinished_head_ends_the_connection_with_a_problem(begun: bytes, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(begun)

        said = read_all(connection)

    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["type"].endswith(":request-timeout")


def test_each_head_of_a_connection_has_its_own_time_limit(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first = connection.recv(1000)
        connection.sendall(b"GET / HT")

        second = read_all(connection)

    assert first.startswith(b"HTTP/1.1 204 ")
    assert second.startswith(b"HTTP/1.1 408 ")


def test_an_unread_body_does_not_keep_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
        answer = connection.recv(1000)
        connection.sendall(b"x")

        more = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 204 ")
    assert not more


def test_the_connection_closes_after_too_many_pipelined_requests(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)

        answers = read_all(connection).split(b"HTTP/1.1 ")[1:]

    # One request under way, and those that wait for it.
    assert len(answers) == 1 + server._PIPELINED
    assert [b"connection: close" in answer for answer in answers] == [False] * server._PIPELINED + [True]
    assert {answer[:3] for answer in answers} == {b"204"}


def test_a_few_pipelined_requests_all_get_responses(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" * server._PIPELINED)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

        answers = read_all(connection).split(b"HTTP/1.1 ")[1:]

    assert [answer[:3] for answer in answers] == [b"204"] * (server._PIPELINED + 1)


_CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"


@pytest.mark.parametrize(
    ("begun", "piece"),
    [(b"0\r\n", b"X-More: x\r\n"), (b"0\r\nX-First: ", b"x" * 10), (b"1;", b"x" * 10)],
    ids=["many trailers", "one trailer", "chunk extension"],
)
def test_endless_trailers_or_chunk_extensions_are_refused(begun: bytes, piece: bytes, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(_CHUNKED + begun)
        # The refusal may reset the connection while this side still sends.
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 20_000_000:
                connection.sendall(piece * 1000)
                sent += len(piece) * 1000

    assert sent < 20_000_000


def test_trailers_do_not_become_headers(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(_CHUNKED + b"0\r\nX-Trailer: x\r\n\r\n")
        connection.sendall(b"GET / HTTP/1.1\r\nX-Next: x\r\nConnection: close\r\n\r\n")

        said = read_all(connection)

    assert [line for line in said.split(b"\r\n") if line.startswith(b"seen")] == [
        b"seen: host,transfer-encoding",
        b"seen: x-next,connection",
    ]


def test_a_long_body_in_small_chunks_is_accepted(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(_CHUNKED)
        for _ in range(200):
            connection.sendall(b"1;x=y\r\nx\r\n" * 1000)
        connection.sendall(b"0\r\nX-Trailer: x\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n")

        answers = read_all(connection).split(b"HTTP/1.1 ")[1:]

    assert [answer[:3] for answer in answers] == [b"204", b"204"]


def read_all(connection: socket.socket) -> bytes:
    """Returns the bytes that arrive until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))
