"""The bench of large results on AWS: it passes, and fails when the code is broken as it once was."""

import pytest

from bench import aws_partitions
from bench.partitions import Buckets, VirtualTime

# Results of five parts, and one partition, so that some of them are refused.
ARGUMENTS = ["--size", "1900000", "--partitions", "1", "--results", "4", "--burst"]


@pytest.mark.parametrize("burst", ["no", "yes"])
def test_no_step_begins_anew(capsys: pytest.CaptureFixture[str], burst: str) -> None:
    assert aws_partitions.main([*ARGUMENTS, burst]) == 0

    assert "FAILED" not in capsys.readouterr().err


@pytest.mark.parametrize("mutation", ["begin-anew", "both"])
def test_a_step_that_begins_anew_is_found(capsys: pytest.CaptureFixture[str], mutation: str) -> None:
    assert aws_partitions.main([*ARGUMENTS, "no", "--mutation", mutation]) == 1

    assert "a step began anew" in capsys.readouterr().err


@pytest.mark.parametrize(("burst", "taken"), [(False, 1000), (True, 300_000)])
def test_a_partition_takes_its_units_and_no_more(burst: bool, taken: int) -> None:
    time = VirtualTime()
    buckets = Buckets(time, partitions=1, burst=burst)

    assert buckets.take("write", "a", taken)
    assert not buckets.take("write", "b", 1)
    time.now += 0.5
    assert buckets.take("write", "b", 500)
    assert not buckets.take("write", "a", 1)


def test_a_key_takes_no_more_than_a_partition() -> None:
    buckets = Buckets(VirtualTime(), partitions=1000, burst=False)

    assert buckets.take("read", "a", 3000)
    assert not buckets.take("read", "a", 1)
    assert buckets.take("read", "b", 3000)


def test_virtual_time_passes_while_all_sleep() -> None:
    time, seen = VirtualTime(), []

    def sleeper(seconds: float) -> None:
        for _ in range(2):
            time.sleep(seconds)
            seen.append((time.now, seconds))

    time.run([lambda: sleeper(2), lambda: sleeper(3)])

    assert seen == [(2, 2), (3, 3), (4, 2), (6, 3)]


def test_virtual_time_raises_what_a_thread_did() -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        VirtualTime().run([fail, lambda: None])
