"""The secrets of a stack on one machine: made by themselves, and kept beside its data for the next time."""

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

from datahog.settings import Settings
from persistence.api_keys import new_key

WEBHOOK_SECRET, API_KEY = "webhook-secret", "api-key"
_SECRET_BYTES = 32


def fill_in(settings: Settings, *, keep: bool) -> Settings:
    """The settings with a secret for whatever has none; with `keep` they are those of the last time. Raises OSError.

    A stack that can be reached from elsewhere gets no API key: it would open everything to whoever has seen it.
    """
    changes: dict[str, object] = {}
    make = _kept(settings.data_dir) if keep else _fresh
    if not settings.webhook_secrets:
        changes["webhook_secrets"] = (make(WEBHOOK_SECRET),)
    if settings.is_local:
        changes["local_key"] = settings.local_key or make(API_KEY)
        changes["aggregator_key"] = settings.aggregator_key or changes["local_key"]
    return settings.model_copy(update=changes)


def _fresh(name: str) -> str:
    if name == API_KEY:
        return new_key()
    # Standard Webhooks: whsec_ and base64.
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _kept(directory: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        path = directory / name
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(_fresh(name) + "\n")
            draft.replace(path)
        return path.read_text().strip()

    return make
