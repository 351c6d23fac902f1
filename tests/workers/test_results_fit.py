"""Results fit: the document of any record is valid by the schema of its receiver."""

import json
from itertools import cycle
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

import specs
from handlers.middleware import verbatim
from persistence.records.job import JobStatus
from persistence.records.request import Request
from persistence.records.retrieval import Retrieval, retrieval_from_item
from persistence.results import json_text
from specs.schemas import component, url_fault
from workers.documents import record_document, request_document, result_document, retrieval_document, retrieval_summary

_TIME = "2026-11-24T10:00:00.000Z"
_URLS = st.sampled_from(["http://a", "https://gas.test/" + "x" * 2031, "http://[::1]:65535/%C3%BC?a=';()"])
_ERRORS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.just("\N{PILE OF POO}" * 2500)
_COUNTS = st.sampled_from([0, 1, 2**31 - 1])
_NAMES = st.sampled_from(["a", "0", "a" * 64, "9_-" + "z" * 61])
_IDS = st.sampled_from(["1", "A" * 64, "_-" * 32])
_RESULTS = st.sampled_from(
    [
        b"null",
        b"-0",
        b"1.10",
        b"12345678901234567890123",
        b"1e-400",
        b' {"a":1,"a":[ 2.0 ]}\n',
        b'"\\u00e9"',
        b"[" * 500 + b"]" * 500,
    ]
)


def _job(draw: st.DrawFn, status: JobStatus) -> dict[str, Any]:
    job = {"provider": draw(_NAMES), "url": draw(_URLS), "status": status.value, "attempts": draw(_COUNTS)}
    error = draw(_ERRORS)
    job |= {} if error is None else {"lastError": error}
    return job | ({} if status is JobStatus.INIT else {"endedAt": _TIME})


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    """Generates requests that ended in any way, with the fewest and the most jobs possible."""
    closed = draw(st.sampled_from([None, "CANCELLED", "DEADLINE"]))
    statuses = [JobStatus.DONE, JobStatus.FAILED, *([JobStatus.INIT] if closed else [])]
    kinds = [_job(draw, draw(st.sampled_from(statuses))) for _ in range(draw(st.integers(1, 3)))]
    count = draw(st.sampled_from([1, 2, 50]))
    jobs = [
        kind | {"provider": kind["provider"][:60] + str(at)}
        for at, kind in zip(range(count), cycle(kinds), strict=False)
    ]
    item = {
        "pk": draw(_IDS),
        "jobs": jobs,
        "callbackUrl": draw(_URLS),
        "openJobs": 0,
        "doneJobs": sum(job["status"] == JobStatus.DONE for job in jobs),
        "deadline": _TIME,
        "delivery": {"status": "FAILED", "attempts": draw(_COUNTS), "round": 1, "lastError": draw(_ERRORS)},
        "revision": draw(st.sampled_from([1, 2**31 - 1])),
        "version": 1,
        "fingerprint": "",
        "createdAt": _TIME,
        "updatedAt": _TIME,
    }
    return Request.from_item(item | ({"closed": {"reason": closed, "at": _TIME}} if closed else {}))


def _is_valid(name: str, schema: str, document: dict[str, Any]) -> None:
    errors = component(name, schema).iter_errors(orjson.loads(orjson.dumps(document)))
    assert [error.message[:200] for error in errors] == []


@given(_requests(), st.data())
def test_the_client_accepts_each_result_and_keeps_its_text(request: Request, data: st.DataObject) -> None:
    texts = cycle(data.draw(st.lists(_RESULTS, min_size=1, max_size=3)))
    kept = {job.provider: next(texts) for job in request.jobs if job.status is JobStatus.DONE}

    document, put_back = verbatim.results_of_jobs(orjson.dumps(result_document(request, kept)))

    assert [error.message[:200] for error in component(specs.CLIENT, "Result").iter_errors(document)] == []
    put_back()
    came = {job["provider"]: bytes(job["result"]) for job in document["jobs"] if "result" in job}
    assert came == {name: text.strip() for name, text in kept.items()}


@given(_requests())
def test_request_documents_match_the_aggregators_spec(request: Request) -> None:
    _is_valid(specs.AGGREGATOR, "Request", request_document(request, {}))
    _is_valid(specs.AGGREGATOR, "Record", record_document(request, {}))
    _is_valid(specs.AGGREGATOR, "Result", result_document(request, {}))


@given(_requests(), _ERRORS, st.sampled_from(["PENDING", "ACCEPTED", "REFUSED"]), st.booleans(), st.booleans())
def test_retrieval_documents_match_the_clients_spec(
    request: Request, error: str | None, submitted: str, received: bool, cancelled: bool
) -> None:
    item = {
        "pk": request.request_id,
        "providers": [job.provider for job in request.jobs],
        "deadline": _TIME,
        "submission": {"status": submitted, "attempts": 1, **({"lastError": error} if error else {})},
        "createdAt": _TIME,
        "updatedAt": _TIME,
        "version": 1,
        "newestKey": "",
    }
    item |= {"outcome": orjson.loads(orjson.dumps(result_document(request, {})))} if received else {}
    retrieval: Retrieval = retrieval_from_item(item | ({"cancelledAt": _TIME} if cancelled else {}))

    _is_valid(specs.CLIENT, "ClientRequest", retrieval_document(retrieval, request.callback_url, {}))
    _is_valid(specs.CLIENT, "RequestSummary", retrieval_summary(retrieval))


@given(st.text(max_size=40))
def test_url_fault_finds_each_url_that_the_spec_refuses(rest: str) -> None:
    url = f"http://gas.test/{rest}"
    if component(specs.CLIENT, "HttpUrl").is_valid(url):
        assert url_fault(url) is None or "#" in url
    else:
        assert url_fault(url)


@given(
    st.recursive(
        st.integers() | st.booleans() | st.text('ab{}[]\\"é'),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    )
)
def test_the_client_accepts_each_value_that_a_provider_may_send(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False).encode()
    json_text.parse(text)

    document, put_back = verbatim.results_of_jobs(b'{"jobs":[{"result":' + text + b"}]}")
    put_back()

    assert bytes(document["jobs"][0]["result"]) == text
