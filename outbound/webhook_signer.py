"""Signs and verifies callbacks by Standard Webhooks, with several secrets at once for rotation."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SIGNATURE = "webhook-signature"
_HEADERS = ("webhook-id", "webhook-timestamp", SIGNATURE)


class BadSignature(Exception):
    """The signature of a callback is missing, forged or stale, or the callback was altered."""


class Signer:
    """Signs with each secret (`whsec_...`), so that a receiver needs only the old or the new one; verifies with any."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets]

    def headers(self, webhook_id: str, moment: datetime, body: bytes) -> dict[str, str]:
        """Returns the three headers that sign the body, which must be UTF-8 and be sent unchanged."""
        text = body.decode()
        signatures = [webhook.sign(webhook_id, moment, text) for webhook in self._webhooks]
        return dict(zip(_HEADERS, (webhook_id, str(int(moment.timestamp())), " ".join(signatures)), strict=True))

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raises BadSignature unless one of the secrets signed this body less than five minutes ago."""
        given = {name: headers.get(name, "") for name in _HEADERS}
        for webhook in self._webhooks:
            try:
                webhook.verify(body, given, json_parse=False)
                return
            # The library raises ValueError for a malformed signature or body.
            except (WebhookVerificationError, ValueError):
                continue
        raise BadSignature("the signature is missing, wrong, or older than five minutes")
