"""The command line: one command for each process, and `run` and `demo` for all of them together.

Each command imports its modules only when it is chosen: all modules together take seconds to import.
"""

import logging
import os
import signal
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any

from datahog import failpoints, settings
from datahog.settings import Settings, SettingsError

log = logging.getLogger("datahog")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name, by default those of the process; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = ArgumentParser(
        prog="python -m datahog",
        description="Collects data from slow and flaky HTTP providers and delivers one result per request.",
        epilog="settings, from the environment:\n" + settings.describe(),
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, command in _COMMANDS.items():
        summary = (command.__doc__ or "").strip().splitlines()[0]
        own = commands.add_parser(
            name, help=summary, description=summary, epilog=parser.epilog, formatter_class=parser.formatter_class
        )
        if given[:1] == [name]:
            _add_arguments(name, own)
    chosen = parser.parse_args(given)
    try:
        loaded = settings.load(os.environ)
        _log_to_stderr(loaded.log_level)
        failpoints.lay(chosen.command, os.environ)
        return _COMMANDS[chosen.command](loaded, chosen) or 0
    except SettingsError as error:
        print(f"datahog {chosen.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _client(settings: Settings, _: Namespace) -> None:
    """serves the client API, which people and programs call (port 3100)"""
    from datahog import jobs

    _serve(jobs.wiring().client_app(), settings, "client_port")


def _aggregator(settings: Settings, _: Namespace) -> None:
    """serves the aggregator API (port 3200)"""
    from datahog import jobs

    _serve(jobs.wiring().aggregator_app(), settings, "aggregator_port")


def _worker(settings: Settings, arguments: Namespace) -> int:
    """runs the queued steps: fetch, deliver, submit"""
    from datahog import jobs, worker_processes
    from datahog.bootstrap import machine
    from datahog.bootstrap.wiring import Wiring
    from datahog.local import stack

    concurrency = arguments.concurrency or settings.worker_concurrency
    processes = arguments.processes or settings.worker_processes or machine.cpus()

    def work() -> None:
        # The worker handles signals itself once it runs; before that it may have to wait for Redis.
        _end_on_sigterm()
        jobs.wiring().worker(concurrency).run()

    machine.allow_jobs(concurrency)
    if processes > 1:
        # A wrong setting is reported here, once; each child process builds its own parts.
        Wiring(settings, os.environ).check_jobs()
        return worker_processes.run(processes, work, grace=stack.grace(settings))
    jobs.wiring().check_jobs()
    work()
    return 0


def _reconciler(_settings: Settings, _: Namespace) -> None:
    """puts due steps that are missing back on the queue"""
    from datahog import jobs

    reconciler = jobs.wiring().reconciler()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reconciler.stop())
    reconciler.run()


def _tables(settings: Settings, _: Namespace) -> None:
    """creates the DynamoDB tables that are missing"""
    from botocore.exceptions import BotoCoreError, ClientError

    from datahog.bootstrap.connections import dynamodb_client
    from persistence.dynamodb.schema import create_tables
    from persistence.errors import Unavailable

    try:
        client = dynamodb_client(settings, os.environ)
        created = create_tables(client, settings.table_prefix, shards=settings.index_shards)
    except (BotoCoreError, ClientError, TimeoutError, Unavailable) as error:
        # A server that is not DynamoDB may send a whole page.
        reason = " ".join(str(error).split())[:300]
        raise SettingsError(f"DynamoDB at {settings.dynamodb_endpoint_url or 'AWS'}: {reason}") from None
    log.info("created %s", ", ".join(created)) if created else log.info("all tables exist")


def _simulator(settings: Settings, _: Namespace) -> None:
    """serves flaky providers to try Datahog with (port 3000)"""
    import simulator.app

    app = simulator.app.create_app(
        failure_rate=settings.simulator_failure_rate,
        latency=settings.simulator_latency,
        seed=settings.simulator_seed,
    )
    _end_on_sigterm()
    simulator.app.serve(app, settings.host, _check_port(settings, "simulator_port"))


def _viewer(settings: Settings, _: Namespace) -> None:
    """serves both OpenAPI documents in Swagger UI (port 8080)"""
    import specs
    from datahog import viewer
    from datahog.local import stack

    app = viewer.create_app(
        {name: specs.path(name) for name in settings.api_urls},
        {name: url.rstrip("/") + specs.base_path(name) for name, url in settings.api_urls.items()},
        settings.viewer_origin or stack.url(settings.host, settings.viewer_port),
    )
    _end_on_sigterm()
    viewer.serve(app, settings.host, _check_port(settings, "viewer_port"))


def _run(settings: Settings, _: Namespace) -> int:
    """runs all processes on this machine, on fixed ports, until Ctrl-C"""
    from datahog.local import run

    return run.run(settings)


def _demo(settings: Settings, _: Namespace) -> int:
    """runs all processes on free ports for one request, then stops them"""
    from datahog.local import demo

    return demo.demo(settings)


def _keys(_settings: Settings, arguments: Namespace) -> int:
    """creates, lists and revokes API keys"""
    from datahog import jobs
    from datahog.commands import keys

    return keys.run(jobs.wiring().api_keys, arguments)


def _call(settings: Settings, arguments: Namespace) -> int:
    """calls an operation of either API by its operationId"""
    from datahog.commands import call

    return call.run(settings, arguments)


def _add_arguments(name: str, parser: ArgumentParser) -> None:
    """Adds the command's own arguments; most commands have none."""
    match name:
        case "keys":
            from datahog.commands import keys

            keys.add_arguments(parser)
        case "call":
            from datahog.commands import call

            call.add_arguments(parser)
        case "worker":
            from datahog import worker_processes

            worker_processes.add_arguments(parser)


_COMMANDS: dict[str, Callable[[Settings, Namespace], int | None]] = {
    "client": _client,
    "aggregator": _aggregator,
    "worker": _worker,
    "reconciler": _reconciler,
    "tables": _tables,
    "simulator": _simulator,
    "viewer": _viewer,
    "run": _run,
    "demo": _demo,
    "keys": _keys,
    "call": _call,
}


def _serve(app: Any, settings: Settings, port_setting: str) -> None:
    from datahog import jobs, server

    port = _check_port(settings, port_setting)
    log.info("serving on http://%s:%d", settings.host, port)
    server.serve(app, settings.host, port, stopping=jobs.wiring().long_polls.end)


def _check_port(settings: Settings, name: str) -> int:
    """Returns the port of the setting if it is free. Raises SettingsError."""
    from datahog.local import free_ports

    port: int = getattr(settings, name)
    free_ports.listen(settings.host, port, name).close()
    return port


def _end_on_sigterm() -> None:
    def end(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    # At a lower level these libraries log a line for each refused request and each connection.
    for noisy in ("connexion", "uvicorn", "botocore", "urllib3", "rq.worker", "waitress.queue"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
