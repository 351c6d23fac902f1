"""64 workers, in processes and threads, at the same request at the same moment: one ends it, and delivers it once."""

import uuid

import redis

from datahog.settings import Settings
from tests.faults.races import SIZES, conduct

# The rest of a thousand times is `python -m tests.faults.races`.
_TIMES = 12


def test_of_64_workers_who_end_a_request_at_once_one_does_and_delivers_it(engines: Settings) -> None:
    with redis.Redis.from_url(engines.redis_url) as connection:
        connection.flushall()
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    settings = engines.model_copy(update={"table_prefix": prefix})

    races = conduct(settings, SIZES * _TIMES)

    assert [race for race in races if race.wrong] == []
    assert len(races) == len(SIZES) * _TIMES
