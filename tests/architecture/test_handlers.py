"""Each operation of a document has its method, and each method its operation."""

import pytest
from inflection import underscore

import specs
from handlers.aggregator import Aggregator
from handlers.client import Client
from tests.contract.api import operations

_APIS = pytest.mark.parametrize(("name", "handlers"), [(specs.AGGREGATOR, Aggregator), (specs.CLIENT, Client)])


@_APIS
def test_every_operation_has_its_method_and_every_method_its_operation(name: str, handlers: type) -> None:
    declared = [underscore(operation["operationId"]) for _, _, operation in operations(specs.read(name))]

    methods = [method for method in vars(handlers) if not method.startswith("_")]

    assert sorted(methods) == sorted(declared)
