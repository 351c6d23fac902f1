"""Signatures: a callback that nobody who knows the secret has sent is refused before anybody looks into it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool

from handlers.problems import Problem
from outbound.webhook_signer import BadSignature, Signer

# Threads that look whether a request is there whose result somebody wants to send; the others do other things.
_LOOKS = 4


class SignedCallbacks:
    """A `request_body.BodyCheck`: large bodies for the requests that there are, and none but those that are signed.

    The signature covers all of a body, so that a stranger's is refused when it is there. `look_up` raises NotFound.
    """

    def __init__(self, signer: Signer, look_up: Callable[[str], object]) -> None:
        self._signer = signer
        self._look_up = look_up
        self._looks = asyncio.Semaphore(_LOOKS)

    async def expect(self, arguments: Mapping[str, Any]) -> None:
        """Raises what `look_up` does: the ids are not to be guessed."""
        async with self._looks:
            await run_in_threadpool(self._look_up, arguments["request_id"])

    def check(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises Problem (401) for a body that the signer does not know for signed, lately, as it is."""
        try:
            self._signer.verify(headers, body)
        except BadSignature:
            raise bad_signature() from None


def bad_signature() -> Problem:
    """The refusal of a callback whose signature is not good, or not there."""
    detail = "the callback's signature is missing, wrong, or older than five minutes"
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Webhook-Signature"})
