"""The front door on FastAPI: one item to DynamoDB, three jobs to RQ's queue.

boto3 and RQ block, so the route is a plain function, which FastAPI runs on its threads.
"""

import uuid
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, Field

from bench.peers.front_writes import Writes

_writes = Writes()


class NewRequest(BaseModel):
    """The body of a new request."""

    providers: Annotated[list[str], Field(min_length=1, max_length=50)]
    callbackUrl: Annotated[str, Field(pattern="^https?://", max_length=2048)]  # noqa: N815 -- JSON's name


def create_request(new: NewRequest) -> dict[str, str]:
    """Accept a request, and return its id and status."""
    request_id = uuid.uuid4().hex
    _writes.write(request_id, new.providers, new.callbackUrl)
    return {"requestId": request_id, "status": "OPEN"}


app = FastAPI()
app.add_api_route("/requests", create_request, methods=["POST"], status_code=202)
