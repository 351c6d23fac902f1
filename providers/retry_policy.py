"""Decides when to retry: exponential backoff with jitter, and the other side's `Retry-After` as a floor."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

# About 68 years, so that adding it to a time does not overflow.
_LONGEST_SECONDS = 2.0**31

# The largest share of a scheduled wait that is added to it at random, 0 to 1.
SCHEDULE_JITTER = 0.1


class RetryPolicy(BaseModel):
    """How failed attempts are retried; by default until the request's deadline. Times are in seconds."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    initial_delay: float = Field(1, gt=0, le=86_400)
    multiplier: float = Field(2, ge=1, le=10)
    maximum_delay: float = Field(300, gt=0, le=86_400)
    jitter: float = Field(0.5, ge=0, le=1)
    """The largest share of a delay that is added to it at random, so that jobs that failed together spread out."""
    maximum_attempts: int | None = Field(None, ge=1)

    def delay(self, failures: int, *, floor: float = 0, remaining: float, rng: random.Random) -> float | None:
        """Returns the seconds to wait after `failures` failures (1 or more), or None when the policy gives up.

        `floor` is the wait that the other side asks for (`Retry-After`), in seconds; jitter is only added to it.
        `remaining` is the time to the deadline, in seconds: a wait that would cross the deadline is shortened, so that
        one more attempt comes before it.
        """
        if self.maximum_attempts is not None and failures >= self.maximum_attempts:
            return None
        # The exponent needs a bound because the number of failures has none: 2.0 ** 1024 raises OverflowError.
        backoff = min(self.maximum_delay, self.initial_delay * self.multiplier ** min(failures - 1, 64))
        wait = max(backoff, floor)
        wait += wait * self.jitter * rng.random()
        if wait < remaining:
            return wait
        last = remaining * 0.9
        return last if last >= max(floor, self.initial_delay) else None


def scheduled_delay(wait: float, *, floor: float = 0, jitter: float = SCHEDULE_JITTER, rng: random.Random) -> float:
    """Returns a wait of a fixed schedule in seconds: at least the floor, with up to a share of `jitter` added."""
    wait = max(wait, floor)
    return wait + wait * jitter * rng.random()


def retry_after(headers: Mapping[str, str], now: datetime) -> float:
    """Returns the seconds of the header `Retry-After` (RFC 9110, 10.2.3); 0 if it is absent or invalid."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), _LONGEST_SECONDS)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), _LONGEST_SECONDS)
