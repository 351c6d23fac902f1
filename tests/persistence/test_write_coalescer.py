"""The write coalescer: it combines concurrent calls, gives each its own outcome, and blocks none for ever."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from persistence.errors import Unavailable
from persistence.write_coalescer import WriteCoalescer
from tests.support.system import eventually


class Made:
    """Records the combined calls; each waits until `go_on` is set."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()
        self._fault = fault

    def __call__(self, calls: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(calls))
        assert self.go_on.wait(10)
        if self._fault and len(self.batches) == 1:
            raise self._fault
        return [ValueError(call) if call < 0 else call * 10 for call in calls]


def ask(
    joint: WriteCoalescer[int, int], made: Made, calls: Sequence[int], key: Callable[[int], str]
) -> list[Future[int]]:
    """Makes the first call, and the others while it is under way."""
    pool = ThreadPoolExecutor(len(calls))
    futures = [pool.submit(joint, key(calls[0]), calls[0])]
    eventually(lambda: made.batches)
    for call in calls[1:]:
        futures.append(pool.submit(joint, key(call), call))
        eventually(lambda: sum(map(len, joint._waiting.values())) + len(made.batches) >= len(futures))
    made.go_on.set()
    pool.shutdown()
    return futures


def test_calls_during_a_call_are_combined_up_to_the_limit() -> None:
    made = Made()

    futures = ask(WriteCoalescer(made, most=3), made, range(1, 7), lambda _: "one")

    assert made.batches == [[1], [2, 3, 4], [5, 6]]
    assert [future.result() for future in futures] == [10, 20, 30, 40, 50, 60]


def test_calls_with_different_keys_are_not_combined() -> None:
    made = Made()

    ask(WriteCoalescer(made, most=3), made, [1, 2, 3], str)

    assert sorted(made.batches) == [[1], [2], [3]]


def test_each_combined_call_gets_its_own_exception() -> None:
    made = Made()

    futures = ask(WriteCoalescer(made, most=3), made, [1, -2, 3], lambda _: "one")

    assert made.batches == [[1], [-2, 3]]
    assert futures[0].result() == 10
    with pytest.raises(ValueError, match="-2"):
        futures[1].result()
    assert futures[2].result() == 30


@pytest.mark.parametrize("fault", [Unavailable("away"), RuntimeError("broken"), SystemExit("gone")])
def test_a_failed_combined_call_raises_for_each_caller(fault: BaseException) -> None:
    made = Made(fault)
    joint = WriteCoalescer(made, most=3)

    futures = ask(joint, made, [1, 2, 3], lambda _: "one")

    with pytest.raises(type(fault)):
        futures[0].result()
    for future in futures[1:]:
        with pytest.raises(Unavailable):
            future.result()
    assert joint("one", 4) == 40
