"""The front door on Flask and waitress: one item to DynamoDB, three jobs to RQ's queue."""

import os
import uuid

import waitress
from flask import Flask, Response, abort, jsonify, request

from bench.peers.front_writes import Writes

_THREADS = 40


def create_app(writes: Writes) -> Flask:
    """Make the application."""
    app = Flask(__name__)

    @app.post("/requests")
    def create_request() -> tuple[Response, int]:
        body = request.get_json()
        providers, callback_url = body.get("providers"), body.get("callbackUrl")
        if not (isinstance(providers, list) and 1 <= len(providers) <= 50 and all(map(_is_text, providers))):
            abort(400, "providers")
        if not (_is_text(callback_url) and callback_url.startswith(("http://", "https://"))):
            abort(400, "callbackUrl")
        request_id = uuid.uuid4().hex
        writes.write(request_id, providers, callback_url)
        return jsonify(requestId=request_id, status="OPEN"), 202

    return app


def _is_text(value: object) -> bool:
    return isinstance(value, str)


if __name__ == "__main__":
    waitress.serve(
        create_app(Writes()), host="127.0.0.1", port=int(os.environ["PORT"]), threads=_THREADS, connection_limit=1000
    )
