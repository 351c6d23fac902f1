"""The peer's API: writes a request to DynamoDB, and starts its chord."""

import uuid
from typing import Annotated

from celery import chord
from fastapi import FastAPI
from pydantic import BaseModel, Field

from bench.peers.celery_chord.store import Store
from bench.peers.celery_chord.tasks import deliver, fetch

_store = Store(connections=40)


class NewRequest(BaseModel):
    """The body of a new request."""

    providers: Annotated[list[str], Field(min_length=1, max_length=50)]
    callbackUrl: Annotated[str, Field(pattern="^https?://", max_length=2048)]  # noqa: N815 -- JSON's name


def create_request(new: NewRequest) -> dict[str, str]:
    """Accept a request. Celery and boto3 block, so this runs on FastAPI's threads."""
    request_id = uuid.uuid4().hex
    _store.create(request_id, new.providers, new.callbackUrl)
    header = [fetch.s(request_id, provider) for provider in new.providers]
    chord(header)(deliver.s(request_id, new.callbackUrl))
    return {"requestId": request_id, "status": "OPEN"}


app = FastAPI()
app.add_api_route("/requests", create_request, methods=["POST"], status_code=202)
