"""Mutations: defects that a run puts into Datahog and must then find, each with the faults that reveal it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.chaos.schedule import Fault


@dataclass(frozen=True)
class Mutation:
    """`without` names programs that do not run, `mutated` those that `tests.faults.chaos.mutated` runs."""

    faults: Sequence[Fault]
    without: tuple[str, ...] = ()
    mutated: tuple[str, ...] = ()


MUTATIONS = {
    # While the providers fail, retries wait on the queue; then the queue is emptied.
    "no-reconciler": Mutation(
        (Fault("fail", "providers", 0.5, 6), Fault("flush", "redis", 5, 0)), without=("reconciler",)
    ),
    # A write whose response is lost is repeated.
    "unconditional-write": Mutation((Fault("lose responses", "dynamodb link", 0.5, 7),), mutated=("worker",)),
}
