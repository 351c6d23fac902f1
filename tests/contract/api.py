"""Calls an API and checks each response against its document."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import requests

import specs
from specs.operations import follow
from tests.support.system import API_KEY, eventually

METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
PROBLEM = "application/problem+json"


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The path, the method and the declaration of each operation under `paths`."""
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft4Validator:
    """The validator of a schema that may refer to the document's components."""
    whole = {"allOf": [schema], "components": document["components"]}
    return jsonschema_rs.Draft4Validator(whole, validate_formats=True)


class Api:
    """The API of the document `name`, served at `base_url` (base path included)."""

    def __init__(self, name: str, base_url: str) -> None:
        self.name = name
        self.url = base_url
        self.document = specs.read(name)
        self._operations = {o["operationId"]: (path, method, o) for path, method, o in operations(self.document)}

    def call(
        self, operation_id: str, request_id: str = "", *, key: str | None = API_KEY, **arguments: Any
    ) -> requests.Response:
        """Call an operation with the arguments of `requests`; fails unless its document declares the response."""
        path, method, _ = self._operations[operation_id]
        url = self.url + path.replace("{requestId}", request_id)
        headers = ({"Authorization": f"Bearer {key}"} if key else {}) | (arguments.pop("headers", None) or {})
        response = requests.request(method, url, timeout=40, allow_redirects=False, headers=headers, **arguments)
        self.check(operation_id, response)
        return response

    def check(self, operation_id: str, response: requests.Response) -> None:
        """Fails unless the operation declares the status, the headers and the body of the response."""
        declared = self._operations[operation_id][2]["responses"]
        said = f"{operation_id} responded {response.status_code}: {response.text[:500]}"
        assert str(response.status_code) in declared, said
        declaration = follow(self.document, declared[str(response.status_code)])
        self._check_headers(declaration.get("headers", {}), response, said)
        if "content" not in declaration:
            assert not response.content, said
            return
        media_type = response.headers["Content-Type"]
        assert media_type in declaration["content"], said
        errors = validator(self.document, declaration["content"][media_type]["schema"]).iter_errors(response.json())
        assert [error.message for error in errors] == [], said
        if media_type == PROBLEM:
            check_problem(response)

    def _check_headers(self, declared: dict[str, Any], response: requests.Response, said: str) -> None:
        for name, reference in declared.items():
            header = follow(self.document, reference)
            if name not in response.headers:
                assert not header.get("required"), f"{said} without {name}"
                continue
            text = response.headers[name]
            value = int(text) if header["schema"]["type"] == "integer" else text
            assert validator(self.document, header["schema"]).is_valid(value), f"{said} with {name}: {text}"
        for name in {"Location", "Retry-After", "Allow", "WWW-Authenticate"} - set(declared):
            assert name not in response.headers, f"{said} with {name}, which is not declared"


def check_problem(response: requests.Response) -> dict[str, Any]:
    """Returns the problem document; fails unless it has a Datahog type, a short detail and no internals."""
    assert response.headers["Content-Type"] == PROBLEM, response.text
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    assert re.fullmatch(r"urn:datahog:problem:[a-z]+(-[a-z]+)*", problem["type"])
    assert 10 <= len(problem["detail"]) <= 400, problem["detail"]
    assert not re.search(r"Traceback|\.py\b|Error\(|\{'|additionalProperties", problem["detail"]), problem["detail"]
    return problem


def read_until_ended(api: Api, request_id: str) -> dict[str, Any]:
    """Waits until the request has ended, and returns its document."""

    def poll() -> Any:
        document = api.call("getRequest", request_id, params={"wait": 5}).json()
        return document["status"] != "OPEN" and document

    document: dict[str, Any] = eventually(poll)
    return document
