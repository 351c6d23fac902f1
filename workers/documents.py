"""JSON documents: builds those that the specs declare from records. A result is the very text that was stored."""

from collections.abc import Mapping
from typing import Any

import orjson

from persistence.records.job import Job, JobStatus
from persistence.records.request import Request
from persistence.records.retrieval import Retrieval, Submission

Document = dict[str, Any]

# Characters that both specs allow in an `ErrorText`. A receiver would refuse a document with a longer one.
_LONGEST_ERROR = 1000
Results = Mapping[str, bytes]


def request_document(request: Request, results: Results) -> Document:
    """`Request` of the aggregator's spec, with the given results (JSON text by provider)."""
    delivery = request.delivery
    return {
        "requestId": request.request_id,
        "status": request.status,
        "jobs": [_job(job, results) for job in request.jobs],
        "callbackUrl": request.callback_url,
        "openJobs": request.open_jobs,
        "deadline": request.deadline,
        "delivery": {
            "status": delivery.status,
            "attempts": delivery.attempts,
            "webhookId": delivery.webhook_id,
            **_present(lastError=_error(delivery.last_error), nextAttemptAt=delivery.next_attempt_at),
        },
        "revision": request.revision,
        "createdAt": request.created_at,
        "updatedAt": request.updated_at,
        **_present(endedAt=request.ended_at),
    }


def record_document(request: Request, results: Results) -> Document:
    """`Record` of the aggregator's spec: the request, and whether all of its jobs have ended."""
    return {**request_document(request, results), "ended": request.ended}


def result_document(request: Request, results: Results) -> Document:
    """`Result` of both specs: the body that is posted to the callback URL of an ended request."""
    return {
        "requestId": request.request_id,
        "status": request.status,
        "revision": request.revision,
        "jobs": [_job(job, results) for job in request.jobs],
        "callbackUrl": request.callback_url,
        "createdAt": request.created_at,
        "endedAt": request.ended_at,
    }


def retrieval_document(
    retrieval: Retrieval, callback_url: str, results: Results, live_jobs: list[Document] | None = None
) -> Document:
    """`ClientRequest` of the client's spec; `live_jobs` are the aggregator's while the request is open."""
    return {
        "requestId": retrieval.request_id,
        "status": retrieval.status,
        "jobs": _retrieval_jobs(retrieval, results, live_jobs),
        "callbackUrl": callback_url,
        "submission": _submission(retrieval.submission),
        "createdAt": retrieval.created_at,
        "updatedAt": retrieval.updated_at,
        **_present(endedAt=retrieval.ended_at),
    }


def retrieval_summary(retrieval: Retrieval) -> Document:
    """One row of the client's list."""
    return {
        "requestId": retrieval.request_id,
        "status": retrieval.status,
        "providers": list(retrieval.providers),
        "createdAt": retrieval.created_at,
        **_present(endedAt=retrieval.ended_at),
    }


def _job(job: Job, results: Results) -> Document:
    return {
        "provider": job.provider,
        "url": job.url,
        "status": job.status,
        "attempts": job.attempts,
        **_present(lastError=_error(job.last_error), nextAttemptAt=job.next_attempt_at, endedAt=job.ended_at),
        **_result(job.provider, results),
    }


def _retrieval_jobs(retrieval: Retrieval, results: Results, live_jobs: list[Document] | None) -> list[Document]:
    if retrieval.outcome:
        return [_received_job(job, results) for job in retrieval.outcome["jobs"]]
    if retrieval.ended_at:
        status = JobStatus.CANCELLED if retrieval.cancelled_at else JobStatus.FAILED
        ended = _present(endedAt=retrieval.ended_at, lastError=_error(retrieval.submission.last_error))
        return [{"provider": name, "status": status, "attempts": 0, **ended} for name in retrieval.providers]
    return live_jobs or [{"provider": name, "status": JobStatus.INIT, "attempts": 0} for name in retrieval.providers]


def _received_job(job: Document, results: Results) -> Document:
    # DynamoDB does not keep the order of a map's members; people expect one.
    names = ("provider", "url", "status", "attempts", "lastError", "endedAt")
    return {name: job[name] for name in names if name in job} | _result(job["provider"], results)


def _submission(submission: Submission) -> Document:
    return {
        "status": submission.status,
        "attempts": submission.attempts,
        **_present(lastError=_error(submission.last_error), nextAttemptAt=submission.next_attempt_at),
    }


def _result(provider: str, results: Results) -> Document:
    return {"result": orjson.Fragment(results[provider])} if provider in results else {}


def _error(text: str | None) -> str | None:
    return text and text[:_LONGEST_ERROR]


def _present(**members: str | None) -> Document:
    return {name: value for name, value in members.items() if value is not None}
