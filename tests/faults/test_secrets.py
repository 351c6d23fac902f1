"""A whole run writes no secret to any file, and no line of a log comes from outside."""

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import redis
import requests

import specs
from datahog.bootstrap.wiring import Wiring
from persistence.api_keys import new_key
from specs.operations import scopes
from tests.support.servers.receiver import Answer, Receiver
from tests.support.system import System, eventually

# It follows a line break, and looks like a line of a log.
FORGED = "12:00:00 INFO    all is well, said a stranger"


@pytest.fixture
def run(
    make_system: Callable[..., System], tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> tuple[System, Mapping[str, str]]:
    """A system that has accepted and refused all kinds of calls, and the secrets that they used."""
    used = {
        "webhook secret": base64.b64encode(secrets.token_bytes(32)).decode(),
        "local key": new_key(),
        "provider's token": secrets.token_urlsafe(24),
        "wrong key": new_key(),
    }
    monkeypatch.setenv("GAS_TOKEN", used["provider's token"])
    retry = {"initialDelay": 0.1, "maximumAttempts": 3}
    options = {"retry": retry, "headers": {"Authorization": "Bearer ${GAS_TOKEN}"}}
    providers = {name: {"url": receiver.url(f"/secret/{name}"), **options} for name in ("gas", "water")}
    (tmp_path / "providers.yaml").write_text(json.dumps({"providers": providers}))
    receiver.answers("/secret/gas", Answer(500, body=f"#fail\n{FORGED}".encode()), Answer(200, body=b"[1]"))
    receiver.answers("/secret/water", Answer(404, body=f"\r\n{FORGED}\r\n".encode()))
    receiver.answers("/secret/hook", Answer(503, body=f"\n{FORGED}\n".encode()), Answer(204))
    system = make_system(
        webhook_secrets=(f"whsec_{used['webhook secret']}",),
        local_key=used["local key"],
        aggregator_key=used["local key"],
        log_level="DEBUG",
    )
    system.start()
    keys = Wiring(system.settings, {}).api_keys
    key = used["caller's key"] = keys.create("Ada", scopes())
    own = {"Authorization": f"Bearer {key}"}
    url = f"{system.settings.aggregator_url}{specs.base_path(specs.AGGREGATOR)}/requests"
    body = {"providers": ["gas", "water"], "callbackUrl": receiver.url("/secret/hook")}
    answer = requests.post(url, json=body, headers=own, timeout=30)
    assert answer.status_code == 202, answer.text
    request_id = answer.json()["requestId"]
    for headers in ({"X-API-Key": used["wrong key"]}, own | {"X-Forwarded-For": f"1.2.3.4\t{FORGED}"}):
        requests.post(url + f"/%0a{FORGED}", data=f"\n{FORGED}", headers=headers, timeout=30)

    def delivered() -> bool:
        document = requests.get(f"{url}/{request_id}", headers=own, timeout=30).json()
        return bool(document["delivery"]["status"] == "SUCCEEDED")

    eventually(delivered)
    assert used["provider's token"] in receiver.calls("/secret/gas")[0].headers["Authorization"]
    return system, used


def test_a_run_writes_no_secret_and_no_forged_log_line(run: tuple[System, Mapping[str, str]], tmp_path: Path) -> None:
    system, used = run
    with redis.Redis.from_url(system.settings.redis_url) as connection:
        connection.bgrewriteaof()
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    logs = {path: data.decode(errors="replace") for path, data in written.items() if path.suffix == ".log"}

    assert {"aggregator.log", "client.log", "worker.log", "reconciler.log"} <= {path.name for path in logs}
    assert any("appendonly" in str(path) for path in written)
    for kind, secret in used.items():
        # The id in an API key is no secret: it names the key.
        text = secret.split("_", 2)[2] if secret.startswith("dh_") else secret
        holders = [str(path.relative_to(tmp_path)) for path, data in written.items() if text.encode() in data]
        assert holders == [], f"the {kind} is in {holders}"
    forged = [(path.name, line) for path, log in logs.items() for line in log.splitlines() if line.startswith(FORGED)]
    assert forged == []
    assert any(FORGED in log for log in logs.values()), "no call has tried to forge a line"
