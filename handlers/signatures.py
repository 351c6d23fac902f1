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
        except BadSignature as error:
            raise Problem("unauthorized", str(error), headers={"WWW-Authenticate": "Webhook-Signature"}) from None

    return check
