"""`call`: calls any operation of either API by its operationId, and prints what comes back."""

import argparse
import json
import sys
from typing import Any

import specs
from datahog.settings import Settings
from specs.operations import operations
from workers.http import Http, HttpError, Timeouts
from workers.operations import BadCall, Operations

# Seconds. A read may be held back for 30.
_TIMEOUTS = Timeouts(connect=5, read=40, total=60)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("api", choices=(specs.CLIENT, specs.AGGREGATOR))
    parser.add_argument("operation", metavar="operationId", help=f"for example {_some(specs.CLIENT)}")
    parser.add_argument("parameters", nargs="*", metavar="name=value", help="parameters, for example wait=30")
    parser.add_argument("--body", metavar="JSON", help="the body; - reads it from standard input")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the answer's body; 0 for a 2xx, 1 for another answer or none, 2 for what cannot be called."""
    url = settings.api_urls[arguments.api]
    credentials = {"bearerKey": settings.api_key} if settings.api_key else {}
    api = Operations(arguments.api, url, Http(pool_size=1), timeouts=_TIMEOUTS, credentials=credentials)
    try:
        parameters = _parameters(arguments.parameters)
        reply = api.call(arguments.operation, parameters, body=_body(arguments.body))
    except BadCall as error:
        return _complain(str(error), 2)
    except HttpError as error:
        return _complain(f"{api.url(arguments.operation, parameters)}: {error}", 1)
    if reply.document is not None:
        print(json.dumps(reply.document, indent=2))
    return 0 if reply.ok else 1


def _parameters(given: list[str]) -> dict[str, str]:
    """Raises BadCall."""
    if wrong := [text for text in given if "=" not in text]:
        raise BadCall(f"a parameter is given as name=value, not as {wrong[0]!r}")
    return dict(text.split("=", 1) for text in given)


def _body(text: str | None) -> Any:
    """Raises BadCall."""
    if text is None:
        return None
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise BadCall(f"the body is not JSON: {error}") from None


def _some(name: str) -> str:
    return ", ".join(sorted(operations(name))[:3])


def _complain(message: str, code: int) -> int:
    print(f"datahog call: {message}", file=sys.stderr)
    return code
