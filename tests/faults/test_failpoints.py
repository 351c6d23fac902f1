"""A process dies at every point between two writes: its work is done nevertheless, and counts once."""

import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from datahog.failpoints import FAILPOINTS, TESTING, VARIABLE, Failpoint
from tests.faults.failpoints.scene import Scene
from tests.faults.failpoints.scenes import SCENES, Playing
from tests.support.providers import providers_of
from tests.support.servers.receiver import Receiver
from tests.support.system import System, eventually, system_settings

pytestmark = pytest.mark.timeout(600)

# The lanes run side by side, each on its own system.
_LANES: tuple[Callable[[Failpoint], bool], ...] = (
    lambda failpoint: failpoint.program == "worker",
    lambda failpoint: failpoint.program != "worker",
)
# Seconds.
_QUICK = {"worker_lease": 1, "heal_after": 1, "reconciler_period": 0.2, "delivery_timeout": 2, "worker_grace": 2}

Healed = dict[str, "Future[float]"]


@pytest.fixture(scope="module")
def healed(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Healed]:
    """For each tested failpoint, the seconds from the program's restart until everything was healed."""
    tested = [item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    names = {item.callspec.params.get("name") for item in tested}
    chosen = [failpoint for failpoint in FAILPOINTS if failpoint.name in names]
    outcomes: Healed = {failpoint.name: Future() for failpoint in chosen}
    with ThreadPoolExecutor() as lanes:
        for number, belongs in enumerate(_LANES):
            if mine := [failpoint for failpoint in chosen if belongs(failpoint)]:
                lanes.submit(_play_all, mine, outcomes, tmp_path_factory.mktemp(f"lane{number}"))
        yield outcomes


@pytest.mark.parametrize("name", [failpoint.name for failpoint in FAILPOINTS])
def test_a_death_between_two_writes_leaves_no_work_undone(name: str, healed: Healed) -> None:
    print(f"{name}: healed in {healed[name].result():.1f} s")


def test_each_failpoint_has_a_scene() -> None:
    assert list(SCENES) == [failpoint.name for failpoint in FAILPOINTS]


def test_the_documentation_lists_each_failpoint() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    listed = re.findall(r"^\| `([a-z.-]+)` \|", text, re.MULTILINE)

    assert listed == [failpoint.name for failpoint in FAILPOINTS]


def _play_all(failpoints: Sequence[Failpoint], outcomes: Healed, directory: Path) -> None:
    armed = directory / "armed"
    armed.write_text("")
    waiting: list[tuple[Failpoint, Playing, float]] = []
    try:
        with Receiver() as receiver:
            (directory / "providers.yaml").write_text(providers_of(receiver))
            environment = {TESTING: "1", VARIABLE: f"@{armed}"}
            with System(system_settings(directory, **_QUICK), environment=environment) as system:
                system.start()
                for failpoint in failpoints:
                    with _told(outcomes[failpoint.name]):
                        scene = Scene(system, receiver, failpoint, armed)
                        playing = SCENES[failpoint.name](scene)
                        _die(scene, playing)
                        began = time.monotonic()
                        if next(playing, playing) is playing:
                            outcomes[failpoint.name].set_result(time.monotonic() - began)
                        else:
                            waiting.append((failpoint, playing, time.monotonic() - began))
                for failpoint, playing, seconds in waiting:
                    with _told(outcomes[failpoint.name]):
                        next(playing, None)
                        # The scene waited for its turn and for the caller's next call, not for healing.
                        outcomes[failpoint.name].set_result(seconds)
    except BaseException as error:
        for failpoint in failpoints:
            if not outcomes[failpoint.name].done():
                outcomes[failpoint.name].set_exception(error)


@contextmanager
def _told(outcome: "Future[float]") -> Iterator[None]:
    """Make an error in this block the outcome of one failpoint only."""
    try:
        yield
    except BaseException as error:
        outcome.set_exception(error)


def _die(scene: Scene, playing: Playing) -> None:
    """Let the program die at the failpoint, and start it again."""
    system, program, name = scene.system, scene.failpoint.program, scene.failpoint.name
    try:
        next(playing)
        eventually(lambda: system.exit_code(program) is not None)
    finally:
        scene.armed.write_text("")
    assert system.exit_code(program) == -signal.SIGKILL
    assert system.log(program).rstrip().endswith(f"failpoint {name}")
    system.start(program)
