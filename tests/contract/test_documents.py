"""The two OpenAPI documents: valid, closed, bounded, exemplified, and agreeing in what they share."""

from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

import specs
from handlers.problems import Problem
from specs.operations import follow
from tests.contract.api import PROBLEM, operations, validator

_each_document = pytest.mark.parametrize("document", [specs.read(specs.AGGREGATOR), specs.read(specs.CLIENT)])
# What each API has to say in its own way: its requests, what it refuses, whether a signature is demanded at once.
_OF_ITS_OWN = {"NewRequest", "Conflict", "Unprocessable", "WebhookId", "WebhookTimestamp"}
# Swagger UI fills examples in: a cursor that nobody was given is refused, and a key that somebody has used is taken.
_BEST_LEFT_OUT = {"Cursor", "IdempotencyKey"}


@_each_document
def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert [str(error) for error in OpenAPIV30SpecValidator(document).iter_errors()] == []


def test_what_the_documents_share_is_the_same() -> None:
    one, other = (specs.read(name)["components"] for name in (specs.AGGREGATOR, specs.CLIENT))

    shared = {
        (kind, name)
        for kind in ("schemas", "securitySchemes", "headers", "parameters", "responses")
        for name in (one[kind].keys() & other[kind].keys()) - _OF_ITS_OWN
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
def test_every_operation_is_guarded_and_says_by_which_scope(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        if operation["security"] == [{"webhookSignature": []}] or path in ("/healthz", "/readyz"):
            continue
        assert operation["security"] == [{"bearerKey": []}, {"headerKey": []}], path
        assert f"Needs the scope `{operation['x-required-scope']}`." in operation["description"], path
        assert {"403", "429"} <= operation["responses"].keys(), path


@_each_document
def test_headers_that_tell_what_to_do_are_declared_where_they_come(document: dict[str, Any]) -> None:
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


def test_the_result_that_one_api_posts_is_the_one_that_the_other_receives() -> None:
    aggregator, client = specs.read(specs.AGGREGATOR), specs.read(specs.CLIENT)
    receiving = client["paths"]["/callbacks/{requestId}"]["post"]

    one, *others = [{**post, "operationId": None} for post in _callbacks(aggregator)]

    assert follow(aggregator, one["requestBody"])["content"] == receiving["requestBody"]["content"]
    # Written out each time, as openapi-python-client takes no reference to a callback, and so free to drift apart.
    assert others == [one]


@_each_document
def test_every_operation_is_described_and_declares_what_can_go_wrong(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        assert {"operationId", "summary", "description", "tags", "security"} <= operation.keys(), path
        expected = {"400", "405", "500"} | ({"401", "503"} if operation["security"] else set())
        expected |= {"408", "413", "415"} if "requestBody" in operation else set()
        assert expected <= operation["responses"].keys(), path
        # It would declare whatever comes.
        assert "default" not in operation["responses"], path


@_each_document
def test_every_error_is_a_problem_document(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                content = follow(document, response)["content"]
                assert content[PROBLEM]["schema"] == {"$ref": "#/components/schemas/Problem"}, (path, status)


@_each_document
def test_every_content_has_examples_and_all_are_valid(document: dict[str, Any]) -> None:
    contents = list(_contents(document))

    for content in contents:
        examples = [follow(document, example)["value"] for example in content["examples"].values()]
        assert examples
        for example in examples:
            errors = validator(document, content["schema"]).iter_errors(example)
            assert [error.message for error in errors] == [], example

    assert len(contents) > 20


@_each_document
def test_the_example_of_a_body_that_is_shown_first_works_on_any_day(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            first = follow(document, next(iter(content["examples"].values())))["value"]
            assert "deadline" not in first, path


@_each_document
def test_every_parameter_and_header_has_a_valid_example(document: dict[str, Any]) -> None:
    components = document["components"]
    for name, declared in (components["parameters"] | components["headers"]).items():
        if name in _BEST_LEFT_OUT:
            assert not {"example", "examples"} & declared.keys(), name
            continue
        assert validator(document, declared["schema"]).is_valid(declared["example"]), name


@_each_document
def test_every_example_of_a_problem_is_one_that_comes(document: dict[str, Any]) -> None:
    for response in document["components"]["responses"].values():
        # What the receiver of a callback answers has no content.
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
def test_every_link_leads_to_an_operation_and_names_its_parameters(document: dict[str, Any]) -> None:
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
    """Every schema that is written out, wherever it stands; examples are none, whatever they look like."""
    if isinstance(node, list):
        for item in node:
            yield from _schemas(item, place)
    elif isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield place, node
        for name, child in node.items():
            if name not in ("example", "examples", "enum"):
                yield from _schemas(child, f"{place}/{name}")
