"""Finds out how many CPUs a worker may use, and allows it the open files that its jobs need."""

import os
import resource

from datahog.settings import SettingsError

# A job holds one connection to its provider, and the pool may keep another one for the next job.
_FILES_PER_JOB = 2
# Open files that a worker needs besides those of its jobs.
_OTHER_FILES = 200


def cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def allow_jobs(concurrency: int) -> None:
    """Lets this process and its children open the files that `concurrency` jobs at once need. Raises SettingsError."""
    needed = concurrency * _FILES_PER_JOB + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SettingsError(
            f"DATAHOG_WORKER_CONCURRENCY: {concurrency} jobs at once need {needed} open files and the system allows "
            f"{hard} (ulimit -Hn); allow more, or set it to {max(1, (hard - _OTHER_FILES) // _FILES_PER_JOB)}"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
