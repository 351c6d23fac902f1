"""Calls an API by its OpenAPI document: an operationId and arguments go in, a checked answer comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema_rs
import orjson

import specs
from workers.http import Answer, Http, HttpError, Timeouts, printable

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
# Fifty results of 5 MB each, and what surrounds them.
_LIMIT = 300_000_000


class ContractBroken(HttpError):
    """The answer is not one that the document declares; the message says how."""


@dataclass(frozen=True)
class Reply:
    """A declared answer: its status and its JSON body, None where there is none."""

    status: int
    document: Any

    @property
    def ok(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        detail = self.document.get("detail") if isinstance(self.document, dict) else None
        return f"HTTP {self.status} {detail or ''}".rstrip()


@dataclass(frozen=True)
class _Operation:
    method: str
    path: str
    parameters: list[dict[str, Any]]
    responses: dict[str, dict[str, Any]]


class Operations:
    """The operations of one document, served at `base_url` (scheme, host and port). `timeouts` hold for each call."""

    def __init__(self, name: str, base_url: str, http: Http, *, timeouts: Timeouts) -> None:
        self._document = specs.read(name)
        self._root = base_url.rstrip("/") + specs.base_path(name)
        self._http = http
        self._timeouts = timeouts
        self._operations = {
            operation["operationId"]: self._read(method, path, item, operation)
            for path, item in self._document["paths"].items()
            for method, operation in item.items()
            if method in _METHODS
        }

    def url(self, operation_id: str, arguments: Mapping[str, Any]) -> str:
        """The URL of an operation with its path and query parameters filled in."""
        operation = self._operations[operation_id]
        path, query = operation.path, {}
        for parameter in operation.parameters:
            name = parameter["name"]
            if name not in arguments:
                continue
            if parameter["in"] == "path":
                path = path.replace("{" + name + "}", quote(_text(arguments[name]), safe=""))
            elif parameter["in"] == "query":
                query[name] = _text(arguments[name])
        return self._root + path + (f"?{urlencode(query)}" if query else "")

    def call(self, operation_id: str, *, body: Any = None, **arguments: Any) -> Reply:
        """Call an operation; arguments bear the parameters' names.

        Raises HttpError when no answer came, and ContractBroken for one that the document does not declare.
        """
        operation = self._operations[operation_id]
        headers = {
            parameter["name"]: _text(arguments[parameter["name"]])
            for parameter in operation.parameters
            if parameter["in"] == "header" and parameter["name"] in arguments
        }
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(body)
        answer = self._http.send(
            operation.method,
            self.url(operation_id, arguments),
            headers=headers,
            body=content,
            timeouts=self._timeouts,
            limit=_LIMIT,
        )
        declared = operation.responses.get(str(answer.status)) or operation.responses.get("default")
        if declared is None:
            raise ContractBroken(f"{operation_id} answered {answer}, which its document does not declare")
        return Reply(answer.status, self._check(operation_id, declared, answer))

    def _check(self, operation_id: str, declared: Mapping[str, Any], answer: Answer) -> Any:
        content = declared.get("content")
        if not content:
            return None
        media_type = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if media_type not in content:
            shown = printable(media_type.encode()) or "missing"
            raise ContractBroken(f"{operation_id} answered {answer.status} with Content-Type {shown}")
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError as error:
            raise ContractBroken(f"{operation_id} answered {answer.status} with broken JSON: {error}") from error
        wrong = next(content[media_type]["validator"].iter_errors(document), None)
        if wrong is not None:
            place = "/".join(str(part) for part in wrong.instance_path) or "document"
            raise ContractBroken(f"{operation_id} answered with a wrong {place}: {printable(wrong.message.encode())}")
        return document

    def _read(self, method: str, path: str, item: Mapping[str, Any], operation: Mapping[str, Any]) -> _Operation:
        parameters = [self._follow(p) for p in (*item.get("parameters", ()), *operation.get("parameters", ()))]
        responses = {}
        for status, response in operation["responses"].items():
            content = {
                media_type: {"validator": self._validator(declared["schema"])}
                for media_type, declared in self._follow(response).get("content", {}).items()
            }
            responses[status] = {"content": content}
        return _Operation(method.upper(), path, parameters, responses)

    def _validator(self, schema: Mapping[str, Any]) -> jsonschema_rs.Draft4Validator:
        # The components come along so that references into them are found.
        whole = {"allOf": [schema], "components": self._document["components"]}
        return jsonschema_rs.Draft4Validator(whole, validate_formats=True)

    def _follow(self, node: dict[str, Any]) -> dict[str, Any]:
        """What a reference within the document refers to."""
        while "$ref" in node:
            found: Any = self._document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = found
        return node


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
