"""The bounded runs, which are part of the default tests: each is only as long as it needs to find its faults."""

from tests.faults.chaos.mutations import MUTATIONS
from tests.faults.chaos.run import Plan
from tests.faults.chaos.schedule import make_schedule

# Seconds. A fault begins every other second, so that every kind occurs. With its start and end the run takes two
# minutes.
SEED = 7
_SECONDS, _PAUSE = 100.0, 2.0
# Requests a second.
_RATE = 2.0
# Seconds, and requests a second. A mutation shows within seconds, but a loss must have had the time to heal.
_MUTATED_SECONDS, _MUTATED_RATE, _MUTATED_SETTLE = 8.0, 4.0, 20.0


def healthy() -> Plan:
    """The plan for Datahog as it is."""
    faults = make_schedule(SEED, seconds=_SECONDS, count=round(_SECONDS / _PAUSE))
    return Plan(SEED, _SECONDS, _RATE, faults)


def mutated(name: str) -> Plan:
    """The plan for Datahog with the named mutation."""
    mutation = MUTATIONS[name]
    return Plan(SEED, _MUTATED_SECONDS, _MUTATED_RATE, mutation.faults, settle=_MUTATED_SETTLE, mutation=mutation)
