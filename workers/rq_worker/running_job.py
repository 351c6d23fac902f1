"""The running job: lets a job see whether it ran before, release its permit, and change its fairness group."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A job runs on one thread from its start to its end, so that its state is local to the thread.
_job = threading.local()


@contextmanager
def running(
    give_back: Callable[[bool | None], None],
    *,
    begun_before: bool,
    move: Callable[[str], bool] = lambda _: True,
    stopping: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """Run the code of this block as a job on this thread.

    `give_back` releases its permit, `move` moves it to another fairness group of its worker if that has room,
    `stopping` tells whether the worker stops: its jobs then wait for nothing.
    """
    _job.give_back, _job.begun_before, _job.move, _job.stopping = give_back, begun_before, move, stopping
    try:
        yield
    finally:
        del _job.give_back, _job.begun_before, _job.move, _job.stopping


def give_back_place(answered: bool | None) -> None:
    """Release the permit of this thread's job now; `answered` is what the job would have returned.

    Only the first call counts. Nothing happens under a worker that is not Datahog's own: RQ's worker releases the
    permit when the job ends.
    """
    give_back: Callable[[bool | None], None] | None = getattr(_job, "give_back", None)
    if give_back:
        _job.give_back = None
        give_back(answered)


def count_in_share(share: str) -> bool:
    """Move this thread's job to another fairness group of its worker; returns False if that has no room."""
    move: Callable[[str], bool] | None = getattr(_job, "move", None)
    return move is None or move(share)


def is_stopping() -> bool:
    """Whether this thread's job must not wait for anything: its worker stops, or is not Datahog's own."""
    stopping: Callable[[], bool] | None = getattr(_job, "stopping", None)
    return stopping is None or stopping()


def begun_before() -> bool:
    """Whether a worker that is gone had claimed this thread's job, and may have done any part of it."""
    return getattr(_job, "begun_before", False)
