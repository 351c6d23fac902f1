"""Bench of large results on AWS: one request's results of 5 MiB, stored, read, retried and deleted at the limits.

    python -m bench.aws_partitions

runs the real persistence code over simulated partitions (`bench.partitions`), on which a table of 4 of them, as AWS
makes them for a new table that is paid by use, has no units saved up, or 300 s of them. It exits with 1 when a step
begins anew, a part is written twice, a result is not there within an hour, or a retry or redelivery writes more than
the record.
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
_COUNTS = (2, 5, 10, 50)


@contextmanager
def begin_anew() -> Iterator[None]:
    """Break it: a store that is throttled does not wait, and forgets what it has stored."""
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
    """Break it: all parts have one partition key, as they once had."""

    def keys(request_id: str, result_id: str, parts: int) -> list[dict[str, str]]:
        return [{"pk": request_id, "sk": f"part#{result_id}#{number:04}"} for number in range(parts)]

    with patch.object(persistence.results.store, "part_keys", keys):
        yield


MUTATIONS = {"begin-anew": (begin_anew,), "one-key": (one_key,), "both": (begin_anew, one_key)}


def measure(counts: Sequence[int], bursts: Sequence[bool], *, size: int, partitions: int, mutation: str) -> list[Row]:
    """A row for each number of results, with and without burst."""
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
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.aws_partitions", description=__doc__)
    parser.add_argument("--results", type=int, nargs="+", default=_COUNTS, help="of one request [2 5 10 50]")
    parser.add_argument("--size", type=int, default=_FIVE_MIB, help="bytes of each, of noise [5 MiB]")
    parser.add_argument("--partitions", type=int, default=4, help="of the table [4]")
    parser.add_argument(
        "--burst", nargs="+", choices=("no", "yes"), default=("no", "yes"), help="units saved up [both]"
    )
    parser.add_argument("--mutation", choices=MUTATIONS, default="", help="break the code first: it must exit with 1")
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
