"""Mutations: what a run does to Datahog itself, and must then find; each with the faults that bring it to light."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.chaos.schedule import Fault


@dataclass(frozen=True)
class Mutation:
    """`without` are programs that do not run, `mutated` those that run by `tests.faults.chaos.mutated`."""

    faults: Sequence[Fault]
    without: tuple[str, ...] = ()
    mutated: tuple[str, ...] = ()


MUTATIONS = {
    # While the providers fail, what is to be tried again waits on the queue, which then is emptied.
    "no-reconciler": Mutation(
        (Fault("fail", "providers", 0.5, 6), Fault("flush", "redis", 5, 0)), without=("reconciler",)
    ),
    # A write whose answer was lost is made again.
    "unconditional-write": Mutation((Fault("lose answers", "dynamodb link", 0.5, 7),), mutated=("worker",)),
}
