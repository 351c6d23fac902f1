"""When to try again: exponential backoff with jitter, with what the other side asked for as a floor."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

# Seconds: about 68 years, which a time can still be added to.
_LONGEST = 2.0**31

# The largest share of a wait of a schedule that is added to it at random.
SCHEDULE_JITTER = 0.1


class RetryPolicy(BaseModel):
    """How failed attempts are repeated; by default until the request's deadline. Times are seconds."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    initial_delay: float = Field(1, gt=0, le=86_400)
    multiplier: float = Field(2, ge=1, le=10)
    maximum_delay: float = Field(300, gt=0, le=86_400)
    jitter: float = Field(0.5, ge=0, le=1)
    """The largest share of a delay that is added to it at random, so that many who failed together spread out."""
    maximum_attempts: int | None = Field(None, ge=1)

    def delay(self, failures: int, *, floor: float = 0, remaining: float, rng: random.Random) -> float | None:
        """Seconds to wait after that many failures (1 or more), or None when the policy has ended.

        `floor` is what the other side asked for (`Retry-After`); jitter is only ever added to it. `remaining` is the
        time to the deadline: a wait that would cross it is shortened, so that one more attempt is made before.
        """
        if self.maximum_attempts is not None and failures >= self.maximum_attempts:
            return None
        # The exponent is bounded because failures are not: 2.0 ** 1024 is an OverflowError.
        backoff = min(self.maximum_delay, self.initial_delay * self.multiplier ** min(failures - 1, 64))
        wait = max(backoff, floor)
        wait += wait * self.jitter * rng.random()
        if wait < remaining:
            return wait
        last = remaining * 0.9
        return last if last >= max(floor, self.initial_delay) else None


def scheduled_delay(wait: float, *, floor: float = 0, jitter: float = SCHEDULE_JITTER, rng: random.Random) -> float:
    """A wait of a fixed schedule (seconds), no shorter than the floor, with a share of jitter added."""
    wait = max(wait, floor)
    return wait + wait * jitter * rng.random()


def retry_after(headers: Mapping[str, str], now: datetime) -> float:
    """Seconds that the header `Retry-After` asks to wait: 0 when it is absent or makes no sense (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:10]), _LONGEST)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - now).total_seconds()), _LONGEST)
