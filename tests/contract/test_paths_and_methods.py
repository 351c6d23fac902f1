"""Paths and methods: declared ones are listed in Allow; others get a problem document, never a redirect."""

import json
import re

import pytest
import requests

from tests.contract.api import METHODS, Api, check_problem
from tests.support.system import AUTHORIZED, System

_EACH = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE")


def _send(api: Api, method: str, path: str) -> requests.Response:
    return requests.request(method, api.url + path, headers=AUTHORIZED, timeout=20, allow_redirects=False)


def _declared(api: Api) -> dict[str, set[str]]:
    """The methods of each path, with OPTIONS, and with HEAD where there is GET."""
    methods = {path: {name.upper() for name in METHODS if name in item} for path, item in api.document["paths"].items()}
    return {path: found | {"OPTIONS"} | ({"HEAD"} if "GET" in found else set()) for path, found in methods.items()}


def _allowed(response: requests.Response) -> set[str]:
    return set(response.headers["Allow"].split(", "))


def test_options_lists_the_methods_of_each_path(api: Api) -> None:
    for path, methods in _declared(api).items():
        response = _send(api, "OPTIONS", path.replace("{requestId}", "x"))

        assert (response.status_code, response.content) == (204, b"")
        assert _allowed(response) == methods


def test_an_undeclared_method_is_refused_with_the_allowed_ones(api: Api) -> None:
    for path, methods in _declared(api).items():
        for method in set(_EACH) - methods:
            response = _send(api, method, path.replace("{requestId}", "x"))

            assert response.status_code == 405, (method, path)
            assert _allowed(response) == methods
            if method != "HEAD":
                assert check_problem(response)["type"].endswith(":method-not-allowed")


def test_head_is_get_without_the_body(api: Api) -> None:
    for path, methods in _declared(api).items():
        if "GET" in methods:
            got, head = (_send(api, method, path.replace("{requestId}", "x") + "?id=x") for method in ("GET", "HEAD"))

            assert head.status_code == got.status_code
            assert head.headers["Content-Type"] == got.headers["Content-Type"]
            assert head.headers["Content-Length"] == got.headers["Content-Length"]
            assert head.content == b""


@pytest.mark.parametrize(
    "path",
    ["", "/", "/nope", "/requests/", "/requests//", "/requests/x/", "/requests/x/nope", "//requests", "/Requests"]
    + ["/requests/x/cancel/", "/openapi.json/", "/openapi.yaml"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_an_undeclared_path_is_not_found(api: Api, method: str, path: str) -> None:
    url = requests.Request(method, api.url).prepare()
    url.url = api.url + path
    with requests.Session() as session:
        response = session.send(url, timeout=20, allow_redirects=False)

    assert response.status_code == 404
    assert "openapi.json" in check_problem(response)["detail"]


def test_nothing_is_served_outside_the_base_path(api: Api) -> None:
    root = api.url.removesuffix("/api/v1")

    for path in ("/", "/requests", "/api", "/api/v2/requests", "/docs"):
        check_problem(requests.get(root + path, timeout=20, allow_redirects=False))


def test_each_api_serves_its_document_unchanged(api: Api) -> None:
    response = _send(api, "GET", "/openapi.json")

    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == json.loads(json.dumps(api.document))


def test_swagger_ui_loads_only_files_of_its_own_api(api: Api) -> None:
    page = requests.get(f"{api.url}/ui/", timeout=20)
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert page.status_code == 200
    assert len(files) >= 5
    assert "openapi.json" in page.text
    for file in files:
        assert not file.startswith(("http:", "https:", "//")), file
        assert requests.get(f"{api.url}/ui/{file}", timeout=20).status_code == 200


def test_a_missing_page_is_a_problem_document(api: Api) -> None:
    assert check_problem(_send(api, "GET", "/ui/nope.js"))["status"] == 404


def test_only_the_viewers_origin_passes_cors(api: Api, system: System) -> None:
    def preflight(origin: str) -> requests.Response:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return requests.options(f"{api.url}/requests", headers=headers, timeout=20)

    viewer, stranger = preflight(str(system.settings.viewer_origin)), preflight("http://example.com")

    assert viewer.status_code == 200
    assert viewer.headers["Access-Control-Allow-Origin"] == system.settings.viewer_origin
    assert stranger.status_code == 400
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_error_responses_carry_cors_headers(api: Api, system: System) -> None:
    origin = str(system.settings.viewer_origin)

    response = requests.get(f"{api.url}/nope", headers={"Origin": origin}, timeout=20)

    assert check_problem(response)["status"] == 404
    assert response.headers["Access-Control-Allow-Origin"] == origin
