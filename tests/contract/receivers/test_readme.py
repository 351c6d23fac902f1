"""The receiver in README.md, run unchanged, accepts what Datahog posts and refuses other posts."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.contract.stack import NEXT_SECRET
from tests.support.system import System, eventually, free_ports

_README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
[_CODE] = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)
# How long to wait for the receiver and for a delivery, in seconds.
_SECONDS = 60


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the secret that `make run` makes, and the receiver."""
    (tmp_path / ".datahog").mkdir()
    (tmp_path / ".datahog" / "webhook-secret").write_text(NEXT_SECRET + "\n")
    (tmp_path / "receiver.py").write_text(_CODE)
    return tmp_path


@pytest.fixture
def url(directory: Path) -> Iterator[str]:
    """The callback URL of the running receiver."""
    port = next(iter(free_ports().values()))
    [command] = re.findall(r"\.venv/bin/flask (--app receiver run --port) 9000 &", _README)
    with (
        (directory / "printed").open("wb") as printed,
        subprocess.Popen(
            [sys.executable, "-m", "flask", *command.split(), str(port)],
            cwd=directory,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=printed,
            stderr=subprocess.DEVNULL,
        ) as running,
    ):
        root = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: _is_listening(root), seconds=_SECONDS)
            yield f"{root}/bills"
        finally:
            running.terminate()


def test_the_receiver_is_as_short_as_it_claims() -> None:
    assert len([line for line in _CODE.splitlines() if line]) == 12


def test_the_receiver_accepts_datahogs_posts(system: System, directory: Path, url: str) -> None:
    request_id = system.hand_over("gas", "water", callback_url=url)

    # The delivery succeeds only when the receiver acknowledges it.
    read = eventually(lambda: _delivered(system, request_id), seconds=_SECONDS)
    assert f"{request_id} {read['status']}" in (directory / "printed").read_text()


@pytest.mark.parametrize("signature", [None, "v1,bm90IHNpZ25lZCBieSBkYXRhaG9n"])
def test_the_receiver_refuses_unsigned_and_forged_posts(directory: Path, url: str, signature: str | None) -> None:
    headers = {"webhook-id": "msg_x", "webhook-timestamp": "1"} | (
        {"webhook-signature": signature} if signature else {}
    )
    response = requests.post(url, data=b'{"requestId": "x", "status": "COMPLETE"}', headers=headers, timeout=10)

    assert response.status_code == 401
    assert "COMPLETE" not in (directory / "printed").read_text()


def _delivered(system: System, request_id: str) -> dict[str, object] | None:
    read = system.look(request_id)
    return read if read["delivery"]["status"] == "SUCCEEDED" else None


def _is_listening(root: str) -> bool:
    try:
        return requests.get(root, timeout=5).status_code == 404
    except requests.ConnectionError:
        return False
