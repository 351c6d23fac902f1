"""Has the C library give large blocks back when they are freed, which a process of many threads would else hoard."""

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE = 1_048_576


def give_back_large_blocks() -> None:
    """From now on each block of a megabyte or more is mapped by itself, and unmapped when it is freed.

    Otherwise glibc, having seen such a block freed once, takes the next from the arena of the thread that asks (see
    mallopt(3), M_MMAP_THRESHOLD), and there it stays: a worker whose threads read and parse answers of some megabytes
    would grow for hours. Other C libraries have no such setting, and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
