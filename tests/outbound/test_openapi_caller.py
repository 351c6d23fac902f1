"""Calls by operationId: a call is sent as the document declares it, and an undeclared response is refused."""

import pytest

import specs
from outbound.http_client import Http, HttpError, Timeouts
from outbound.openapi_caller import BadCall, ContractBroken, Operations
from tests.support.servers.stub import Reply, StubServer, json_reply

PROVIDERS = {"providers": [{"name": "gas", "url": "http://gas"}]}
PROBLEM = {"type": "urn:datahog:problem:not-found", "title": "Not found", "status": 404, "detail": "no r1"}


@pytest.fixture
def aggregator(stub: StubServer) -> Operations:
    """The aggregator's operations, served by the stub."""
    return Operations(specs.AGGREGATOR, f"{stub.url}/", Http(pool_size=1), timeouts=Timeouts(1, 1, 2))


def test_a_declared_response_is_returned_as_a_document(aggregator: Operations, stub: StubServer) -> None:
    stub.replies = [json_reply(PROVIDERS)]

    reply = aggregator.call("listProviders")

    assert (reply.status, reply.ok, reply.document) == (200, True, PROVIDERS)
    assert [(asked.method, asked.path) for asked in stub.asked] == [("GET", "/api/v1/providers")]


def test_arguments_go_into_the_path_and_the_query(aggregator: Operations, stub: StubServer) -> None:
    stub.replies = [json_reply(PROBLEM, 404, "application/problem+json; charset=utf-8")]

    reply = aggregator.call("getRequest", {"requestId": "a/b ?", "wait": 5, "results": False})

    [asked] = stub.asked
    assert asked.path == "/api/v1/requests/a%2Fb%20%3F?wait=5&results=false"
    assert (reply.ok, str(reply)) == (False, "HTTP 404 no r1")


def test_a_body_and_a_header_are_sent(aggregator: Operations, stub: StubServer) -> None:
    stub.replies = [json_reply(PROBLEM | {"status": 409}, 409, "application/problem+json")]

    aggregator.call("createRequest", {"Idempotency-Key": "k"}, body={"providers": ["gas"]})

    [asked] = stub.asked
    assert (asked.body, asked.headers["content-type"]) == (b'{"providers":["gas"]}', "application/json")
    assert asked.headers["idempotency-key"] == "k"


def test_a_url_is_built_without_a_call(aggregator: Operations, stub: StubServer) -> None:
    assert aggregator.url("getRequest", {"requestId": "r1"}) == f"{stub.url}/api/v1/requests/r1"
    assert stub.asked == []


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (json_reply({"providers": [{"name": "gas"}]}), 'answered 200 with a wrong providers/0: "url" is a required'),
        (json_reply([]), "answered 200 with a wrong document: "),
        (Reply(200, b"{", {"Content-Type": "application/json"}), "answered 200 with broken JSON: "),
        (Reply(200, b"{}", {"Content-Type": "text/html\x1b[31m"}), "answered 200 with Content-Type text/html"),
        (Reply(200, b"{}", {}), "answered 200 with Content-Type missing"),
    ],
)
def test_a_response_with_an_undeclared_body_is_refused(
    aggregator: Operations, stub: StubServer, reply: Reply, complaint: str
) -> None:
    stub.replies = [reply]

    with pytest.raises(ContractBroken) as caught:
        aggregator.call("listProviders")

    assert str(caught.value).startswith(f"listProviders {complaint}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_call_without_response_raises_http_error(aggregator: Operations, stub: StubServer) -> None:
    stub.hang_up()

    with pytest.raises(HttpError, match="connection failed"):
        aggregator.call("listProviders")


LATE = PROBLEM | {"status": 503, "type": "urn:datahog:problem:unavailable"}


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (json_reply(PROBLEM, 401, "application/problem+json"), "answered 401 with no WWW-Authenticate"),
        (
            json_reply(LATE, 503, "application/problem+json", headers={"Retry-After": "soon"}),
            "answered 503 with a wrong Retry-After: soon",
        ),
        (
            json_reply(LATE, 503, "application/problem+json", headers={"Retry-After": "-1"}),
            "answered 503 with a wrong Retry-After: -1",
        ),
        (Reply(418, b"teapot"), "answered HTTP 418 teapot, which its document does not declare"),
    ],
)
def test_undeclared_headers_and_statuses_are_refused(
    aggregator: Operations, stub: StubServer, reply: Reply, complaint: str
) -> None:
    stub.replies = [reply]

    with pytest.raises(ContractBroken) as caught:
        aggregator.call("listProviders")

    assert str(caught.value) == f"listProviders {complaint}"


@pytest.mark.parametrize(
    ("credentials", "header", "value"),
    [
        ({"bearerKey": "k"}, "authorization", "Bearer k"),
        ({"headerKey": "k"}, "x-api-key", "k"),
        ({"headerKey": "other", "bearerKey": "k"}, "authorization", "Bearer k"),
    ],
)
def test_a_credential_goes_into_the_header_of_its_scheme(
    stub: StubServer, credentials: dict[str, str], header: str, value: str
) -> None:
    stub.replies = [json_reply(PROVIDERS)]
    api = Operations(specs.AGGREGATOR, stub.url, Http(pool_size=1), timeouts=Timeouts(1, 1, 2), credentials=credentials)

    api.call("listProviders")

    [asked] = stub.asked
    assert asked.headers[header] == value
    assert ("authorization" in asked.headers) + ("x-api-key" in asked.headers) == 1


def test_a_credential_of_another_scheme_is_not_sent(stub: StubServer) -> None:
    stub.replies = [Reply(204, b"", {})]
    keyed = {"bearerKey": "secret"}
    api = Operations(specs.CLIENT, stub.url, Http(pool_size=1), timeouts=Timeouts(1, 1, 2), credentials=keyed)

    api.call("receiveCallback", {"requestId": "r1"}, body=b"{}", credentials={"webhookSignature": "v1,x"})

    [asked] = stub.asked
    assert asked.headers["webhook-signature"] == "v1,x"
    assert "secret" not in str(asked.headers)


@pytest.mark.parametrize("status", [200, 204, 299, 410, 404, 500, 302])
def test_a_callback_is_posted_to_the_given_url(aggregator: Operations, stub: StubServer, status: int) -> None:
    stub.replies = [Reply(status, b"" if status == 204 else b"as you like", {"Location": "/elsewhere"})]

    reply = aggregator.call(
        "deliverResult",
        {"webhook-id": "msg_1", "webhook-timestamp": "1"},
        to=f"{stub.url}/mine?a=b",
        body=b' {"as": "it is"}',
        credentials={"webhookSignature": "v1,x"},
    )

    [asked] = stub.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/mine?a=b", b' {"as": "it is"}')
    assert (asked.headers["webhook-id"], asked.headers["webhook-timestamp"]) == ("msg_1", "1")
    assert (reply.status, reply.document) == (status, None)


@pytest.mark.parametrize(
    ("operation_id", "arguments", "complaint"),
    [
        ("nope", {}, "there is no operation nope; there are cancelRequest, createRecord, "),
        ("getRequest", {}, "getRequest needs requestId"),
        ("getRequest", {"id": "x"}, "getRequest has no parameter id; it has requestId, wait, results"),
        ("listProviders", {"x": 1, "a": 2}, "listProviders has no parameter a, x; it has none"),
        ("deliverResult", {"webhook-id": "x"}, "deliverResult needs webhook-timestamp"),
        ("deliverResult", {"webhook-id": "x", "webhook-timestamp": "1"}, "deliverResult is a callback: "),
    ],
)
def test_a_wrong_call_is_an_error_and_nothing_is_sent(
    aggregator: Operations, stub: StubServer, operation_id: str, arguments: dict[str, object], complaint: str
) -> None:
    with pytest.raises(BadCall) as caught:
        aggregator.call(operation_id, arguments)

    assert str(caught.value).startswith(complaint)
    assert stub.asked == []
