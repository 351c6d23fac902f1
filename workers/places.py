"""The place that a running job holds under its rate limit, given back before the job ends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A job runs on one thread from its start to its end, so that is where its place is known.
_job = threading.local()


@contextmanager
def held(give_back: Callable[[bool], None]) -> Iterator[None]:
    """What this thread runs in this block holds a place, which it gives back by the call."""
    _job.give_back = give_back
    try:
        yield
    finally:
        del _job.give_back


def give_back_place(answered: bool) -> None:
    """Let others have the place of this thread's job from now on; `answered` is what it would have returned.

    Nothing happens under a worker that is not Datahog's own: RQ's gives it back when the job ends.
    """
    give_back: Callable[[bool], None] | None = getattr(_job, "give_back", None)
    if give_back:
        give_back(answered)
