"""The two OpenAPI documents are valid, closed, bounded, with examples, and share equal components."""

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

import specs
from handlers.problems import Problem
from specs.operations import follow
from tests.contract.api import PROBLEM, operations, validator

_each_document = pytest.mark.parametrize("document", [specs.read(specs.AGGREGATOR), specs.read(specs.CLIENT)])
# Components that differ between the documents: new requests, refusals, and whether the signature headers are required.
_DIFFERING = {"NewRequest", "Conflict", "Unprocessable", "WebhookId", "WebhookTimestamp"}
# These have no example, because Swagger UI would send it: an invented cursor is refused, a used key is rejected.
_WITHOUT_EXAMPLE = {"Cursor", "IdempotencyKey"}


@_each_document
def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert [str(error) for error in OpenAPIV30SpecValidator(document).iter_errors()] == []


def test_shared_components_are_equal() -> None:
    one, other = (specs.read(name)["components"] for name in (specs.AGGREGATOR, specs.CLIENT))

    shared = {
        (kind, name)
        for kind in ("schemas", "securitySchemes", "headers", "parameters", "responses")
        for name in (one[kind].keys() & other[kind].keys()) - _DIFFERING
    }

    names = {name for _, name in shared}
    assert names >= {"Result", "Problem", "Job", "EndedJob", "RequestStatus", "JobStatus", "RequestId"}
    assert names >= {
        "bearerKey",
        "headerKey",
        "webhookSignature",
        "WwwAuthenticate",
        "Unauthorized",
        "Forbidden",
        "TooManyRequests",
    }
    for kind, name in shared:
        assert one[kind][name] == other[kind][name], name


@_each_document
def test_every_operation_needs_a_key_and_names_its_scope(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        if operation["security"] == [{"webhookSignature": []}] or path in ("/healthz", "/readyz"):
            continue
        assert operation["security"] == [{"bearerKey": []}, {"headerKey": []}], path
        assert f"Needs the scope `{operation['x-required-scope']}`." in operation["description"], path
        assert {"403", "429"} <= operation["responses"].keys(), path


@_each_document
def test_error_responses_declare_their_headers(document: dict[str, Any]) -> None:
    expected = {
        "401": "WWW-Authenticate",
        "403": "WWW-Authenticate",
        "405": "Allow",
        "429": "Retry-After",
        "503": "Retry-After",
    }

    for path, _, operation in operations(document):
        for status, header in expected.items():
            if status in operation["responses"]:
                assert header in follow(document, operation["responses"][status])["headers"], (path, status)


def test_the_posted_result_equals_the_received_result() -> None:
    aggregator, client = specs.read(specs.AGGREGATOR), specs.read(specs.CLIENT)
    receiving = client["paths"]["/callbacks/{requestId}"]["post"]

    one, *others = [{**post, "operationId": None} for post in _callbacks(aggregator)]

    assert follow(aggregator, one["requestBody"])["content"] == receiving["requestBody"]["content"]
    # Each is written out, because openapi-python-client supports no reference to a callback; so they could diverge.
    assert others == [one]


@_each_document
def test_every_operation_is_described_and_declares_its_errors(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        assert {"operationId", "summary", "description", "tags", "security"} <= operation.keys(), path
        expected = {"400", "405", "500"} | ({"401", "503"} if operation["security"] else set())
        expected |= {"408", "413", "415"} if "requestBody" in operation else set()
        assert expected <= operation["responses"].keys(), path
        # A default would declare every response.
        assert "default" not in operation["responses"], path


@_each_document
def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                content = follow(document, response)["content"]
                assert content[PROBLEM]["schema"] == {"$ref": "#/components/schemas/Problem"}, (path, status)


@_each_document
def test_every_content_has_valid_examples(document: dict[str, Any]) -> None:
    contents = list(_contents(document))

    for content in contents:
        examples = [follow(document, example)["value"] for example in content["examples"].values()]
        assert examples
        for example in examples:
            errors = validator(document, content["schema"]).iter_errors(example)
            assert [error.message for error in errors] == [], example

    assert len(contents) > 20


@_each_document
def test_the_first_example_of_a_body_works_on_any_day(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            first = follow(document, next(iter(content["examples"].values())))["value"]
            assert "deadline" not in first, path


@_each_document
def test_every_parameter_and_header_has_a_valid_example(document: dict[str, Any]) -> None:
    components = document["components"]
    for name, declared in (components["parameters"] | components["headers"]).items():
        if name in _WITHOUT_EXAMPLE:
            assert not {"example", "examples"} & declared.keys(), name
            continue
        assert validator(document, declared["schema"]).is_valid(declared["example"]), name


@_each_document
def test_every_example_of_a_problem_can_occur(document: dict[str, Any]) -> None:
    for response in document["components"]["responses"].values():
        # The responses of a callback's receiver have no content.
        for example in response.get("content", {}).get(PROBLEM, {}).get("examples", {}).values():
            value = example["value"]
            members = {name: value[name] for name in ("known", "checks") if name in value}
            problem = Problem(value["type"].rsplit(":", 1)[1], value["detail"], **members)

            assert value == problem.document


@_each_document
def test_every_schema_is_closed_and_bounded(document: dict[str, Any]) -> None:
    schemas = list(_schemas(document))

    for place, schema in schemas:
        match schema.get("type"):
            case "object":
                assert schema["additionalProperties"] is False, place
            case "array":
                assert "maxItems" in schema, place
            case "string":
                assert "enum" in schema or "maxLength" in schema, place
            case "integer":
                assert {"minimum", "maximum", "format"} <= schema.keys(), place

    assert len(schemas) > 40


@_each_document
def test_every_link_names_an_operation_and_its_parameters(document: dict[str, Any]) -> None:
    declared = {
        operation["operationId"]: {
            follow(document, parameter)["name"]
            for parameter in [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        }
        for path, _, operation in operations(document)
    }
    links = [follow(document, link) for response in _responses(document) for link in response.get("links", {}).values()]

    assert len(links) > 5
    for link in links:
        assert link.get("parameters", {}).keys() <= declared[link["operationId"]]


def _responses(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _, _, operation in operations(document):
        for response in operation["responses"].values():
            yield follow(document, response)


def _contents(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _, _, operation in operations(document):
        yield from operation.get("requestBody", {}).get("content", {}).values()
    for response in _responses(document):
        yield from response.get("content", {}).values()
    for post in _callbacks(document):
        yield from follow(document, post["requestBody"])["content"].values()


def _callbacks(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _, _, operation in operations(document):
        for callback in operation.get("callbacks", {}).values():
            for item in callback.values():
                yield item["post"]


def _schemas(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every inline schema with its location. Skips examples, which may look like schemas."""
    if isinstance(node, list):
        for item in node:
            yield from _schemas(item, place)
    elif isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield place, node
        for name, child in node.items():
            if name not in ("example", "examples", "enum"):
                yield from _schemas(child, f"{place}/{name}")
