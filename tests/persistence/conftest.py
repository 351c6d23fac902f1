"""The repositories on the DynamoDB under test; nothing else is started."""

from typing import Any

import pytest

from datahog.bootstrap.connections import dynamodb_client
from datahog.settings import Settings
from tests.support.repositories import Repositories


@pytest.fixture
def dynamodb(dynamodb_url: str) -> Any:
    """A boto3 client of this test's own."""
    return dynamodb_client(Settings(dynamodb_endpoint_url=dynamodb_url), {})


@pytest.fixture
def repositories(dynamodb: Any) -> Repositories:
    """The repositories over tables of this test's own."""
    return Repositories(dynamodb)
