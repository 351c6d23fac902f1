"""A user's program over the generated Python clients; mypy checks it, and the tests run it."""

from datetime import datetime

import datahog_aggregator.models as aggregator
import datahog_client.models as client
from datahog_aggregator import AuthenticatedClient as AggregatorApi
from datahog_aggregator.api.requests import create_request as create_at_aggregator
from datahog_aggregator.api.requests import get_request as get_from_aggregator
from datahog_client import AuthenticatedClient as ClientApi
from datahog_client.api.requests import create_request, get_request, list_requests


def complete_at_client(api: ClientApi, providers: list[str], deadline: datetime) -> client.ClientRequest:
    """Create a request at the client, and wait until it has ended."""
    created = create_request.sync_detailed(client=api, body=client.NewRequest(providers=providers, deadline=deadline))
    assert created.status_code == 202, created.content
    request = created.parsed
    while isinstance(request, client.ClientRequest) and request.status == client.RequestStatus.OPEN:
        request = get_request.sync(request.request_id, client=api, wait=3)
    assert isinstance(request, client.ClientRequest), request
    return request


def complete_at_aggregator(api: AggregatorApi, providers: list[str], callback_url: str) -> aggregator.Request:
    """Create a request at the aggregator, and wait until it has ended."""
    created = create_at_aggregator.sync_detailed(
        client=api,
        body=aggregator.NewRequest(providers=providers, callback_url=callback_url),
        idempotency_key=callback_url,
    )
    assert created.status_code == 202, created.content
    request = created.parsed
    while isinstance(request, aggregator.Request) and request.status == aggregator.RequestStatus.OPEN:
        request = get_from_aggregator.sync(request.request_id, client=api, wait=3)
    assert isinstance(request, aggregator.Request), request
    return request


def amounts(request: client.ClientRequest | aggregator.Request) -> dict[str, float]:
    """The total amount of each provider that has a result."""
    jobs = request.jobs
    return {job.provider: sum(bill["amount"] for bill in job.result) for job in jobs if isinstance(job.result, list)}


def newest(api: ClientApi) -> client.RequestSummary:
    """The newest request."""
    page = list_requests.sync(client=api, limit=1)
    assert isinstance(page, client.RequestList), page
    return page.requests[0]


def problem_of(api: ClientApi, *, providers: list[str] | None = None, request_id: str = "") -> client.Problem:
    """The problem of creating a request for these providers, or else of reading this request."""
    if providers is not None:
        response = create_request.sync(client=api, body=client.NewRequest(providers=providers))
    else:
        response = get_request.sync(request_id, client=api)
    assert isinstance(response, client.Problem), response
    return response
