"""Simulates data providers with a given latency and failure rate."""

import json
import logging
import random
import threading
import time
from http import HTTPStatus

import waitress
from flask import Flask, Response

from simulator.bills import BILLS, path_of

# The number of calls that the server handles at once.
_THREADS = 256

logger = logging.getLogger(__name__)


class _Dice:
    """Decides which calls fail; a seed makes each provider's sequence the same in all runs."""

    def __init__(self, failure_rate: float, seed: int | None) -> None:
        self._failure_rate = failure_rate
        self._seed = seed
        self._sequences: dict[str, random.Random] = {}
        self._lock = threading.Lock()

    def fails(self, name: str) -> bool:
        with self._lock:
            if name not in self._sequences:
                seed = None if self._seed is None else f"{self._seed}:{name}"
                self._sequences[name] = random.Random(seed)  # noqa: S311 (no secret)
            return self._sequences[name].random() < self._failure_rate


def create_app(*, failure_rate: float, latency: float, seed: int | None) -> Flask:
    """Returns the providers as a Flask app.

    `failure_rate` is the share of calls that fail, 0 to 1; `latency` is the seconds that each call takes; `seed` makes
    the failures repeatable, None makes them random.
    """
    app = Flask(__name__)
    dice = _Dice(failure_rate, seed)

    @app.get(path_of("<name>"))
    def get_bills(name: str) -> Response:
        if name not in BILLS:
            answer = Response("no such provider", HTTPStatus.NOT_FOUND, mimetype="text/plain")
        else:
            time.sleep(latency)
            # The original data provider fails with this status and body.
            failure = Response("#fail", HTTPStatus.INTERNAL_SERVER_ERROR, mimetype="text/plain")
            answer = failure if dice.fails(name) else Response(json.dumps(BILLS[name]), mimetype="application/json")
        logger.info("GET %s: %s", path_of(name), answer.status)
        return answer

    return app


def serve(app: Flask, host: str, port: int) -> None:
    """Serves the app until a signal ends the process."""
    # waitress needs a thread for each waiting call, and has four threads by default.
    waitress.serve(app, host=host, port=port, threads=_THREADS, connection_limit=2000, asyncore_use_poll=True)
