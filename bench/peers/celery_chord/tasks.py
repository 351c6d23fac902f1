"""The tasks: fetch from one provider, and post the callback with the results of all."""

import json
import os
from datetime import UTC, datetime
from typing import Any

import urllib3
from botocore.exceptions import BotoCoreError, ClientError
from standardwebhooks.webhooks import Webhook

from bench.peers.celery_chord.settings import CONCURRENCY, app
from bench.peers.celery_chord.store import Store

_http = urllib3.PoolManager(num_pools=64, maxsize=CONCURRENCY, retries=False, timeout=urllib3.Timeout(30, connect=3))
_store = Store(connections=CONCURRENCY)
_webhook = Webhook(os.environ["WEBHOOK_SECRET"])
_PROVIDERS_URL = os.environ["PROVIDERS_URL"]
_BACKOFF = {"retry_backoff": True, "retry_backoff_max": 300, "retry_jitter": True}
_STORE_ERRORS = (ClientError, BotoCoreError)


class _Failed(Exception):
    """The other side did not respond with a 2xx."""


def _fetch(task: Any, request_id: str, provider: str) -> dict[str, Any]:
    try:
        answer = _http.request("GET", f"{_PROVIDERS_URL}/{provider}")
        if not 200 <= answer.status < 300:
            raise _Failed(f"HTTP {answer.status}")
        result = answer.json()
    except (urllib3.exceptions.HTTPError, _Failed, ValueError) as error:
        if task.request.retries < task.max_retries:
            raise task.retry(exc=error, countdown=min(300, 2**task.request.retries)) from error
        # A chord never runs its body when a task of its header fails, so a failure is an outcome like any other.
        _store.end_job(request_id, provider, "FAILED", str(error))
        return {"provider": provider, "status": "FAILED", "error": str(error)}
    _store.end_job(request_id, provider, "DONE", json.dumps(result))
    return {"provider": provider, "status": "DONE", "result": result}


def _deliver(jobs: list[dict[str, Any]], request_id: str, callback_url: str) -> None:
    body = json.dumps({"requestId": request_id, "jobs": jobs})
    now = datetime.now(UTC)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": f"msg_{request_id}",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": _webhook.sign(f"msg_{request_id}", now, body),
    }
    answer = _http.request("POST", callback_url, body=body, headers=headers)
    if not 200 <= answer.status < 300:
        raise _Failed(f"HTTP {answer.status}")
    _store.delivered(request_id)


fetch = app.task(_fetch, name="fetch", bind=True, max_retries=20, autoretry_for=_STORE_ERRORS, **_BACKOFF)
deliver = app.task(
    _deliver,
    name="deliver",
    ignore_result=True,
    max_retries=20,
    autoretry_for=(urllib3.exceptions.HTTPError, _Failed, *_STORE_ERRORS),
    **_BACKOFF,
)
