"""The Lua scripts over RQ's own keys: jobs put, taken, ended and taken back, many in one atomic step.

Each is in a file beside this one, which begins with what it does, what it is given and what it returns. `docs/queue.md`
has the keys, the states of a job, and what holds between any two scripts.
"""

from importlib.resources import files


def _read(*names: str) -> str:
    return "\n".join(files(__name__).joinpath(f"{name}.lua").read_text() for name in names)


PUT = _read("permits", "put")
TAKE = _read("permits", "take")
END = _read("permits", "end")
DROP = _read("permits", "drop")
RECOVER = _read("permits", "recover")
SWEEP = _read("permits", "sweep")
WAIT_NO_MORE = _read("wait-no-more")
