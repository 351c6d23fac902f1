"""Makes the C library return large freed blocks to the system, so that a process with many threads does not grow."""

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE_BYTES = 1_048_576


def give_back_large_blocks() -> None:
    """Makes malloc map each block of a megabyte or more by itself, and unmap it when it is freed.

    By default glibc raises its threshold when a mapped block is freed, and takes the next large block from the arena
    of the calling thread, which keeps it (mallopt(3), M_MMAP_THRESHOLD). A worker whose threads parse responses of
    some megabytes would then grow for hours. Other C libraries have no such setting; the function leaves them alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
