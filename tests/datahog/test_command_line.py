"""The command line: a process that cannot start prints one line, and a waiting process can be stopped."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from handlers.long_polling import LongPolls
from tests.support.system import API_KEY, SECRET

SETTINGS = {
    "DATAHOG_DYNAMODB_ENDPOINT_URL": "http://127.0.0.1:9",
    "DATAHOG_REDIS_URL": "redis://127.0.0.1:9/0",
    "DATAHOG_WEBHOOK_SECRETS": SECRET,
    "DATAHOG_AGGREGATOR_KEY": API_KEY,
    "DATAHOG_OUTBOUND_NETWORKS": "127.0.0.0/8",
}


def start(command: str, **settings: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "datahog", command],
        env=os.environ | SETTINGS | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        # A shell ignores SIGINT in its background jobs, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("command", ["client", "aggregator", "simulator", "viewer"])
def test_an_error_for_a_taken_port_names_its_setting(command: str) -> None:
    variable = f"DATAHOG_{command.upper()}_PORT"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        process = start(command, **{variable: str(port)})
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert errors.splitlines() == [
        f"datahog {command}: Port {port} is taken: stop what uses it, or set {variable} to another one."
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"DATAHOG_FAILPOINTS": "fetch.got"}, "is for tests only"),
        ({"DATAHOG_FAILPOINTS": "fetch.git", "DATAHOG_TESTING": "1"}, "there is no 'fetch.git'"),
    ],
)
def test_failpoints_outside_tests_or_unknown_are_refused(settings: dict[str, str], reason: str) -> None:
    process = start("worker", **settings)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    [line] = errors.splitlines()
    assert line.startswith("datahog worker: DATAHOG_FAILPOINTS: ")
    assert reason in line


def test_a_mistyped_failpoint_variable_is_refused() -> None:
    process = start("worker", DATAHOG_FAILPOINT="fetch.got", DATAHOG_TESTING="1")
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert errors == "datahog worker: DATAHOG_FAILPOINT: no such setting; DATAHOG_FAILPOINTS is one\n"


@pytest.mark.parametrize("options", ["foo=1", "socket_timeout=secret"])
def test_an_error_for_a_wrong_redis_url_option_hides_the_option(options: str) -> None:
    process = start("reconciler", DATAHOG_REDIS_URL=f"redis://127.0.0.1:9/0?{options}")
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    [line] = errors.splitlines()
    assert line.startswith("datahog reconciler: DATAHOG_REDIS_URL: ")
    assert options not in line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_worker_that_waits_for_redis_can_be_stopped(number: signal.Signals, code: int) -> None:
    process = start("worker", DATAHOG_WORKER_PROCESSES="1")
    assert process.stderr is not None
    first = process.stderr.readline()

    process.send_signal(number)
    _, errors = process.communicate(timeout=30)

    assert "queue away" in first
    assert process.returncode == code
    assert "Traceback" not in errors


def test_a_worker_with_too_few_open_files_says_what_to_do() -> None:
    few = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000)); "
    script = few + "os.execv(sys.executable, [sys.executable, '-m', 'datahog', 'worker', '--concurrency', '500'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert done.stderr == (
        "datahog worker: DATAHOG_WORKER_CONCURRENCY: 500 jobs at once need 1200 open files and the system allows 1000 "
        "(ulimit -Hn); allow more, or set it to 400\n"
    )


def test_a_long_poll_ends_at_once_when_its_server_stops() -> None:
    async def wait() -> str:
        long_polls = LongPolls()
        waiting = asyncio.ensure_future(long_polls.wait_until(lambda: "open", lambda _: False, 30))
        await asyncio.sleep(0.2)
        long_polls.end()
        return await waiting

    started = time.monotonic()

    assert asyncio.run(wait()) == "open"
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("command", ["client", "aggregator"])
def test_the_local_key_is_refused_on_a_public_address(command: str) -> None:
    process = start(command, DATAHOG_HOST="0.0.0.0", DATAHOG_LOCAL_KEY=API_KEY)  # noqa: S104 -- it is refused
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    [line] = errors.splitlines()
    assert line.startswith(f"datahog {command}: DATAHOG_HOST: 0.0.0.0 can be reached from elsewhere")
    assert API_KEY not in line


@pytest.mark.parametrize("command", ["client", "worker"])
def test_a_caller_of_the_aggregator_needs_an_api_key(command: str) -> None:
    process = start(command, DATAHOG_AGGREGATOR_KEY="")
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    [line] = errors.splitlines()
    assert line.startswith(f"datahog {command}: DATAHOG_AGGREGATOR_KEY: not set; make a key ")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("worker", "providers.yaml: providers.gas.url"),
        ("aggregator", "providers.yaml: providers.gas.url"),
        ("client", "DATAHOG_CLIENT_URL"),
    ],
)
def test_a_forbidden_destination_keeps_a_process_from_starting(command: str, place: str) -> None:
    process = start(command, DATAHOG_OUTBOUND_NETWORKS="")
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert errors.splitlines() == [
        f"datahog {command}: {place}: not allowed: 127.0.0.1 is this machine (loopback) "
        "(DATAHOG_OUTBOUND_NETWORKS can allow it)"
    ]


def test_a_provider_url_with_a_password_is_refused_unrepeated(tmp_path: Path) -> None:
    file = tmp_path / "providers.yaml"
    file.write_text("providers: {gas: {url: 'https://user:hunter2@data.example.com/'}}")
    process = start("worker", DATAHOG_PROVIDERS_FILE=str(file))
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2
    assert errors.splitlines() == [
        f"datahog worker: {file}: providers.gas.url: not allowed: a URL with a user or a password in it"
    ]
