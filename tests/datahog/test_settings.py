"""Settings: each variable is read, an error is one line without secrets, and the page lists all settings."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import specs
from datahog.settings import PREFIX, Settings, SettingsError, describe, load
from outbound.http_client import Http, Timeouts
from outbound.openapi_caller import Operations
from specs.schemas import component
from tests.specs.test_schemas import WRONG as WRONG_URLS
from tools.settings_page import PAGE, shown_default, with_table

API_KEY = "dh_" + "0123456789abcdef" + "_" + "hunter-2".rjust(43, "x")
SECRET = "whsec_" + "dGVzdHMgb25seSwgZ3VhcmRzIG5vdGhpbmcgYXQgYWxs"
OTHER_SECRET = "whsec_" + "b3RoZXIgdGVzdHMsIGd1YXJkcyBub3RoaW5nIGF0IGFsbA=="

GOOD: dict[str, tuple[str, object]] = {
    "dynamodb_endpoint_url": ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    "table_prefix": ("test-1.x_", "test-1.x_"),
    "index_shards": ("8", 8),
    "redis_url": ("rediss://user:pass@queue.example.com:6380/1", "rediss://user:pass@queue.example.com:6380/1"),
    "host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104 (nothing is bound)
    "client_port": ("1", 1),
    "aggregator_port": ("65535", 65535),
    "simulator_port": ("3001", 3001),
    "viewer_port": ("8081", 8081),
    "dynamodb_port": ("3301", 3301),
    "redis_port": ("3401", 3401),
    "client_url": ("https://client.example.com/base", "https://client.example.com/base"),
    "aggregator_url": ("http://[::1]:3200", "http://[::1]:3200"),
    "viewer_origin": ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    "providers_file": ("/etc/datahog/providers.yaml", Path("/etc/datahog/providers.yaml")),
    "webhook_secrets": (f"{SECRET}, {OTHER_SECRET},", (SECRET, OTHER_SECRET)),
    "api_key": (API_KEY, API_KEY),
    "aggregator_key": (API_KEY, API_KEY),
    "local_key": (API_KEY, API_KEY),
    "rate_limit": ("5", 5),
    "open_requests": ("100", 100),
    "request_deadline": ("3600", 3600.0),
    "retention": ("86400.5", 86400.5),
    "result_limit": ("1024", 1024),
    "delivery_schedule": ("0, 1.5,10", (0.0, 1.5, 10.0)),
    "delivery_timeout": ("0.5", 0.5),
    "outbound_networks": ("10.0.0.0/8, fd00::/8,", (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
    "outbound_ports": ("443,8000-8999", "443,8000-8999"),
    "worker_concurrency": ("300", 300),
    "worker_processes": ("2", 2),
    "worker_grace": ("1", 1.0),
    "worker_lease": ("1", 1.0),
    "reconciler_period": ("0.1", 0.1),
    "heal_after": ("1", 1.0),
    "simulator_failure_rate": ("1", 1.0),
    "simulator_latency": ("0", 0.0),
    "simulator_seed": ("-7", -7),
    "data_dir": ("/var/lib/data hog", Path("/var/lib/data hog")),
    "log_level": ("DEBUG", "DEBUG"),
}

WRONG = [
    ("dynamodb_endpoint_url", "localhost:8000"),
    ("dynamodb_endpoint_url", "http://localhost:eight"),
    ("table_prefix", "a b"),
    ("redis_url", "http://127.0.0.1:6379"),
    ("redis_url", "redis://127.0.0.1:sixthousand"),
    ("client_port", "0"),
    ("rate_limit", "0"),
    ("open_requests", "1.5"),
    ("aggregator_port", "65536"),
    ("simulator_port", "3000.5"),
    ("viewer_port", "http"),
    ("dynamodb_port", "-1"),
    ("redis_port", "1e3"),
    ("client_url", "ftp://127.0.0.1"),
    ("client_url", "http://127.0.0.1 /"),
    ("aggregator_url", "http://"),
    ("aggregator_url", "http://[::1"),
    ("viewer_origin", "*"),
    ("viewer_origin", "http://localhost:8080/ui"),
    ("viewer_origin", "null"),
    ("api_key", "secret"),
    ("aggregator_key", API_KEY + "x"),
    ("local_key", API_KEY.upper()),
    ("webhook_secrets", "secret"),
    ("webhook_secrets", SECRET.removeprefix("whsec_")),
    ("webhook_secrets", "whsec_tooshort"),
    ("webhook_secrets", "whsec_" + "a" * 33),
    ("webhook_secrets", "whsec_" + "a" * 100),
    ("request_deadline", "0"),
    ("request_deadline", "1e300"),
    ("request_deadline", "2592000.001"),
    ("retention", "nan"),
    ("retention", "inf"),
    ("result_limit", "5242881"),
    ("delivery_schedule", "0,soon"),
    ("delivery_schedule", "0,,5"),
    ("delivery_schedule", "0,-5"),
    ("delivery_schedule", "nan"),
    ("delivery_schedule", "0,300000,304801"),
    ("delivery_timeout", "fifteen"),
    ("outbound_networks", "10.0.0.1/8"),
    ("outbound_networks", "localhost"),
    ("outbound_ports", "http"),
    ("outbound_ports", "80,"),
    ("outbound_ports", "0-80"),
    ("outbound_ports", "80-70000"),
    ("outbound_ports", "90-80"),
    ("worker_concurrency", "0"),
    ("worker_processes", "0"),
    ("worker_grace", "-1"),
    ("worker_lease", "0.9"),
    ("reconciler_period", "0"),
    ("heal_after", "0"),
    ("simulator_failure_rate", "1.1"),
    ("simulator_latency", "-0.1"),
    ("simulator_seed", "x"),
    ("log_level", "LOUD"),
]


def refusal(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(environment)
    message = str(caught.value)
    assert "\n" not in message
    return message


def variable(name: str) -> str:
    return PREFIX + name.upper()


def test_all_settings_have_defaults() -> None:
    assert load({"PATH": "/bin"}) == Settings()


def test_these_tests_have_a_good_value_for_each_setting() -> None:
    assert GOOD.keys() == Settings.model_fields.keys()


@pytest.mark.parametrize("name", GOOD)
def test_a_variable_sets_its_setting(name: str) -> None:
    text, value = GOOD[name]

    loaded = load({variable(name): text})

    assert getattr(loaded, name) == value
    assert value != getattr(Settings(), name)


@pytest.mark.parametrize("name", GOOD)
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    assert load({variable(name): ""}) == Settings()


@pytest.mark.parametrize(("name", "text"), WRONG)
def test_an_error_for_a_wrong_value_names_the_variable(name: str, text: str) -> None:
    assert refusal({variable(name): text}).startswith(f"{variable(name)}: ")


_URLS = ("dynamodb_endpoint_url", "client_url", "aggregator_url", "viewer_origin")


@pytest.mark.parametrize(
    "text", [*(url for url, _ in WRONG_URLS), "http://x/?a=b", "http://x:65536", "http://x/" + "a" * 1016], ids=ascii
)
@pytest.mark.parametrize("name", _URLS)
def test_a_url_that_the_documents_refuse_is_refused(name: str, text: str) -> None:
    assert refusal({variable(name): text}).startswith(f"{variable(name)}: ")


@pytest.mark.parametrize("name", _URLS)
@pytest.mark.parametrize(
    "text", ["http://u:hunter2@h", "http://u:hunter2@h/{", "http://h/?k=hunter2", "http://h/#hunter2"]
)
def test_an_error_for_a_wrong_url_hides_its_password(name: str, text: str) -> None:
    assert "hunter2" not in refusal({variable(name): text})


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://localhost:80", "http://localhost"),
        ("http://localhost:080/", "http://localhost"),
        ("https://Viewer.Example.com:443/", "https://viewer.example.com"),
        ("https://viewer.example.com:", "https://viewer.example.com"),
        ("https://viewer.example.com:80", "https://viewer.example.com:80"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[::1]", "http://[::1]"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(text: str, origin: str) -> None:
    assert load({"DATAHOG_VIEWER_ORIGIN": text}).viewer_origin == origin


def test_the_longest_deadline_may_be_the_default() -> None:
    assert load({"DATAHOG_REQUEST_DEADLINE": "2592000"}).request_deadline == 30 * 86_400


def test_callback_urls_of_the_longest_client_url_are_valid() -> None:
    settings = load({"DATAHOG_CLIENT_URL": "http://x/" + "a" * 1015})
    client = Operations(specs.CLIENT, settings.client_url, Http(pool_size=1), timeouts=Timeouts(1, 1, 1))

    url = client.url("receiveCallback", {"requestId": "a" * 64})

    assert component(specs.AGGREGATOR, "HttpUrl").is_valid(url)


def test_an_error_shows_the_wrong_value() -> None:
    assert "'3000.5'" in refusal({"DATAHOG_CLIENT_PORT": "3000.5"})


def test_an_error_for_a_value_of_two_lines_is_one_line() -> None:
    assert "'1\\n2'" in refusal({"DATAHOG_CLIENT_PORT": "1\n2"})


def test_an_error_for_a_misspelt_variable_names_the_right_one() -> None:
    message = refusal({"DATAHOG_WORKER_CONCURENCY": "5"})

    assert message == "DATAHOG_WORKER_CONCURENCY: no such setting; DATAHOG_WORKER_CONCURRENCY is one"


def test_variables_of_the_providers_file_may_have_the_prefix() -> None:
    assert load({"DATAHOG_SIMULATOR_URL": "http://127.0.0.1:3000", "DATAHOG_GAS_TOKEN": "t"}) == Settings()


@pytest.mark.parametrize("text", [f"{SECRET},whsec_hunter2", "hunter2", "whsec_hunter2=="])
def test_an_error_for_a_wrong_secret_hides_the_secret(text: str) -> None:
    message = refusal({"DATAHOG_WEBHOOK_SECRETS": text})

    assert "hunter2" not in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "text", ["redis:/user:hunter2@h", "redis://:hunter2/@h", "redis://:hunter2#x@h", "redis://u:hunter2@h:x"]
)
def test_an_error_for_a_wrong_redis_url_hides_its_password(text: str) -> None:
    assert "hunter2" not in refusal({"DATAHOG_REDIS_URL": text})


@pytest.mark.parametrize("show", [repr, str])
def test_repr_and_str_of_the_settings_hide_secrets(show: Any) -> None:
    loaded = load({"DATAHOG_WEBHOOK_SECRETS": SECRET, "DATAHOG_REDIS_URL": "redis://:hunter2@h"})

    assert SECRET not in show(loaded)
    assert "hunter2" not in show(loaded)


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(Settings(), "host", "other")  # noqa: B010 (the type checker would refuse a plain assignment)


@given(st.sampled_from(sorted(GOOD)), st.text(max_size=60))
def test_any_text_is_a_value_or_an_error_of_one_line(name: str, text: str) -> None:
    try:
        told = repr(load({variable(name): text}))
    except SettingsError as error:
        told = str(error)

    assert told.isprintable()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_help_describes_each_setting_with_its_default(name: str) -> None:
    [line] = [line for line in describe().splitlines() if line.split()[0] == variable(name)]

    description = Settings.model_fields[name].description
    assert description
    assert description in line
    assert line.endswith(f"[{shown_default(name)}]")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_page_lists_each_setting_with_its_default(name: str) -> None:
    [(default, meaning)] = re.findall(rf"^\| `{variable(name)}` \| (.+?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)

    assert default.strip("`") == shown_default(name)
    assert meaning


def test_the_page_lists_only_existing_settings() -> None:
    listed = re.findall(rf"^\| `{PREFIX}(\w+)` \|", PAGE.read_text(), re.MULTILINE)

    assert {name.lower() for name in listed} == Settings.model_fields.keys()


def test_the_page_equals_the_output_of_its_command() -> None:
    # `make settings-page` writes it.
    assert PAGE.read_text() == with_table(PAGE.read_text())
