"""`run`: runs the whole stack on this machine, on fixed ports, until a person stops it."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import specs
from datahog.local import engines, free_ports, local_secrets, stack
from datahog.local.engines import EngineMissing
from datahog.local.supervisor import Interrupted, ProgramFailed, Supervisor
from datahog.settings import Settings, SettingsError
from simulator.bills import PROVIDERS, path_of
from specs.operations import target


def run(settings: Settings) -> int:
    """Runs the stack until Ctrl-C or SIGTERM; returns the exit code: 0, or 1 when a program fails."""
    settings = stack.settle(settings)
    if unusable := list(unusable_ports(settings)):
        print(*unusable, sep="\n", file=sys.stderr)
        return 1
    try:
        settings = local_secrets.fill_in(settings, keep=True)
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
    """Yields a line for each port of the stack that is not free, with the setting that changes it."""
    hosts = {"dynamodb_port": engines.HOST, "redis_port": engines.HOST}
    with ExitStack() as held:  # holds all sockets at once, to find two settings that name the same port
        for name in (field for field in Settings.model_fields if field.endswith("_port")):
            try:
                held.enter_context(free_ports.listen(hosts.get(name, settings.host), getattr(settings, name), name))
            except SettingsError as error:
                yield str(error)


def _banner(settings: Settings) -> str:
    def url(port: int, path: str = "") -> str:
        return stack.url(settings.host, port) + path

    client = url(settings.client_port, specs.base_path(specs.CLIENT))
    aggregator = url(settings.aggregator_port, specs.base_path(specs.AGGREGATOR))
    create = url(settings.client_port, target(specs.CLIENT, "createRequest"))
    read = url(settings.client_port, target(specs.CLIENT, "getRequest", {"requestId": "REQUEST_ID", "wait": 30}))
    first, *others = PROVIDERS
    line = "-" * 78
    return f"""
{line}
Datahog is running. Data is kept in {settings.data_dir}; Ctrl-C stops everything.

  client API      {client}    try it in a browser: {client}{specs.UI_PATH}
  aggregator API  {aggregator}    {aggregator}{specs.UI_PATH}
  both documents  {url(settings.viewer_port)}
  providers       {url(settings.simulator_port, path_of(first))} (also {", ".join(others)})
  API key         {_key(settings)}

Ask for data:

  export DATAHOG_API_KEY={settings.local_key or "..."}
  curl -s -X POST {create} -H "Authorization: Bearer $DATAHOG_API_KEY" \\
    -H 'Content-Type: application/json' -d '{{"providers": ["gas", "internet", "water"]}}'

Read the result with the requestId of the response; the call waits up to 30 s for it:

  curl -s '{read}' -H "Authorization: Bearer $DATAHOG_API_KEY"
{line}
"""


def _key(settings: Settings) -> str:
    if settings.local_key:
        return f"kept in {settings.data_dir / local_secrets.API_KEY}; for this machine only"
    return "create one: python -m datahog keys create"
