"""Signatures: a callback that nobody who knows the secret has sent is refused before anybody looks into it."""

from collections.abc import Mapping

from handlers.bodies import BodyCheck
from handlers.problems import Problem
from workers.signing import BadSignature, Signer


def signature_check(signer: Signer) -> BodyCheck:
    """Raises Problem (401) for a body that the signer does not know for signed, lately, as it is."""

    def check(headers: Mapping[str, str], body: bytes) -> None:
        try:
            signer.verify(headers, body)
        except BadSignature:
            raise bad_signature() from None

    return check


def bad_signature() -> Problem:
    """The refusal of a callback whose signature is not good, or not there."""
    detail = "the callback's signature is missing, wrong, or older than five minutes"
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Webhook-Signature"})
