"""Calls an operation by its operationId, and checks the response against the OpenAPI document."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jsonschema_rs
import orjson

import specs
from outbound.http_client import Http, HttpError, HttpResponse, Timeouts, printable
from specs.operations import Operation, follow, operations, text
from specs.schemas import validator

# A response may carry fifty results of 5 MB each, and some JSON around them.
_LIMIT_BYTES = 300_000_000
# The part that is read of a response whose body the document does not declare.
_START_BYTES = 65_536
_NUMBERS = {"integer": int, "number": float}
_NONE: Mapping[str, Any] = MappingProxyType({})


class BadCall(Exception):
    """The document lacks the operation, or the operation lacks or needs an argument; the message lists the choices."""


class ContractBroken(HttpError):
    """The document does not declare this response; the message gives the difference."""


@dataclass(frozen=True)
class CheckedResponse:
    """A declared response; `document` is its JSON body, None where the document declares no body."""

    answer: HttpResponse
    document: Any

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.answer.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers; the case of their names does not matter."""
        return self.answer.headers

    @property
    def ok(self) -> bool:
        """Whether the status is a 2xx."""
        return self.answer.ok

    def __str__(self) -> str:
        if self.document is None:
            return str(self.answer)
        detail = self.document.get("detail") if isinstance(self.document, dict) else None
        return f"HTTP {self.status} {detail or ''}".rstrip()


class Operations:
    """The operations of the document `name`, served at `base_url` (scheme, host and port).

    `credentials` are the caller's own, by security scheme; `timeouts` apply to each call.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        http: Http,
        *,
        timeouts: Timeouts,
        credentials: Mapping[str, str] = _NONE,
    ) -> None:
        self._document = specs.read(name)
        self._operations = operations(name)
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._timeouts = timeouts
        self._credentials = credentials
        self._checks: dict[tuple[str, int], _Check] = {}

    def url(self, operation_id: str, arguments: Mapping[str, Any] = _NONE) -> str:
        """Returns the URL of an operation with its path and query parameters filled in. Raises BadCall."""
        return self._base_url + _target(self._find(operation_id), arguments)

    def call(
        self,
        operation_id: str,
        arguments: Mapping[str, Any] = _NONE,
        *,
        body: Any = None,
        to: str | None = None,
        credentials: Mapping[str, str] = _NONE,
        more_seconds: float = 0,
        read: Callable[[bytes], Any] = orjson.loads,
    ) -> CheckedResponse:
        """Calls an operation; `arguments` are by the names of the parameters.

        A body of bytes is sent unchanged, any other value as JSON. `to` is the URL of a callback. `credentials` and
        `more_seconds`, which extend the timeouts, apply to this call only. `read` parses the body of the response, and
        raises ValueError for a wrong one.

        Raises BadCall, HttpError without a response, and ContractBroken for a response that is not declared.
        """
        operation = self._find(operation_id)
        target = _target(operation, arguments)
        if operation.is_callback and to is None:
            raise BadCall(f"{operation_id} is a callback: its receiver serves it, not {self._base_url}")
        headers = {
            parameter["name"]: text(arguments[parameter["name"]])
            for parameter in operation.parameters
            if parameter["in"] == "header" and parameter["name"] in arguments
        }
        headers |= self._proof(operation, {**self._credentials, **credentials})
        if body is not None:
            headers["Content-Type"] = "application/json"
        has_content = any("content" in response for response in operation.responses.values())
        answer = self._http.send(
            operation.method,
            to or self._base_url + target,
            headers=headers,
            body=body if body is None or isinstance(body, bytes) else orjson.dumps(body),
            timeouts=self._timeouts.with_more(more_seconds),
            limit=_LIMIT_BYTES if has_content else _START_BYTES,
            cut=not has_content,
        )
        return CheckedResponse(answer, self._check(operation, answer, read))

    def _find(self, operation_id: str) -> Operation:
        if operation_id not in self._operations:
            raise BadCall(f"there is no operation {operation_id}; there are {', '.join(sorted(self._operations))}")
        return self._operations[operation_id]

    def _proof(self, operation: Operation, credentials: Mapping[str, str]) -> dict[str, str]:
        """Returns the headers of the first security alternative whose credentials are all given, else no header."""
        schemes = self._document["components"]["securitySchemes"]
        for needed in operation.security:
            if needed <= credentials.keys():
                return dict(_header(schemes[name], credentials[name]) for name in needed)
        return {}

    def _check(self, operation: Operation, answer: HttpResponse, read: Callable[[bytes], Any]) -> Any:
        check = self._checks.get((operation.operation_id, answer.status))
        if check is None:
            declared = operation.declared(answer.status)
            if declared is None:
                said = f"{operation.operation_id} answered {answer}, which its document does not declare"
                raise ContractBroken(said)
            check = self._checks[operation.operation_id, answer.status] = _Check(self._document, declared)
        try:
            return check(answer, read)
        except ValueError as error:
            raise ContractBroken(f"{operation.operation_id} answered {answer.status} with {error}") from error


class _Check:
    """Checks responses against one declared response of a document."""

    def __init__(self, document: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
        self._components = document["components"]
        self._headers = {}
        for name, node in declared.get("headers", {}).items():
            header = follow(document, node)
            self._headers[name] = header, validator(header["schema"], self._components)
        self._bodies = {
            media_type: validator(content["schema"], self._components)
            for media_type, content in declared.get("content", {}).items()
        }

    def __call__(self, answer: HttpResponse, read: Callable[[bytes], Any]) -> Any:
        """Returns the JSON body, or None if no body is declared. Raises ValueError for a wrong response."""
        for name, (header, checked) in self._headers.items():
            if name in answer.headers:
                _check_header(name, answer.headers[name], header["schema"], checked)
            elif header.get("required"):
                raise ValueError(f"no {name}")
        return self._read(answer, read) if self._bodies else None

    def _read(self, answer: HttpResponse, read: Callable[[bytes], Any]) -> Any:
        media_type = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if media_type not in self._bodies:
            raise ValueError(f"Content-Type {printable(media_type.encode()) or 'missing'}")
        try:
            document = read(answer.body)
        except ValueError as error:
            raise ValueError(f"broken JSON: {error}") from None
        wrong = next(self._bodies[media_type].iter_errors(document), None)
        if wrong is not None:
            place = "/".join(str(part) for part in wrong.instance_path) or "document"
            raise ValueError(f"a wrong {place}: {printable(wrong.message.encode())}")
        return document


def _check_header(name: str, value: str, schema: Mapping[str, Any], checked: jsonschema_rs.Draft4Validator) -> None:
    try:
        valid = checked.is_valid(_NUMBERS.get(schema["type"], str)(value))
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"a wrong {name}: {printable(value.encode())}")


def _header(scheme: Mapping[str, Any], credential: str) -> tuple[str, str]:
    """Returns the header with the credential; the documents have only these two kinds of schemes."""
    if scheme["type"] == "http":
        return "Authorization", f"{scheme['scheme'].capitalize()} {credential}"
    return scheme["name"], credential


def _target(operation: Operation, arguments: Mapping[str, Any]) -> str:
    """Returns the operation's path and query. Raises BadCall for unknown and for missing arguments."""
    names = {parameter["name"]: parameter.get("required", False) for parameter in operation.parameters}
    if unknown := arguments.keys() - names.keys():
        known = ", ".join(names) or "none"
        raise BadCall(f"{operation.operation_id} has no parameter {', '.join(sorted(unknown))}; it has {known}")
    if missing := [name for name, required in names.items() if required and name not in arguments]:
        raise BadCall(f"{operation.operation_id} needs {', '.join(missing)}")
    return operation.target(arguments)
