"""Sets the outcome of one job as a caller reports it; the same report again changes nothing."""

from handlers.problems import Problem
from persistence.errors import Conflict
from persistence.records.job import Attempt, JobStatus
from persistence.records.request import Request
from persistence.requests import Requests
from persistence.results import json_text
from workers.documents import Document


class JobUpdates:
    """Sets outcomes of jobs. `result_limit` is the size of the largest accepted result in bytes."""

    def __init__(self, requests: Requests, *, result_limit: int) -> None:
        self._requests = requests
        self._result_limit = result_limit

    def apply(self, request_id: str, tenant: str, body: Document) -> tuple[Request, bool]:
        """Sets the outcome in `body`: a `JobUpdate` of the aggregator's document, its result as JSON text.

        Returns the request after the update, and whether the update ended it. Raises NotFound for an unknown request,
        Conflict when the job has ended with another outcome, and Problem for an unknown provider or a large result.
        """
        request = self._requests.get(request_id, tenant)
        job = request.job(body["provider"])
        if job is None:
            known = [job.provider for job in request.jobs]
            detail = f"the request {request_id} has no job for {body['provider']}"
            raise Problem("unknown-provider", detail, known=known)
        try:
            ended = self._end(request.attempt(job), body)
        except Conflict:
            request = self._requests.get(request_id)
            if not self._has_ended_so(request, job.index, body):
                raise
            return request, False
        return ended or self._requests.get(request_id), ended is not None

    def _end(self, attempt: Attempt, body: Document) -> Request | None:
        if body["status"] == JobStatus.FAILED:
            return self._requests.fail_job(attempt, body.get("error", "set to FAILED by hand"), attempts=0)
        result = bytes(body["result"]) if "result" in body else None
        if result is not None and len(result) > self._result_limit:
            raise Problem("unprocessable", f"the result is larger than {self._result_limit} bytes")
        return self._requests.finish_job(attempt, result, attempts=0)

    def _has_ended_so(self, request: Request, index: int, body: Document) -> bool:
        # Two reports of a failure are the same outcome, whatever their errors say; the first error stays.
        job = request.jobs[index]
        if job.status != body["status"]:
            return False
        if job.status is JobStatus.FAILED:
            return True
        kept = self._requests.load_results(request).get(job.provider)
        if kept is None or "result" not in body:
            return kept is None and "result" not in body
        return json_text.same(kept, bytes(body["result"]))
