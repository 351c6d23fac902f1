"""The command line of the benches: `python -m bench` runs all and writes RESULTS.md and its chart, or some by name."""

import argparse
import asyncio
import functools
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import FrameType

import uvloop

from bench import fan_in, front_door, growth, queue_alone, report, slow_providers, whole_requests
from bench.rounds import Table
from bench.systems import node_is_here

_BENCHES: Mapping[str, Callable[..., Awaitable[Table]]] = {
    "whole-requests": whole_requests.run,
    "fan-in": fan_in.run,
    "slow-providers": slow_providers.run,
    "front-door": front_door.run,
    "growth-queue": growth.backlog,
    "growth-table": growth.reconciler,
    "queue": queue_alone.run,
}
_HERE = Path(__file__).parent


def main() -> int:
    """Run the benches that the arguments name; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures Datahog and its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(_BENCHES)}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: show that the benches run, measure nothing")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each system [5]")
    parser.add_argument("--output", type=Path, default=_HERE, help="directory for RESULTS.md and its chart [bench]")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(_BENCHES):
        parser.error(f"no bench {', '.join(sorted(unknown))}")
    if not node_is_here():
        print("The Node peer is left out: it needs Node, and `npm ci` in bench/peers/node.", file=sys.stderr)
    _prepare_process()
    busy = os.getloadavg()[0]
    tables = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name in chosen.names or _BENCHES:
            print(f"{name}:", file=sys.stderr, flush=True)
            bench = functools.partial(_BENCHES[name], quick=chosen.quick, rounds=1 if chosen.quick else chosen.rounds)
            tables.append(runner.run(_await(bench)))
            print(report.section(tables[-1]), flush=True)
    if not chosen.names and not chosen.quick:
        report.write(tables, chosen.output, busy=busy)
    return 0


async def _await(bench: Callable[[], Awaitable[Table]]) -> Table:
    return await bench()


def _prepare_process() -> None:
    """Allow thousands of open connections, and end all started programs on SIGTERM."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    sys.exit(main())
