"""Calls by operationId: what is sent is what the document declares, and an answer that it does not is refused."""

import pytest

import specs
from tests.unit.servers import Reply, StubServer, json_reply
from workers.http import Http, HttpError, Timeouts
from workers.operations import ContractBroken, Operations

PROVIDERS = {"providers": [{"name": "gas", "url": "http://gas"}]}
PROBLEM = {"type": "https://datahog.dev/problems/not-found", "title": "Not found", "status": 404, "detail": "no r1"}


@pytest.fixture
def aggregator(stub: StubServer) -> Operations:
    """The aggregator's operations, answered by the stub."""
    return Operations(specs.AGGREGATOR, f"{stub.url}/", Http(pool_size=1), timeouts=Timeouts(1, 1, 2))


def test_a_declared_answer_comes_back_as_a_document(aggregator: Operations, stub: StubServer) -> None:
    stub.replies = [json_reply(PROVIDERS)]

    reply = aggregator.call("listProviders")

    assert (reply.status, reply.ok, reply.document) == (200, True, PROVIDERS)
    assert [(asked.method, asked.path) for asked in stub.asked] == [("GET", "/api/v1/providers")]


def test_arguments_go_where_the_document_says(aggregator: Operations, stub: StubServer) -> None:
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


def test_a_url_is_filled_in_without_a_call(aggregator: Operations, stub: StubServer) -> None:
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
def test_an_answer_that_the_document_does_not_declare_is_refused(
    aggregator: Operations, stub: StubServer, reply: Reply, complaint: str
) -> None:
    stub.replies = [reply]

    with pytest.raises(ContractBroken) as caught:
        aggregator.call("listProviders")

    assert str(caught.value).startswith(f"listProviders {complaint}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_no_answer_is_an_error_of_http(aggregator: Operations, stub: StubServer) -> None:
    stub.hang_up()

    with pytest.raises(HttpError, match="connection failed"):
        aggregator.call("listProviders")
