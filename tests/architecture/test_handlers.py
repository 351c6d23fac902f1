"""Each operation of a document has a handler method, and each method an operation."""

import pytest
from inflection import underscore

import specs
from handlers.aggregator import Aggregator
from handlers.client import Client
from tests.contract.api import operations

_APIS = pytest.mark.parametrize(("name", "handlers"), [(specs.AGGREGATOR, Aggregator), (specs.CLIENT, Client)])


@_APIS
def test_operations_and_handler_methods_match(name: str, handlers: type) -> None:
    declared = [underscore(operation["operationId"]) for _, _, operation in operations(specs.read(name))]

    methods = [method for method in vars(handlers) if not method.startswith("_")]

    assert sorted(methods) == sorted(declared)
