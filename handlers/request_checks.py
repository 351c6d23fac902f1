"""What no schema can check of a body: whether its providers are known, its callback allowed, its times within reach."""

from datetime import datetime, timedelta

from handlers.problems import Problem
from outbound.egress_policy import NotAllowed, Outbound
from persistence.records.request import SKEW
from persistence.records.timestamps import from_text
from workers.documents import Document

_LONGEST_DEADLINE = timedelta(days=30)


def unknown_provider(unknown: list[str], known: list[str]) -> Problem:
    """The refusal of a request that names providers nobody knows."""
    return Problem(
        "unknown-provider", f"unknown provider {', '.join(unknown)}; known are {', '.join(known)}", known=known
    )


def check_callback_url(url: str, outbound: Outbound) -> None:
    """Raises Problem for a callback URL that Datahog will not post to, as far as the URL shows it."""
    try:
        outbound.check_url(url)
    except NotAllowed as error:
        raise Problem("unprocessable", f"callbackUrl: {error}") from None


def deadline_of(body: Document, now: datetime, default: timedelta, *, clocks: int = 1) -> datetime:
    """The deadline that a body names, or the default. Raises Problem for one that is past or too far away.

    `clocks` is how many others it may have been reckoned by, each ahead of the next one by no more than `SKEW`: what
    one of our services accepts at the limit, the next one must not refuse because its clock is behind.
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
    """The moment that a member of a body names. Raises Problem for one that the calendar does not have."""
    try:
        return from_text(text)
    except ValueError as error:
        raise Problem("unprocessable", f"{name}: {error}") from None
