"""Rejects unsigned callbacks before parsing them."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool

from handlers.problems import Problem
from outbound.webhook_signer import BadSignature, Signer

# Concurrent lookups of requests for large callbacks. The limit leaves most of the thread pool to other calls.
_LOOKUPS = 4


class SignedCallbacks:
    """A `request_body.BodyCheck`: accepts large bodies for existing requests only, and signed bodies only.

    The signature covers the whole body, so it can be verified only after the whole body was received. `look_up` takes
    a request id and raises NotFound.
    """

    def __init__(self, signer: Signer, look_up: Callable[[str], object]) -> None:
        self._signer = signer
        self._look_up = look_up
        self._looks = asyncio.Semaphore(_LOOKUPS)

    async def expect(self, arguments: Mapping[str, Any]) -> None:
        """Raises what `look_up` raises. Ids cannot be guessed, so only callers that know one can send a large body."""
        async with self._looks:
            await run_in_threadpool(self._look_up, arguments["request_id"])

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises Problem (401) unless the signature is valid for this body and recent."""
        try:
            self._signer.verify(headers, body)
        except BadSignature:
            raise bad_signature() from None


def bad_signature() -> Problem:
    """Returns the problem for a callback whose signature is missing or not valid."""
    detail = "the callback's signature is missing, wrong, or older than five minutes"
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Webhook-Signature"})
