"""Gives valid Schemathesis cases known providers, deadlines and signatures, and keeps callbacks on this machine."""

import os
import re
from collections import deque
from datetime import timedelta
from typing import Any

import requests
import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

from outbound.webhook_signer import Signer
from persistence.records.timestamps import to_text, utc_now
from simulator.bills import PROVIDERS
from tests.fuzz.campaign import CALLER, Caller
from tests.support.system import SECRET

_AUTHORITY = re.compile(r"(?<=://)[^/?#]+")
_SIGNER = Signer([SECRET])
_CALLER = Caller(os.environ[CALLER])
_asked: deque[str] = deque(maxlen=20)


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Changes each case before it is sent; `kwargs` are the arguments for `requests`."""
    if case.meta is None or not isinstance(case.body, dict):
        return
    body: dict[str, Any] = dict(case.body)
    url = body.get("callbackUrl")
    if isinstance(url, str) and len(url) <= 2048:
        # No callback may go to a host that Schemathesis made up.
        body["callbackUrl"] = _AUTHORITY.sub("127.0.0.1:9", url)[:2048]
    if case.meta.generation.mode.is_positive:
        if len(body.get("providers", ())) in range(1, len(PROVIDERS) + 1):
            body["providers"] = list(PROVIDERS[: len(body["providers"])])
        if "deadline" in body and case.meta.phase.name.value == "fuzzing":
            body["deadline"] = to_text(utc_now() + timedelta(days=1))
        if "provider" in body:
            body["provider"] = PROVIDERS[len(body["provider"]) % 2]
        if "revision" in body and _CALLER is Caller.KEY:
            if _asked:
                case.path_parameters = {"requestId": _asked[0]}
            body["requestId"] = case.path_parameters["requestId"]
            kwargs["auth"] = _sign
    case.body = body


@schemathesis.hook
def after_call(_: HookContext, case: Case[Any], response: Response) -> None:
    """Remembers the ids of accepted requests, for later callbacks."""
    if case.operation.definition.raw.get("operationId") == "createRequest" and response.status_code == 202:
        _asked.append(response.json()["requestId"])


@schemathesis.check
def callers_are_told_apart(_ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """A caller with a key is never refused for its key; a caller without one is refused for every other content."""
    refused = response.status_code in (401, 403)
    # Paths and methods are public: the document lists them.
    public = response.status_code in (404, 405) or response.request.method == "OPTIONS"
    if case.operation.definition.raw["operationId"] == "receiveCallback":
        # This operation checks signatures instead of keys, and validates other headers before them.
        assert _CALLER is Caller.KEY or public or response.status_code >= 400, "an unsigned callback was accepted"
    elif _CALLER is Caller.KEY or not case.operation.definition.raw["security"]:
        assert not refused, "a caller who may call was refused"
    else:
        assert refused or public, "a caller without the key was accepted"


def _sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    body = request.body or b""
    raw = body.encode() if isinstance(body, str) else body
    request.headers.update(_SIGNER.headers("msg_fuzzed", utc_now(), raw))
    return request
