"""Backoff: growth, maximum, jitter, the other side's `Retry-After`, and the deadline."""

import math
import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from requests.structures import CaseInsensitiveDict

from providers.retry_policy import RetryPolicy, retry_after, scheduled_delay

NOW = datetime(2026, 11, 24, 10, 0, 0, 500_000, tzinfo=UTC)
FOREVER = math.inf
PLAIN = RetryPolicy(jitter=0)

policies = st.builds(
    RetryPolicy,
    initial_delay=st.floats(0.01, 3600),
    multiplier=st.floats(1, 10),
    maximum_delay=st.floats(0.01, 86_400),
    jitter=st.floats(0, 1),
)
failures_made = st.integers(1, 100_000)
floors = st.one_of(st.just(0.0), st.floats(0, 200_000))
generators = st.integers(0, 2**32).map(random.Random)


def delays(policy: RetryPolicy, count: int) -> list[float | None]:
    rng = random.Random(1)
    return [policy.delay(failures, remaining=FOREVER, rng=rng) for failures in range(1, count + 1)]


def test_a_delay_doubles_up_to_its_maximum() -> None:
    assert delays(RetryPolicy(jitter=0, maximum_delay=20), 7) == [1, 2, 4, 8, 16, 20, 20]


def test_the_default_policy_waits_1_s_to_5_min_and_never_ends() -> None:
    policy = RetryPolicy()

    assert (policy.initial_delay, policy.maximum_delay, policy.maximum_attempts) == (1, 300, None)


@pytest.mark.parametrize("failures", [65, 1024, 10_000, 10**9])
def test_many_failures_do_not_overflow(failures: int) -> None:
    policy = RetryPolicy(jitter=0, multiplier=10)

    assert policy.delay(failures, remaining=FOREVER, rng=random.Random(1)) == 300


def test_jitter_spreads_jobs_that_failed_together() -> None:
    rng = random.Random(1)

    spread = [RetryPolicy(initial_delay=10, jitter=0.5).delay(1, remaining=FOREVER, rng=rng) or 0 for _ in range(1000)]

    assert 10 <= min(spread) < 10.1
    assert 14.9 < max(spread) <= 15


@given(policies, failures_made, floors, generators)
def test_jitter_only_adds_and_is_bounded(policy: RetryPolicy, failures: int, floor: float, rng: random.Random) -> None:
    plain = policy.model_copy(update={"jitter": 0}).delay(failures, floor=floor, remaining=FOREVER, rng=rng)
    delay = policy.delay(failures, floor=floor, remaining=FOREVER, rng=rng)

    assert plain is not None
    assert delay is not None
    assert plain <= delay <= plain * (1 + policy.jitter) * (1 + 1e-9)
    assert plain <= max(policy.maximum_delay, floor)


@given(policies, failures_made, floors, st.floats(0, 300_000), generators)
@example(RetryPolicy(), 20, 100.0, 101.0, random.Random(1))
def test_a_delay_is_at_least_the_floor_and_within_the_deadline(
    policy: RetryPolicy, failures: int, floor: float, remaining: float, rng: random.Random
) -> None:
    delay = policy.delay(failures, floor=floor, remaining=remaining, rng=rng)

    assert delay is None or floor <= delay < remaining


@given(policies, failures_made, st.floats(1, 300_000), generators)
def test_there_is_another_attempt_while_time_is_left(
    policy: RetryPolicy, failures: int, remaining: float, rng: random.Random
) -> None:
    delay = policy.delay(failures, remaining=remaining, rng=rng)

    assert (delay is None) <= (remaining * 0.9 < policy.initial_delay)


def test_a_wait_that_would_cross_the_deadline_is_shortened() -> None:
    assert PLAIN.delay(20, remaining=100, rng=random.Random(1)) == pytest.approx(90)


@pytest.mark.parametrize(("floor", "remaining"), [(0, 1), (0, 0), (0, -5), (95, 100), (1000, 100)])
def test_the_policy_gives_up_when_no_attempt_fits(floor: float, remaining: float) -> None:
    assert PLAIN.delay(20, floor=floor, remaining=remaining, rng=random.Random(1)) is None


def test_the_policy_gives_up_after_the_maximum_of_attempts() -> None:
    assert delays(RetryPolicy(jitter=0, maximum_attempts=3), 4) == [1, 2, None, None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"initialDelay": 0},
        {"initialDelay": math.nan},
        {"multiplier": 0.9},
        {"maximumDelay": math.inf},
        {"jitter": 1.1},
        {"maximumAttempts": 0},
        {"maximumAttempts": 1.5},
        {"retries": 3},
    ],
)
def test_an_invalid_policy_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        RetryPolicy.model_validate(wrong)


@given(st.floats(0, 100_000), floors, st.floats(0, 1), generators)
def test_a_scheduled_wait_is_at_least_the_schedule_and_the_floor(
    wait: float, floor: float, jitter: float, rng: random.Random
) -> None:
    delay = scheduled_delay(wait, floor=floor, jitter=jitter, rng=rng)

    assert max(wait, floor) <= delay <= max(wait, floor) * (1 + jitter) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("99999999999999999999", 2**31),
        ("Tue, 24 Nov 2026 10:00:10 GMT", 9.5),
        ("Tuesday, 24-Nov-26 10:00:10 GMT", 9.5),
        ("Tue Nov 24 10:00:10 2026", 9.5),
        ("Tue, 24 Nov 2026 11:00:10 +0100", 9.5),
        ("Tue, 24 Nov 2026 09:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 2**31),
        ("", 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("Tue, 99 Nov 2026 10:00:10 GMT", 0),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after({"Retry-After": value}, NOW) == pytest.approx(seconds)


def test_without_retry_after_there_is_no_floor() -> None:
    assert retry_after({}, NOW) == 0


def test_retry_after_is_read_in_any_case() -> None:
    assert retry_after(CaseInsensitiveDict({"retry-after": "3"}), NOW) == 3


@given(st.datetimes(datetime(2026, 11, 25), datetime(2090, 1, 1)).map(lambda moment: moment.replace(microsecond=0)))
def test_the_floor_of_a_date_is_not_before_the_date(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    floor = retry_after({"Retry-After": format_datetime(moment, usegmt=True)}, NOW)

    assert NOW + timedelta(seconds=floor) >= moment


@given(st.text(max_size=80))
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Mon, 01 Jan 0001 00:00:00 +9959")
def test_any_retry_after_gives_a_floor_that_fits_a_time(value: str) -> None:
    floor = retry_after({"Retry-After": value}, NOW)

    assert floor >= 0
    assert NOW + timedelta(seconds=2 * floor) >= NOW
