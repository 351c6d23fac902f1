"""The providers' file: defaults, references to the environment, and errors that name their place."""

import re
from pathlib import Path

import pytest

from providers.file import ProvidersError, load_providers
from providers.model import BreakerPolicy, Provider, Providers
from providers.retry_policy import RetryPolicy
from tests.specs.test_schemas import WRONG

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "providers.yaml"


def load(file: Path, text: str, **environment: str) -> Providers:
    file.write_text(text)
    return load_providers(file, environment)


def gas(options: str, url: str = "http://gas.example.com") -> str:
    return f"providers:\n  gas:\n    url: {url}\n    {options}\n"


def refusal(file: Path, text: str, **environment: str) -> str:
    with pytest.raises(ProvidersError) as caught:
        load(file, text, **environment)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_a_provider_needs_only_a_url(file: Path) -> None:
    assert load(file, gas("")) == {
        "gas": Provider(
            url="http://gas.example.com",
            connect_timeout=3.05,
            read_timeout=30,
            total_timeout=60,
            retry=RetryPolicy(),
            concurrency=50,
            breaker=BreakerPolicy(failures=20, open_seconds=30),
            headers={},
        )
    }


def test_all_options_are_read(file: Path) -> None:
    text = """
providers:
  gas-1:
    url: https://gas.example.com/bills?of=all
    connectTimeout: 1
    readTimeout: 2.5
    totalTimeout: 3600
    retry: {initialDelay: 0.5, multiplier: 3, maximumDelay: 60, jitter: 0, maximumAttempts: 7}
    concurrency: 1
    breaker: {failures: 1, openSeconds: 0.5}
    headers: {X-Key: a b, X-Empty: ""}
"""
    assert load(file, text)["gas-1"] == Provider(
        url="https://gas.example.com/bills?of=all",
        connect_timeout=1,
        read_timeout=2.5,
        total_timeout=3600,
        retry=RetryPolicy(initial_delay=0.5, multiplier=3, maximum_delay=60, jitter=0, maximum_attempts=7),
        concurrency=1,
        breaker=BreakerPolicy(failures=1, open_seconds=0.5),
        headers={"X-Key": "a b", "X-Empty": ""},
    )


def test_the_shipped_file_is_valid() -> None:
    providers = load_providers(ROOT / "providers.yaml", {})

    assert providers["gas"].url == "http://127.0.0.1:3000/providers/gas"
    assert len(providers) == 5


def test_the_example_in_the_shipped_file_shows_the_defaults(file: Path) -> None:
    commented = re.search(r"^#   example:\n(?:#     .*\n)+", (ROOT / "providers.yaml").read_text(), re.MULTILINE)
    assert commented
    text = "providers:\n" + commented[0].replace("#", " ", 1).replace("\n#", "\n ")

    shown = load(file, text)["example"]

    assert shown == Provider(url="https://data.example.com/bills")
    assert text.count(":") >= len(Provider.model_fields)


def test_a_reference_is_replaced_by_its_variable(file: Path) -> None:
    text = gas("headers: {Authorization: 'Bearer ${TOKEN}'}", url="http://${HOST}:${PORT:-80}/${HOST}")

    provider = load(file, text, TOKEN="t", HOST="h")["gas"]

    assert provider.url == "http://h:80/h"
    assert provider.headers == {"Authorization": "Bearer t"}


def test_a_reference_to_an_empty_variable_gets_its_default(file: Path) -> None:
    assert load(file, gas("", url="${U:-http://default}"), U="")["gas"].url == "http://default"


def test_yaml_in_a_variable_stays_text(file: Path) -> None:
    provider = load(file, gas("headers: {A: '${A}'}"), A="x, B: '${HOME}' #")["gas"]

    assert provider.headers == {"A": "x, B: '${HOME}' #"}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (gas("headers: {A: '${UNSET}'}"), "providers.gas.headers.A: the environment variable UNSET is not set"),
        (gas("timeout: 5"), "providers.gas.timeout: "),
        (gas("retry: {jiter: 0.1}"), "providers.gas.retry.jiter: "),
        (gas("breaker: {open: 1}"), "providers.gas.breaker.open: "),
        (gas("readTimeout: 0"), "providers.gas.readTimeout: "),
        (gas("totalTimeout: 3601"), "providers.gas.totalTimeout: "),
        (gas("connectTimeout: fast"), "providers.gas.connectTimeout: "),
        (gas("concurrency: 0"), "providers.gas.concurrency: "),
        (gas("concurrency: 1.5"), "providers.gas.concurrency: "),
        (gas("retry: {multiplier: 0.5}"), "providers.gas.retry.multiplier: "),
        (gas("headers: {'A B': x}"), "providers.gas.headers.A B"),
        (gas("headers: {A: 5}"), "providers.gas.headers.A: "),
        (gas("", url="gas.example.com"), "providers.gas.url: "),
        (gas("", url="ftp://gas.example.com"), "providers.gas.url: "),
        (gas("", url="http:///bills"), "providers.gas.url: "),
        ("providers: {gas: {}}", "providers.gas.url: "),
        ("providers: {gas: null}", "providers.gas: "),
        ("providers: {Gas: {url: 'http://x'}}", "providers.Gas"),
        ("providers: {1: {url: 'http://x'}}", "providers.1"),
        ("providers: {}", "providers: "),
        ("providers: [gas]", "providers: "),
        ("provider: {}", "providers: "),
        ("", "the file: "),
        ("- gas", "the file: "),
        ("providers:\n  gas: {", "line 2, column 9: not YAML: "),
        ("providers:\n\tgas: 1", "line 2, column 1: not YAML: "),
        ("a: \x07", "not YAML: "),
        ("a: 2026-13-45", "not YAML: "),
        ("a: &a [*a]", "not YAML: "),
        ("a: !!python/name:os.system", "line 1, column 4: not YAML: "),
    ],
)
def test_an_error_is_one_line_that_names_its_place(file: Path, text: str, place: str) -> None:
    message = refusal(file, text)

    assert message.startswith(place)
    assert len(message) > len(place) or place.endswith("not set")
    assert "_File" not in message


def test_a_binary_file_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ProvidersError, match="not YAML"):
        load_providers(file, {})


def test_an_error_for_a_missing_file_names_its_setting(file: Path) -> None:
    with pytest.raises(ProvidersError, match=r"No such file or directory \(DATAHOG_PROVIDERS_FILE names it\)$"):
        load_providers(file, {})


@pytest.mark.parametrize(
    "text",
    [
        gas("headers: {Authorization: 'Bearer hunter2 '}"),
        gas("headers: {Authorization: ' hunter2'}"),
        gas('headers: {Authorization: "hunter2\\n"}'),
        gas("headers: {Authorization: hunter2é}"),
        gas("headers: {Authorization: [hunter2]}"),
        gas("headers: {Authorization: '${TOKEN}'}"),
        gas("headers: {Authorization: hunter2"),
        gas("headers: {Authorization: 'hunter2"),
        gas("headers: Authorization hunter2"),
    ],
)
def test_an_error_for_wrong_headers_hides_their_secret(file: Path, text: str) -> None:
    assert "hunter2" not in refusal(file, text, TOKEN="hunter2\t")


@pytest.mark.parametrize(("url", "fault"), WRONG, ids=[ascii(url)[:40] for url, _ in WRONG])
def test_a_url_that_results_cannot_contain_is_refused(file: Path, url: str, fault: str) -> None:
    message = refusal(file, gas("", url="${URL}"), URL=url)

    assert message.startswith(f"providers.gas.url: {fault}")


@pytest.mark.parametrize(
    "url", ["http://x/{a}?key=hunter2", "http://x/?key=hunter2|", "http://hunter2@x/", "http://x/#hunter2", "hunter2"]
)
def test_an_error_for_a_wrong_url_hides_its_key(file: Path, url: str) -> None:
    assert "hunter2" not in refusal(file, gas("", url="${URL}"), URL=url)


def test_repr_and_str_of_a_provider_hide_its_secret(file: Path) -> None:
    provider = load(file, gas("headers: {Authorization: Bearer hunter2}"))["gas"]

    assert "hunter2" not in repr(provider)
    assert "hunter2" not in str(provider)
