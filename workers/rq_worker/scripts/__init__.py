"""The Lua scripts on RQ's own keys: each enqueues, claims, completes or recovers many jobs in one atomic step.

Each is in a file beside this one, whose first lines state its purpose, its arguments and its return value.
`docs/queue.md` describes the keys, the states of a job, and the invariants between any two scripts.
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
