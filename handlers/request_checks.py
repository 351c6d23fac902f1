"""Checks of a body that no schema can express: known providers, allowed callback URLs, possible times."""

from datetime import datetime, timedelta

from handlers.problems import Problem
from outbound.egress_policy import DestinationForbidden, EgressPolicy
from persistence.records.request import SKEW
from persistence.records.timestamps import from_text
from workers.documents import Document

_LONGEST_DEADLINE = timedelta(days=30)


def unknown_provider(unknown: list[str], known: list[str]) -> Problem:
    """Returns the problem for a request with unknown providers."""
    return Problem(
        "unknown-provider", f"unknown provider {', '.join(unknown)}; known are {', '.join(known)}", known=known
    )


def check_callback_url(url: str, outbound: EgressPolicy) -> None:
    """Raises Problem when the egress policy forbids the callback URL, as far as the URL alone shows."""
    try:
        outbound.check_url(url)
    except DestinationForbidden as error:
        raise Problem("unprocessable", f"callbackUrl: {error}") from None


def deadline_of(body: Document, now: datetime, default: timedelta, *, clocks: int = 1) -> datetime:
    """Returns the deadline in a body, or the default. Raises Problem for one that has passed or is too far away.

    `clocks` is the number of other clocks that the deadline may depend on. Each may be ahead of the next by `SKEW`: a
    deadline that one service accepts at the limit must not be refused by the next because its clock is behind.
    """
    if "deadline" not in body:
        return now + default
    deadline = moment(body["deadline"], "deadline")
    within = f"must be within the next {_LONGEST_DEADLINE.days} days"
    if deadline <= now:
        raise Problem("unprocessable", f"deadline: has passed; {within}")
    if deadline > now + _LONGEST_DEADLINE + clocks * SKEW:
        raise Problem("unprocessable", f"deadline: {within}")
    return deadline


def moment(text: str, name: str) -> datetime:
    """Returns the time in a body's member `name`. Raises Problem for a date that does not exist."""
    try:
        return from_text(text)
    except ValueError as error:
        raise Problem("unprocessable", f"{name}: {error}") from None
