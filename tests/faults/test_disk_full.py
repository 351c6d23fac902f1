"""A full disk under the embedded engines: it is said clearly, and nothing that was accepted is lost or damaged."""

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

HEALED = 60
# Seconds, on a machine that does much else.
QUICKLY = 10.0
_MIB = 2**20
_SIZE = 32 * _MIB
_PIECE = 4096


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Gives an engine's data directory a small file system of its own; skips where that is not allowed."""
    mounted: list[Path] = []

    def mount(engine: str) -> Path:
        directory = tmp_path / engine
        directory.mkdir()
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root may mount a small file system, and on Linux")
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
    """The file system of the directory has no room in this block, to the last page."""
    filler = directory / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(_PIECE)):
            pass
    assert shutil.disk_usage(directory).free == 0
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_disk_under_dynamodb(small_disks: Callable[[str], Path], make_system: Callable[..., System]) -> None:
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
        # What needs no room goes on.
        assert system.read(earlier[0]) == before[0]
        eventually(lambda: re.search(": held for .*disk is full", system.log("worker")))

    assert_complete_and_accepted_once(system, asked, HEALED)
    assert [system.read(request_id) for request_id in earlier] == before
    system.kill("dynamodb")
    system.start("dynamodb")
    assert [system.read(request_id) for request_id in earlier] == before


def test_a_full_disk_under_redis(small_disks: Callable[[str], Path], make_system: Callable[..., System]) -> None:
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
    """Status, and whether there is a Retry-After, of a request that is not accepted; and the seconds that took."""
    answer, seconds = timed(lambda: system.call(specs.CLIENT, "createRequest", json={"providers": ["gas"]}))
    return None if answer.status_code == 202 else ((answer.status_code, "Retry-After" in answer.headers), seconds)
