"""The exceptions of the persistence layer: DynamoDB's own failures, and what a repository raises when it refuses."""


class NotFound(Exception):
    """There is no such request (any more)."""


class Conflict(Exception):
    """The record is not in a state that allows this; the message says what it is."""


class ConditionFailed(Exception):
    """The item was not as the write's condition demanded; nothing was written."""


class Unavailable(Exception):
    """DynamoDB did not answer, or refused for now (throttled, in trouble); whether a write was done is unknown."""


class Throttled(Unavailable):
    """DynamoDB refused a call because a partition or the account has used up its units; nothing was done."""


class ResultLost(Exception):
    """A result's parts are not all there: they were deleted."""


class BadCursor(Exception):
    """A cursor that no list has given out."""


class KeyReused(Exception):
    """The key was used before, with another body."""


class KeyUnderWay(Exception):
    """The first request with this key has not been answered yet."""
