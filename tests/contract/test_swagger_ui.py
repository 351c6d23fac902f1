"""Swagger UI's files are byte for byte those of the release in its package.json."""

import json

import pytest

from specs import swagger_ui
from tests.contract.npm import installed

_PACKAGE = swagger_ui.FILES.parent


# The first run downloads the packages.
@pytest.mark.timeout(300)
def test_the_files_match_the_pinned_release() -> None:
    release = installed(_PACKAGE) / "swagger-ui-dist"

    version = json.loads((_PACKAGE / "package.json").read_text())["dependencies"]["swagger-ui-dist"]
    assert json.loads((release / "package.json").read_text())["version"] == version
    files = sorted(swagger_ui.FILES.glob("vendor/*"))
    assert len(files) >= 6
    assert [file.name for file in files if file.read_bytes() != (release / file.name).read_bytes()] == []
