"""The Lua scripts over RQ's own keys: jobs put, taken, ended and taken back, many in one atomic step.

Each is in a file beside this one, which begins with what it does, what it is given and what it returns.

Keys, as in RQ: `rq:queue:<name>` (list of job ids), `rq:scheduled:<name>` (sorted set by due time), `rq:wip:<name>`
(the started registry, sorted set of `<job id>:<execution id>` by the end of the lease), `rq:job:<id>` (hash).
Of RQ's rate limits, here one for each provider: `rq:rl:<key>` (hash; its `concurrency` is how many jobs may be queued
or started), `rq:rl:<key>:allowed` (those that are), `rq:rl:<key>:rate_limited` (those that wait, by when they came).

Of Datahog: `datahog:policy:<key>` (hash: how many `failures` open the breaker, for how many `openSeconds`, and
`probeSeconds`, which a probe may take), `datahog:breaker:<key>` (hash: `failures` in a row, `openUntil`, `probeUntil`),
and `datahog:held` (sorted set of keys by when to look again): whose breaker is open, or which have taken their share of
a worker. The waiting jobs of these do not pass through the queue, where others would wait behind them: TAKE gives to
each what it may have.
"""

from importlib.resources import files


def _read(*names: str) -> str:
    return "\n".join(files(__name__).joinpath(f"{name}.lua").read_text() for name in names)


PUT = _read("places", "put")
TAKE = _read("places", "take")
END = _read("places", "end")
DROP = _read("places", "drop")
MISSING = _read("places", "missing")
RECOVER = _read("recover")
WAIT_NO_MORE = _read("wait-no-more")
