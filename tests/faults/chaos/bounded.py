"""The bounded runs: those that are part of the default tests, each as short as it can be and still tell."""

from tests.faults.chaos.mutations import MUTATIONS
from tests.faults.chaos.run import Plan
from tests.faults.chaos.schedule import make_schedule

# A new fault every other second, so that every kind comes at least once. With its start and end it takes two minutes.
SEED = 7
_SECONDS, _PAUSE = 100.0, 2.0
_RATE = 2.0
# What goes wrong in a mutated run does so within seconds, but a loss must have had its time to heal.
_MUTATED_SECONDS, _MUTATED_RATE, _MUTATED_SETTLE = 8.0, 4.0, 20.0


def healthy() -> Plan:
    """Datahog as it is."""
    faults = make_schedule(SEED, seconds=_SECONDS, count=round(_SECONDS / _PAUSE))
    return Plan(SEED, _SECONDS, _RATE, faults)


def mutated(name: str) -> Plan:
    """Datahog broken in one way."""
    mutation = MUTATIONS[name]
    return Plan(SEED, _MUTATED_SECONDS, _MUTATED_RATE, mutation.faults, settle=_MUTATED_SETTLE, mutation=mutation)
