"""What a running job can know and do of itself: whether it was begun before, give its permit back, change its share."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A job runs on one thread from its start to its end, so that is where it is known.
_job = threading.local()


@contextmanager
def running(
    give_back: Callable[[bool | None], None],
    *,
    begun_before: bool,
    move: Callable[[str], bool] = lambda _: True,
    stopping: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """The code of this block is a job on this thread.

    `give_back` gives its permit back, `move` counts it in another share of its worker if that has room, `stopping`
    tells whether the worker is to stop: its jobs then wait for nothing.
    """
    _job.give_back, _job.begun_before, _job.move, _job.stopping = give_back, begun_before, move, stopping
    try:
        yield
    finally:
        del _job.give_back, _job.begun_before, _job.move, _job.stopping


def give_back_place(answered: bool | None) -> None:
    """Give the permit of this thread's job back now; `answered` is what the job would have returned.

    Only the first call counts. Nothing happens under a worker that is not Datahog's own: RQ's gives it back when the
    job ends.
    """
    give_back: Callable[[bool | None], None] | None = getattr(_job, "give_back", None)
    if give_back:
        _job.give_back = None
        give_back(answered)


def count_in_share(share: str) -> bool:
    """Count this thread's job in another share of its worker from now on; returns False if that has no room."""
    move: Callable[[str], bool] | None = getattr(_job, "move", None)
    return move is None or move(share)


def is_stopping() -> bool:
    """Whether this thread's job is not to wait for anything: its worker stops, or is not Datahog's own."""
    stopping: Callable[[], bool] | None = getattr(_job, "stopping", None)
    return stopping is None or stopping()


def begun_before() -> bool:
    """Whether a worker that is gone had this thread's job, and may have done any part of it."""
    return getattr(_job, "begun_before", False)
