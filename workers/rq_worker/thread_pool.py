"""Thread pool: runs a worker's jobs on as many threads as they need, up to a bound, and interrupts overdue jobs."""

import ctypes
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

from rq.timeouts import JobTimeoutException

from workers.rq_worker.fairness import FairnessGroups
from workers.rq_worker.leases import Ended, Taken
from workers.rq_worker.running_job import running

log = logging.getLogger(__name__)

# Seconds that an interrupted job gets to notice. A job that waits in a system call does not notice.
_NOTICE = 1.0


class _Task:
    """A submitted job, and how far its thread is with it."""

    def __init__(self, job: Taken) -> None:
        self.job = job
        self.began: float | None = None
        self.thread: int | None = None
        self.gave_place_back = False
        self.interrupted = False
        self.abandoned = False
        self.lock = threading.Lock()


class Pool:
    """Runs jobs, up to `size` at once; `run` is called on a thread for each job, and raises nothing.

    `fail_overdue` is called, on a thread too, for a job that does not end within its timeout. `wake` is set when a job
    ends. `stopping` tells whether the worker stops. Only the worker's own thread may call the methods.
    """

    def __init__(
        self,
        size: int,
        run: Callable[[Taken], Ended],
        fail_overdue: Callable[[Taken], Ended],
        wake: threading.Event,
        stopping: Callable[[], bool],
    ) -> None:
        self.size = size
        self.shares = FairnessGroups(size)
        """The fairness groups. A job is in that of its provider, or else of its queue, until it moves to another."""
        self._run = run
        self._fail_overdue = fail_overdue
        self._wake = wake
        self._stopping = stopping
        self._tasks: dict[str, _Task] = {}
        self._todo: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._going_on: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._threads = 0

    @property
    def jobs(self) -> Collection[Taken]:
        """The jobs that were submitted and not confirmed."""
        return [task.job for task in self._tasks.values()]

    @property
    def free(self) -> int:
        """How many more jobs can run at once."""
        return self.size - len(self._tasks)

    @property
    def executing(self) -> int:
        """How many jobs have not run to their end."""
        return len(self._tasks) - self._ended.qsize()

    def submit(self, job: Taken) -> None:
        """Run a job on a thread."""
        task = self._tasks[job.member] = _Task(job)
        self.shares.join(job.member, job.share)
        self._todo.put(task)
        if self._threads < min(len(self._tasks), self.size):
            self._threads += 1
            threading.Thread(target=self._work, name=f"job-{self._threads}", daemon=True).start()

    def ended(self, most: int) -> list[Ended]:
        """At most `most` jobs that have run or released their permits; each is returned once, unless it is put back."""
        told = [self._going_on.get() for _ in range(min(self._going_on.qsize(), most))]
        return told + [self._ended.get() for _ in range(min(self._ended.qsize(), most - len(told)))]

    def put_back(self, batch: Sequence[Ended]) -> None:
        """Have `ended` return these again: they could not be recorded."""
        for ended in batch:
            (self._going_on if ended.goes_on else self._ended).put(ended)

    def confirm(self, batch: Sequence[Ended]) -> None:
        """Forget those of these jobs that have run: their ends are recorded."""
        for ended in batch:
            if not ended.goes_on and self._tasks.pop(ended.job.member, None) is not None:
                self.shares.leave(ended.job.member)

    def give_up(self) -> None:
        """Mark all running jobs as to be run again at once; the first end of a job counts."""
        self.put_back([Ended(job, wait=0) for job in self.jobs])

    def end_overdue(self) -> None:
        """Interrupt the jobs whose timeout is over; abandon the threads of those that do not notice."""
        now = time.monotonic()
        for task in self._tasks.values():
            late = now - task.began - task.job.timeout if task.began else 0.0
            if late > 0 and not task.interrupted:
                task.interrupted = True
                _interrupt(task)
            elif late > _NOTICE and not task.abandoned:
                log.error("%s: ignores its timeout of %g s, its thread is abandoned", task.job.job_id, task.job.timeout)
                task.abandoned = True
                self._threads -= 1
                threading.Thread(target=self._abandon, args=(task.job,), daemon=True).start()

    def _abandon(self, job: Taken) -> None:
        self._tell(self._fail_overdue(job))

    def _work(self) -> None:
        while True:
            task = self._todo.get()
            task.thread = threading.get_ident()
            task.began = time.monotonic()
            try:
                with running(
                    partial(self._give_back_place, task),
                    begun_before=task.job.begun_before,
                    move=partial(self.shares.move, task.job.member),
                    stopping=self._stopping,
                ):
                    ended = self._run(task.job)
                with task.lock:
                    task.thread = None
            except JobTimeoutException:
                # The interruption came just after the job had run: `end_overdue` fails the job all the same.
                continue
            if task.abandoned:
                return
            self._tell(replace(ended, answered=None) if task.gave_place_back else ended)

    def _give_back_place(self, task: _Task, answered: bool | None) -> None:
        if not task.job.key:
            return
        task.gave_place_back = True
        self._going_on.put(Ended(task.job, answered=answered, goes_on=True))
        self._wake.set()

    def _tell(self, ended: Ended) -> None:
        self._ended.put(ended)
        self._wake.set()


def _interrupt(task: _Task) -> None:
    """Raise JobTimeoutException in the task's thread once it runs Python again, as RQ does in its threads."""
    with task.lock:
        if task.thread is not None:
            thread, exception = ctypes.c_ulong(task.thread), ctypes.py_object(JobTimeoutException)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, exception)
