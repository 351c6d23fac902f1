"""Relayed results: cut out of a body as the very text that the providers sent, and handed on as such."""

from typing import Any

import msgspec

from persistence.results import json_text

_NULL = msgspec.Raw(b"null")
_read_document = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_jobs = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def cut_out(body: bytes) -> tuple[Any, list[msgspec.Raw | None]]:
    """The value of a `Result` or `Request` with each job's result null, and these as JSON text, job by job.

    The texts are views of the body, which may be hundreds of megabytes.

    Read and written again, a result would not be what it was: numbers have more digits than programs keep, and an
    object two members of one name. Its value may also take many times its size, so that there is never more than one.

    Raises ValueError for what is not JSON, or nested too deeply.
    """
    try:
        document = _read_document(body)
        jobs = _read_jobs(document["jobs"])
    except (msgspec.ValidationError, KeyError):
        # It has no jobs, which is for the schema to say.
        return json_text.parse(body), []
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    results = [job.get("result") for job in jobs]
    for result in results:
        if result is not None:
            json_text.parse(bytes(result))
    document["jobs"] = msgspec.Raw(msgspec.json.encode([_without_result(job) for job in jobs]))
    return json_text.parse(msgspec.json.encode(document)), results


def _without_result(job: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return job | {"result": _NULL} if "result" in job else job
