"""Write repetition: it repeats refused writes only, and a job that waits for one keeps no permit of its provider."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from persistence.errors import Conflict, Unavailable
from workers.rq_worker.running_job import running
from workers.write_repetition import RepeatedConflict, WriteRepetition


class Job:
    """A job of a worker; it records the permits it returns, its fairness groups and its pauses (seconds)."""

    def __init__(self) -> None:
        self.answered: list[bool | None] = []
        self.shares: list[str] = []
        self.slept: list[float] = []
        self.stops = False
        self.has_room = True

    def sleep(self, seconds: float) -> None:
        assert seconds <= 0.5
        self.slept.append(seconds)

    def move(self, share: str) -> bool:
        self.shares.append(share)
        return self.has_room

    @contextmanager
    def runs(self) -> Iterator[None]:
        with running(self.answered.append, begun_before=False, move=self.move, stopping=lambda: self.stops):
            yield


@pytest.fixture
def job() -> Job:
    return Job()


@pytest.fixture
def writes(job: Job) -> WriteRepetition:
    return WriteRepetition(random.Random(1), most_kept=100, sleep=job.sleep)


def refused(times: int, then: Callable[[], str] = lambda: "written") -> Callable[[], str]:
    """Returns a write that is refused `times` times before `then` runs."""
    refusals = iter(range(times))

    def write() -> str:
        if next(refusals, None) is not None:
            raise Unavailable("throttled")
        return then()

    return write


def conflict() -> str:
    raise Conflict("has ended already")


def test_a_write_that_succeeds_at_once_returns_no_permit(writes: WriteRepetition, job: Job) -> None:
    with job.runs():
        assert writes.until_done("r1", refused(0), kept=1000, answered=True) == "written"
        with pytest.raises(Conflict) as gone:
            writes.until_done("r1", conflict)

    assert type(gone.value) is Conflict
    assert (job.answered, job.shares, job.slept) == ([], [], [])


def test_a_refused_write_is_repeated_with_growing_pauses(writes: WriteRepetition, job: Job) -> None:
    with job.runs():
        assert writes.until_done("r1 gas", refused(12), kept=60, answered=True) == "written"

    # The pauses double from 0.2 s to 10 s, and jitter shortens each by up to a half.
    assert 0.1 <= job.slept[0] <= 0.2
    assert 30 <= sum(job.slept) <= 62
    assert job.answered == [True]
    assert set(job.shares) == {"datahog:write"}


def test_a_conflict_of_a_repeated_write_is_a_repeated_conflict(writes: WriteRepetition, job: Job) -> None:
    with job.runs(), pytest.raises(RepeatedConflict, match="has ended already"):
        writes.until_done("r1", refused(1, conflict))


def test_a_stopping_worker_repeats_once_more_at_most(writes: WriteRepetition, job: Job) -> None:
    made: list[int] = []

    def write() -> None:
        made.append(1)
        job.stops = len(made) > 2
        raise Unavailable("throttled")

    with job.runs(), pytest.raises(Unavailable):
        writes.until_done("r1", write)

    assert len(made) == 3


def test_a_write_outside_a_worker_job_is_not_repeated(writes: WriteRepetition) -> None:
    with pytest.raises(Unavailable):
        writes.until_done("r1", refused(1))


def test_over_the_budget_the_permit_is_kept(writes: WriteRepetition, job: Job) -> None:
    other = Job()

    def repeat() -> None:
        with job.runs():
            assert writes.until_done("r1", refused(3), kept=60, answered=True) == "written"

    def held_up() -> str:
        # The other job keeps 60 of the 100 bytes of the budget meanwhile.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(repeat).result()
        assert job.answered == []
        return "written"

    with other.runs():
        writes.until_done("r2", refused(1, held_up), kept=60, answered=True)
    assert other.answered == [True]

    with job.runs():
        writes.until_done("r1", refused(1), kept=60, answered=True)
    assert job.answered == [True]


def test_in_a_full_group_the_permit_is_kept(writes: WriteRepetition, job: Job) -> None:
    job.has_room = False

    with job.runs():
        writes.until_done("r1", refused(2), kept=60, answered=False)
        assert job.answered == []
        job.has_room = True
        # A job that kept its permit uses nothing of the budget, so 100 bytes fit.
        writes.until_done("r1", refused(1), kept=100, answered=False)

    assert job.answered == [False]
