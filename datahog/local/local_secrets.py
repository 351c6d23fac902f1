"""Makes the secrets of a stack on one machine, and keeps them beside its data for the next run."""

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

from datahog.settings import Settings
from persistence.api_keys import new_key

WEBHOOK_SECRET, API_KEY = "webhook-secret", "api-key"
_SECRET_BYTES = 32


def fill_in(settings: Settings, *, keep: bool) -> Settings:
    """Returns the settings with each missing secret filled in. Raises OSError.

    With `keep` the secrets are read from the data directory, or made and written there. A stack that other machines
    can reach gets no local API key, because that key has all scopes.
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
    # The format of Standard Webhooks: whsec_ and base64.
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
