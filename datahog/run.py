"""`run`: the whole stack on this machine's fixed ports, for as long as a person wants it."""

import base64
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from datahog import engines, ports, stack
from datahog.engines import EngineMissing
from datahog.settings import Settings, SettingsError
from datahog.supervisor import Interrupted, ProgramFailed, Supervisor

_SECRET_BYTES = 32


def run(settings: Settings) -> int:
    """Run everything until Ctrl-C or SIGTERM; the exit code is 0 then, and 1 when a program fails."""
    settings = stack.settle(settings)
    if unusable := list(unusable_ports(settings)):
        print(*unusable, sep="\n", file=sys.stderr)
        return 1
    try:
        if not settings.webhook_secrets:
            secret = webhook_secret(settings.data_dir / "webhook-secret")
            settings = settings.model_copy(update={"webhook_secrets": (secret,)})
        with Supervisor(sys.stdout, grace=stack.grace(settings), signals=True) as supervisor:
            for programs in stack.stages(settings):
                supervisor.start(*programs)
            print(_banner(settings), flush=True)
            supervisor.pause()
    except Interrupted:
        print("Stopped.")
        return 0
    except (ProgramFailed, EngineMissing) as error:
        print(f"Stopped everything: {error}.", file=sys.stderr)
    except OSError as error:
        print(f"Data cannot be kept in {settings.data_dir} (DATAHOG_DATA_DIR): {error.strerror}.", file=sys.stderr)
    return 1


def unusable_ports(settings: Settings) -> Iterator[str]:
    """A line for each port of the stack that cannot be listened on, with the setting that changes it."""
    hosts = {"dynamodb_port": engines.HOST, "redis_port": engines.HOST}
    with ExitStack() as held:  # all at once, so that two settings naming one port are found too
        for name in (field for field in Settings.model_fields if field.endswith("_port")):
            try:
                held.enter_context(ports.listen(hosts.get(name, settings.host), getattr(settings, name), name))
            except SettingsError as error:
                yield str(error)


def webhook_secret(path: Path) -> str:
    """The secret that signs callbacks (Standard Webhooks: whsec_ and base64); made on the first run."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text("whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode() + "\n")
        draft.replace(path)
    return path.read_text().strip()


def _banner(settings: Settings) -> str:
    def url(port: int) -> str:
        return stack.url(settings.host, port)

    client, aggregator = f"{url(settings.client_port)}/api/v1", f"{url(settings.aggregator_port)}/api/v1"
    line = "-" * 78
    return f"""
{line}
Datahog is running. Data is kept in {settings.data_dir}; Ctrl-C stops everything.

  client API      {client}    try it in a browser: {client}/ui
  aggregator API  {aggregator}    {aggregator}/ui
  both documents  {url(settings.viewer_port)}
  providers       {url(settings.simulator_port)}/providers/gas (also internet, water, electricity, phone)

Ask for data:

  curl -s -X POST {client}/requests -H 'Content-Type: application/json' \\
    -d '{{"providers": ["gas", "internet", "water"]}}'

and read it with the requestId that came back, waiting up to 30 s for the result:

  curl -s '{client}/requests/REQUEST_ID?wait=30'
{line}
"""
