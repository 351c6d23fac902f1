"""The data that the simulated providers send, and their paths."""

BILLS: dict[str, list[dict[str, str | float]]] = {
    "gas": [
        {"billedOn": "2020-04-07T15:03:14.257Z", "amount": 22.27},
        {"billedOn": "2020-05-07T15:03:14.257Z", "amount": 30},
    ],
    "internet": [
        {"billedOn": "2020-04-07T15:03:14.257Z", "amount": 15.12},
        {"billedOn": "2020-05-07T15:03:14.257Z", "amount": 15.12},
    ],
    "water": [
        {"billedOn": "2020-03-31T08:00:00.000Z", "amount": 41.9},
        {"billedOn": "2020-06-30T08:00:00.000Z", "amount": 38.25},
    ],
    "electricity": [
        {"billedOn": "2020-04-02T10:30:00.000Z", "amount": 54.03},
        {"billedOn": "2020-05-02T10:30:00.000Z", "amount": 49.6},
    ],
    "phone": [
        {"billedOn": "2020-04-15T12:00:00.000Z", "amount": 9.99},
        {"billedOn": "2020-05-15T12:00:00.000Z", "amount": 12.4},
    ],
}
PROVIDERS = tuple(BILLS)


def path_of(name: str) -> str:
    """Returns the path of a provider."""
    return f"/providers/{name}"
