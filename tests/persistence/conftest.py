"""The repositories on the DynamoDB under test; nothing else is started."""

import pytest

from datahog.settings import Settings
from datahog.wiring import dynamodb_client
from tests.repositories import Repositories


@pytest.fixture
def repositories(dynamodb_url: str) -> Repositories:
    """The repositories over tables of this test's own."""
    return Repositories(dynamodb_client(Settings(dynamodb_endpoint_url=dynamodb_url), {}))
