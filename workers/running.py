"""What a running job can know and do of itself: whether it was begun before, and give its place back early."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A job runs on one thread from its start to its end, so that is where it is known.
_job = threading.local()


@contextmanager
def running(give_back: Callable[[bool], None], *, begun_before: bool) -> Iterator[None]:
    """What this thread runs in this block is a job, which gives back its place under its rate limit by the call."""
    _job.give_back, _job.begun_before = give_back, begun_before
    try:
        yield
    finally:
        del _job.give_back, _job.begun_before


def give_back_place(answered: bool) -> None:
    """Let others have the place of this thread's job from now on; `answered` is what it would have returned.

    Nothing happens under a worker that is not Datahog's own: RQ's gives it back when the job ends.
    """
    give_back: Callable[[bool], None] | None = getattr(_job, "give_back", None)
    if give_back:
        give_back(answered)


def begun_before() -> bool:
    """Whether a worker that is gone had this thread's job, and may have done any part of it."""
    return getattr(_job, "begun_before", False)
