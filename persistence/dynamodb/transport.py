"""Sends DynamoDB's calls past those layers of boto3 that take most of a call's time, and by the others."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import orjson
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.client import BaseClient
from botocore.exceptions import ClientError, HTTPClientError
from botocore.hooks import first_non_none_response
from botocore.parsers import create_parser

_OK = 200


class Transport:
    """Makes calls in DynamoDB's own JSON, in the place of a boto3 client's methods, and twice as fast.

    The client still does by its events what it does for its own calls: it signs, with credentials that it renews, and
    decides on another attempt by its retry mode, the answer's checksum included. Its connections are used, with its
    timeouts, proxies and certificates. What it does not do is to find the endpoint and the shape of each call anew.
    """

    def __init__(self, client: BaseClient) -> None:
        self._meta = client.meta
        self._emit = client.meta.events.emit
        # Where the client keeps its connections has no public name.
        self._connections = client._endpoint.http_session  # type: ignore[attr-defined]
        self._url = client.meta.endpoint_url.rstrip("/") + "/"
        self._target = client.meta.service_model.metadata["targetPrefix"]
        config: Any = client.meta.config
        self._user_agent = config.user_agent
        self._errors: Any = create_parser("json")
        # Beyond its kept connections the client would open one for each thread, and close it again after one call.
        self._free = threading.BoundedSemaphore(config.max_pool_connections)

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """The answer to a call, an object.

        Raises ClientError when DynamoDB refuses it, and BotoCoreError when it does not answer, as boto3 does.
        """
        model = self._meta.service_model.operation_model(operation)
        body = orjson.dumps(arguments)
        # The client notes here what the call has taken of its allowance for retries, to give it back in the end.
        context: dict[str, Any] = {}
        attempts = 0
        while True:
            attempts += 1
            request = self._signed(operation, body, context)
            answer: Any = None
            failure = None
            try:
                answer = self._send(operation, request)
            except Exception as error:
                failure = error
            pause = first_non_none_response(
                self._emit(
                    f"needs-retry.dynamodb.{operation}",
                    response=answer,
                    endpoint=self,
                    operation=model,
                    attempts=attempts,
                    caught_exception=failure,
                    request_dict={"context": context},
                )
            )
            if pause is None:
                break
            time.sleep(pause)
        if failure is not None:
            raise failure
        response, document = answer
        self._emit(
            f"after-call.dynamodb.{operation}", http_response=response, parsed=document, model=model, context=context
        )
        if response.status_code != _OK:
            raise ClientError(document, operation)
        return document

    def _signed(self, operation: str, body: bytes, context: dict[str, Any]) -> AWSPreparedRequest:
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"{self._target}.{operation}",
            "User-Agent": self._user_agent,
        }
        request = AWSRequest("POST", self._url, headers, body)
        request.context = context
        self._emit(f"request-created.dynamodb.{operation}", request=request, operation_name=operation)
        return request.prepare()

    def _send(self, operation: str, request: AWSPreparedRequest) -> tuple[AWSResponse, Any]:
        response = first_non_none_response(self._emit(f"before-send.dynamodb.{operation}", request=request))
        if response is None:
            with self._free:
                response = self._connections.send(request)
        if response.status_code != _OK:
            raw = {"status_code": response.status_code, "headers": response.headers, "body": response.content}
            return response, self._errors.parse(raw, None)
        try:
            return response, orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            # No DynamoDB, or a cut answer.
            raise HTTPClientError(error=error) from error
