"""Plans: decides, without any engine, which steps of a due record must be on the queue, and when its next check is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from persistence.records.request import DeliveryStatus, Request, seconds_until
from persistence.records.retrieval import Retrieval
from persistence.records.timestamps import from_text
from workers.queue import Step, deliver_step, fetch_steps, submit_step

# Bounds of the time until the next check of a record, if nothing is due before. That time is half the record's age, so
# that a record that waits for days costs little.
SOONEST, LATEST = timedelta(seconds=30), timedelta(minutes=5)


@dataclass(frozen=True)
class Plan:
    """The steps that must be on the queue by now, and the time of the next check; None if nothing more is due."""

    steps: Sequence[Step] = ()
    look_at: datetime | None = None


@dataclass(frozen=True)
class Planner:
    """Makes plans.

    `heal_after` is how late a step may be before it counts as lost, `delivery_timeout` how long a receiver may take.
    """

    heal_after: timedelta
    delivery_timeout: timedelta

    def request(self, request: Request, now: datetime, *, just_closed: bool = False) -> Plan:
        """The plan for a request that has ended or is before its deadline; `just_closed` if this process ended it."""
        if not request.ended:
            steps = fetch_steps(request, now)
        elif request.delivery.status is DeliveryStatus.PENDING:
            steps = [deliver_step(request, at=None if just_closed else self._first_delivery_over(request, now))]
        else:
            return Plan()
        moments = [_next_look(request.created_at, now)]
        moments += [step.at + self.heal_after for step in steps if step.at and step.at > now]
        moments += [] if request.ended else [from_text(request.deadline)]
        return Plan([step for step in steps if step.at is None or step.at <= now], min(moments))

    def retrieval(self, retrieval: Retrieval, now: datetime) -> Plan:
        """The plan for a retrieval that has to be submitted or cancelled."""
        step = submit_step(retrieval)
        if step.at and step.at > now:
            return Plan(look_at=step.at + self.heal_after)
        return Plan([step], _next_look(retrieval.created_at, now))

    def _first_delivery_over(self, request: Request, now: datetime) -> datetime | None:
        """When the first delivery is over, None if it is. The worker that ends a request makes it without a step."""
        over = from_text(min(request.ended_at or "", request.updated_at)) + self.delivery_timeout
        return over if request.delivery.attempts == 0 and over > now else None


def is_past_deadline(request: Request, now: datetime) -> bool:
    """Whether the request must be ended."""
    return not request.ended and not seconds_until(request.deadline, now)


def _next_look(created_at: str, now: datetime) -> datetime:
    return now + min(max((now - from_text(created_at)) / 2, SOONEST), LATEST)
