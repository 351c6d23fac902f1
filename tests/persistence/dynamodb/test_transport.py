"""The transport: its calls have the attempts, signatures and checks that a boto3 client gives its own calls."""

import io
import json
import socket
import zlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError

from datahog.bootstrap.connections import dynamodb_client
from datahog.settings import Settings
from persistence.dynamodb.table import Table
from persistence.dynamodb.transport import Transport
from persistence.errors import ConditionFailed, Unavailable
from persistence.records.timestamps import utc_now
from tests.support.servers.stub import Asked, RawServer, Reply, StubServer
from tests.support.servers.tls import over_tls

ITEM = {"Item": {"pk": {"S": "a"}}}
WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n{"Item": {"pk": {"S": "a"}}}'


def response(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    body = json.dumps(document).encode()
    checksum = {"x-amz-crc32": str(zlib.crc32(body))}
    return Reply(status, body, {"Content-Type": "application/x-amz-json-1.0"} | checksum | dict(headers or {}))


def refusal(code: str, status: int = 400) -> Reply:
    return response({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "said so"}, status)


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as running:
        running.replies = [response(ITEM)]
        yield running


@pytest.fixture
def client(server: StubServer) -> Any:
    return dynamodb_client(Settings(dynamodb_endpoint_url=server.url), {})


def get(client: Any) -> Any:
    return Transport(client).call("GetItem", {"TableName": "t", "Key": {"pk": {"S": "\N{PILE OF POO}"}}})


def sent(server: StubServer, number: int = 0) -> Asked:
    return server.asked[number]


def test_a_call_has_the_wire_format_of_boto3(server: StubServer, client: Any) -> None:
    assert get(client)["Item"] == ITEM["Item"]
    client.get_item(TableName="t", Key={"pk": {"S": "\N{PILE OF POO}"}})

    ours, theirs = server.asked
    assert (ours.method, ours.path) == (theirs.method, theirs.path) == ("POST", "/")
    assert json.loads(ours.body) == json.loads(theirs.body)
    for name in ("content-type", "x-amz-target", "user-agent", "accept-encoding"):
        assert ours.headers[name] == theirs.headers[name]


def test_a_call_is_signed(server: StubServer, client: Any) -> None:
    get(client)

    signature = sent(server).headers["authorization"]
    assert signature.startswith("AWS4-HMAC-SHA256 Credential=datahog/")
    assert "/us-east-1/dynamodb/aws4_request" in signature
    assert "content-type;host;x-amz-date;x-amz-target" in signature


def test_credentials_are_renewed_between_calls(server: StubServer) -> None:
    issued: list[str] = []

    def issue() -> dict[str, str]:
        issued.append(f"key{len(issued)}")
        # The credentials expire so soon that the next call renews them.
        ends = (utc_now() + timedelta(seconds=1)).isoformat()
        return {"access_key": issued[-1], "secret_key": "s", "token": f"of-{issued[-1]}", "expiry_time": ends}

    session = botocore.session.get_session()
    # botocore has no public way to set refreshable credentials.
    session._credentials = RefreshableCredentials.create_from_metadata(issue(), issue, "test")  # type: ignore[attr-defined]
    transport = Transport(
        boto3.Session(botocore_session=session, region_name="eu-central-1").client("dynamodb", endpoint_url=server.url)
    )

    for _ in range(2):
        transport.call("GetItem", {})

    first, second = (asked.headers for asked in server.asked)
    assert first["x-amz-security-token"] != second["x-amz-security-token"]
    assert f"Credential={second['x-amz-security-token'].removeprefix('of-')}/" in second["authorization"]


@pytest.mark.parametrize(
    "first",
    [
        refusal("InternalServerError", 500),
        Reply(503, b"<html>busy</html>", {"Content-Type": "text/html"}),
        refusal("ProvisionedThroughputExceededException"),
        refusal("ThrottlingException"),
        response(ITEM, headers={"x-amz-crc32": "1"}),
        Reply(200, b'{"Item": {"pk"'),
    ],
    ids=["500", "no DynamoDB", "throttled", "throttled too", "damaged", "cut"],
)
def test_a_transient_failure_is_retried_once(server: StubServer, client: Any, first: Reply) -> None:
    server.replies = [first, response(ITEM)]

    assert get(client)["Item"] == ITEM["Item"]

    assert len(server.asked) == 2
    assert sent(server, 0).body == sent(server, 1).body


def test_a_call_has_two_attempts_at_most(server: StubServer, client: Any) -> None:
    server.replies = [refusal("InternalServerError", 500)]

    with pytest.raises(Unavailable, match="InternalServerError"):
        Table(Transport(client), "t").get({"pk": "a"})

    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("ConditionalCheckFailedException", ConditionFailed),
        ("ValidationException", ClientError),
        ("SerializationException", ClientError),
        ("ResourceNotFoundException", Unavailable),
        ("UnrecognizedClientException", Unavailable),
        # A retry does not correct a wrong clock.
        ("InvalidSignatureException", Unavailable),
        ("RequestExpired", Unavailable),
    ],
)
def test_a_permanent_failure_is_raised_without_a_retry(
    server: StubServer, client: Any, code: str, raised: type[Exception]
) -> None:
    server.replies = [refusal(code)]

    with pytest.raises(raised, match="t" if raised is ConditionFailed else code):
        Table(Transport(client), "t").put({"pk": "a"})

    assert len(server.asked) == 1


@pytest.mark.parametrize("trusted", [True, False])
def test_an_untrusted_certificate_raises_unavailable(
    certificate: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))

    def respond(connection: socket.socket) -> None:
        # A close with unread bytes resets the connection, which may lose the response.
        connection.recv(65_536)
        connection.sendall(WHOLE)

    with over_tls(certificate, respond) as server:
        table = Table(Transport(dynamodb_client(Settings(dynamodb_endpoint_url=server.url), {})), "t")

        if trusted:
            assert table.get({"pk": "a"}) == {"pk": "a"}
        else:
            with pytest.raises(Unavailable, match="certificate"):
                table.get({"pk": "a"})


def test_a_cut_connection_is_reopened() -> None:
    responses = [b"", WHOLE]

    with RawServer(lambda connection: connection.sendall(responses.pop(0))) as server:
        client = dynamodb_client(Settings(dynamodb_endpoint_url=server.url), {})

        assert get(client)["Item"] == ITEM["Item"]

    assert responses == []


def test_a_hung_engine_times_out(server: StubServer) -> None:
    server.replies = [Reply(after=2)]
    config = Config(read_timeout=0.2, retries={"mode": "standard", "total_max_attempts": 2})
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=server.url,
        aws_access_key_id="k",
        aws_secret_access_key="k",
        config=config,
    )

    with pytest.raises(Unavailable, match="[Tt]imeout"):
        Table(Transport(client), "t").get({"pk": "a"})

    assert len(server.asked) == 2


def test_repeated_failures_use_up_the_retry_quota(client: Any) -> None:
    statuses: list[int] = []
    well = False

    def respond(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        statuses.append(200 if well else 500)
        return AWSResponse(request.url, statuses[-1], HTTPHeaders(), _Raw(b"{}"))

    client.meta.events.register("before-send.dynamodb", respond)
    table = Table(Transport(client), "t")

    for _ in range(60):
        with pytest.raises(Unavailable):
            table.get({"pk": "a"})
    asked_in_trouble = len(statuses)
    well = True
    for _ in range(60):
        table.get({"pk": "a"})
    well = False
    statuses.clear()
    with pytest.raises(Unavailable):
        table.get({"pk": "a"})

    assert 60 < asked_in_trouble < 120
    assert statuses == [500, 500]


class _Raw(io.BytesIO):
    def stream(self) -> Iterator[bytes]:
        yield self.read()


def test_a_custom_endpoint_keeps_its_path(server: StubServer) -> None:
    client = dynamodb_client(Settings(dynamodb_endpoint_url=f"{server.url}/gateway"), {})

    get(client)

    assert sent(server).path == "/gateway/"
