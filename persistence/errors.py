"""What a repository says when an ask cannot be granted; the engine's own failures are in `persistence.dynamodb`."""


class NotFound(Exception):
    """There is no such request (any more)."""


class Conflict(Exception):
    """The record is not in a state that allows this; the message says what it is."""
