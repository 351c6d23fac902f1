"""64 workers complete the jobs of one request at the same moment: one of them ends it, and delivers it once."""

import uuid

import redis

from datahog.settings import Settings
from tests.faults.races import SIZES, conduct

# Races for each size. `python -m tests.faults.races` runs a thousand.
_TIMES = 12


def test_64_workers_at_once_end_and_deliver_a_request_once(engines: Settings) -> None:
    with redis.Redis.from_url(engines.redis_url) as connection:
        connection.flushall()
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    settings = engines.model_copy(update={"table_prefix": prefix})

    races = conduct(settings, SIZES * _TIMES)

    assert [race for race in races if race.wrong] == []
    assert len(races) == len(SIZES) * _TIMES
