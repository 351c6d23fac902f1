"""Bench of large results on AWS: stores, reads, retries and deletes one request's results of 5 MiB at the limits.

    python -m bench.aws_partitions

runs the real persistence code over simulated partitions (`bench.partitions`). The table has 4 of them, as AWS makes for
a new on-demand table, with no units saved up, or 300 s of them. The command exits with 1 when a step starts over, a
part is written twice, a result is not there within an hour, or a retry or redelivery writes more than the record.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from unittest.mock import patch

from moto import mock_aws

import persistence.results.store
from bench.large_results import Row, Scenario
from persistence.results.expiry_items import ExpiryItems
from persistence.results.store import PendingResult, Results

_FIVE_MIB = 5 * 1024 * 1024
# Results of one request.
_COUNTS = (2, 5, 10, 50)


@contextmanager
def begin_anew() -> Iterator[None]:
    """Break the code: a throttled store does not wait, and forgets which parts it has stored."""
    store = Results.store

    def forgetful(self: Results, pending: PendingResult) -> object:
        pending.stored = None
        return store(self, pending)

    begin = patch.object(ExpiryItems, "begin", lambda *_, **__: 0)
    count = patch.object(ExpiryItems, "count", lambda *_: None)
    with (
        patch.object(Results, "store", forgetful),
        begin,
        count,
        patch.object(persistence.results.store, "_PAUSES", ()),
    ):
        yield


@contextmanager
def one_key() -> Iterator[None]:
    """Break the code: all parts have one partition key, as in earlier versions."""

    def keys(request_id: str, result_id: str, parts: int) -> list[dict[str, str]]:
        return [{"pk": request_id, "sk": f"part#{result_id}#{number:04}"} for number in range(parts)]

    with patch.object(persistence.results.store, "part_keys", keys):
        yield


MUTATIONS = {"begin-anew": (begin_anew,), "one-key": (one_key,), "both": (begin_anew, one_key)}


def measure(counts: Sequence[int], bursts: Sequence[bool], *, size: int, partitions: int, mutation: str) -> list[Row]:
    """Run a scenario for each number of results and each burst; print and return its row."""
    rows = []
    for burst in bursts:
        for count in counts:
            with ExitStack() as stack:
                stack.enter_context(mock_aws())
                for broken in MUTATIONS.get(mutation, ()):
                    stack.enter_context(broken())
                rows.append(Scenario(count, size, partitions=partitions, burst=burst).run())
            print(_line(rows[-1]), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit code: 1 when a scenario failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.aws_partitions", description=__doc__)
    parser.add_argument("--results", type=int, nargs="+", default=_COUNTS, help="results of one request [2 5 10 50]")
    parser.add_argument("--size", type=int, default=_FIVE_MIB, help="bytes of each result, which are random [5 MiB]")
    parser.add_argument("--partitions", type=int, default=4, help="partitions of the table [4]")
    parser.add_argument(
        "--burst", nargs="+", choices=("no", "yes"), default=("no", "yes"), help="whether units are saved up [both]"
    )
    parser.add_argument(
        "--mutation", choices=MUTATIONS, default="", help="break the code first: the command must then exit with 1"
    )
    chosen = parser.parse_args(arguments)
    names = [field.name.replace("_", " ") for field in fields(Row)]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    rows = measure(
        chosen.results,
        [word == "yes" for word in chosen.burst],
        size=chosen.size,
        partitions=chosen.partitions,
        mutation=chosen.mutation,
    )
    failures = [failure for row in rows for failure in row.failures()]
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _line(row: Row) -> str:
    values = [getattr(row, field.name) for field in fields(Row)]
    texts = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
    return f"| {' | '.join(texts)} |"


if __name__ == "__main__":
    sys.exit(main())
