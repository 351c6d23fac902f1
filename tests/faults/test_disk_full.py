"""A full disk under the embedded engines: the logs say so, and no accepted request is lost or damaged."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import specs
from tests.faults.test_engines import timed
from tests.support.load import assert_complete_and_accepted_once, some_under_way
from tests.support.system import System, eventually

# Seconds until all accepted requests have ended, once the disk has room again.
HEALED = 60
# Seconds within which an API must refuse a request, on a busy machine.
QUICKLY = 10.0
_MIB = 2**20
# Bytes: of the file system, and of each write that fills it.
_SIZE = 32 * _MIB
_PIECE = 4096


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system for an engine's data directory; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(engine: str) -> Path:
        directory = tmp_path / engine
        directory.mkdir()
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root on Linux may mount a small file system")
        command = ("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(directory))
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            pytest.skip(f"no file system can be mounted here: {answer.stderr.strip()}")
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        # Lazily: the engine may still have its files open.
        subprocess.run(("umount", "--lazy", str(directory)), check=True)


@contextmanager
def full(directory: Path) -> Iterator[None]:
    """Fill the directory's file system to the last page during this block."""
    filler = directory / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(_PIECE)):
            pass
    assert shutil.disk_usage(directory).free == 0
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_disk_under_dynamodb_loses_no_request(
    small_disks: Callable[[str], Path], make_system: Callable[..., System]
) -> None:
    disk = small_disks("dynamodb")
    system = make_system(heal_after=2)
    system.start()
    earlier = some_under_way(system, 10)
    before = assert_complete_and_accepted_once(system, earlier)
    asked = some_under_way(system, 10)

    with full(disk):
        answer, seconds = eventually(lambda: refused(system))
        assert answer == (503, True)
        assert seconds < QUICKLY
        # Reads need no room.
        assert system.read(earlier[0]) == before[0]
        eventually(lambda: re.search(": held for .*disk is full", system.log("worker")))

    assert_complete_and_accepted_once(system, asked, HEALED)
    assert [system.read(request_id) for request_id in earlier] == before
    system.kill("dynamodb")
    system.start("dynamodb")
    assert [system.read(request_id) for request_id in earlier] == before


def test_a_full_disk_under_redis_loses_no_request(
    small_disks: Callable[[str], Path], make_system: Callable[..., System]
) -> None:
    disk = small_disks("redis")
    system = make_system(heal_after=2)
    system.start()
    asked = some_under_way(system, 10)

    with full(disk):
        eventually(lambda: re.search("queue away: .*No space left on device", system.log("worker")))
        asked.append(system.ask("gas"))

    assert_complete_and_accepted_once(system, asked, HEALED)
    for name in ("worker", "reconciler", "client", "aggregator", "redis"):
        assert system.exit_code(name) is None, name


def refused(system: System) -> tuple[tuple[int, bool], float] | None:
    """(status, whether there is a Retry-After) of a refused request, and its seconds; None when it was accepted."""
    answer, seconds = timed(lambda: system.call(specs.CLIENT, "createRequest", json={"providers": ["gas"]}))
    return None if answer.status_code == 202 else ((answer.status_code, "Retry-After" in answer.headers), seconds)
