"""`call`: calls any operation of either API by its operationId and prints the response."""

import argparse
import re
import sys

import specs
from datahog.settings import Settings
from outbound.http_client import Http, HttpError, Timeouts
from outbound.openapi_caller import BadCall, Operations
from persistence.results import json_text
from specs.operations import operations

# A long poll may hold a response back for 30 s.
_TIMEOUTS = Timeouts(connect=5, read=40, total=60)

# Splits a JSON text into strings, literals and punctuation; an empty array or object is one part.
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*+"|\[\s*\]|\{\s*\}|[\[\]{},:]|[^\s\[\]{},:"]+')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("api", choices=(specs.CLIENT, specs.AGGREGATOR))
    parser.add_argument("operation", metavar="operationId", help=f"for example {_some(specs.CLIENT)}")
    parser.add_argument("parameters", nargs="*", metavar="name=value", help="parameters, for example wait=30")
    parser.add_argument("--body", metavar="JSON", help="the body; - reads it from standard input")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Prints the body of the response; returns 0 for a 2xx, 1 for any other response or none, 2 for a wrong call."""
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
        print(_indented(reply.answer.body.decode(), sys.stdout.encoding))
    return 0 if reply.ok else 1


def _parameters(given: list[str]) -> dict[str, str]:
    """Returns the parameters by name. Raises BadCall."""
    if wrong := [text for text in given if "=" not in text]:
        raise BadCall(f"a parameter is given as name=value, not as {wrong[0]!r}")
    return dict(text.split("=", 1) for text in given)


def _body(text: str | None) -> bytes | None:
    """Returns the body exactly as it was given; `-` reads standard input. Raises BadCall."""
    if text is None:
        return None
    try:
        body = (sys.stdin.read() if text == "-" else text).encode()
        json_text.parse(body)
    except ValueError as error:
        raise BadCall(f"the body is {error}") from None
    return body


def _indented(text: str, encoding: str) -> str:
    """Indents a JSON text without respelling its parts; escapes the characters that a terminal cannot show."""
    unicode = encoding.lower() in ("utf-8", "utf8")
    parts: list[str] = []
    depth = 0
    for part in _PARTS.findall(text):
        if part in ("]", "}"):
            depth -= 1
            parts.append("\n" + "  " * depth)
        elif part in ("[", "{"):
            depth += 1
        parts.append(part[0] + part[-1] if part[0] in "[{" and len(part) > 1 else _shown(part, unicode))
        if part in ("[", "{", ","):
            parts.append("\n" + "  " * depth)
        elif part == ":":
            parts.append(" ")
    return "".join(parts)


def _shown(part: str, unicode: bool) -> str:
    # Control characters could give commands to the terminal.
    if part.isprintable() and (unicode or part.isascii()):
        return part
    return "".join(
        character if character.isprintable() and (unicode or character.isascii()) else _escaped(character)
        for character in part
    )


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _some(name: str) -> str:
    return ", ".join(sorted(operations(name))[:3])


def _complain(message: str, code: int) -> int:
    print(f"datahog call: {message}", file=sys.stderr)
    return code
