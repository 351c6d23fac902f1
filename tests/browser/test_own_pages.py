"""Each API serves Swagger UI at /ui, over its own document."""

import pytest

import specs
from specs.operations import operations
from tests.browser.chromium import OTHER_NAME, Witness
from tests.browser.swagger import SwaggerPage
from tests.support.system import API_KEY, System


@pytest.mark.parametrize("host", ["localhost", OTHER_NAME])
@pytest.mark.parametrize(
    ("name", "operation_id"), [(specs.CLIENT, "listRequests"), (specs.AGGREGATOR, "listProviders")]
)
def test_an_operation_runs_from_the_page_of_its_api(
    swagger: SwaggerPage, witness: Witness, system: System, name: str, operation_id: str, host: str
) -> None:
    root = {specs.CLIENT: system.client, specs.AGGREGATOR: system.aggregator}[name].replace("127.0.0.1", host)

    swagger.open(root + specs.UI_PATH, f"Datahog {name}")
    assert len(swagger.operation_ids) == sum(not found.is_callback for found in operations(name).values())
    swagger.authorize("bearerKey", API_KEY)

    assert swagger.try_out(operation_id).execute().status == 200
    assert witness.hosts == {host}
    assert witness.complaints == []
