"""Validates each call's parameters and body against the document, with validators that are compiled once."""

from collections.abc import Mapping
from typing import Any

from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.middleware.media_types import require_json
from handlers.middleware.parameters import Parameters
from handlers.middleware.request_body import Body, BodyCheck


class _Validated:
    """Validates calls of one operation before the next ASGI application. Reads no body that is not declared."""

    def __init__(self, next_app: ASGIApp, parameters: Parameters, body: Body | None) -> None:
        self._next_app = next_app
        self._parameters = parameters
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._body:
            require_json(scope)
        self._parameters.validate(scope)
        if not self._body:
            await self._next_app(scope, receive, send)
            return
        async with self._body.read(scope, receive) as replayed:
            await self._next_app(scope, replayed, send)


class _ValidationOfApi(RoutedAPI):  # type: ignore[misc]
    def __init__(
        self,
        *arguments: Any,
        body_limits: Mapping[str, int],
        body_checks: Mapping[str, BodyCheck],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._limits = body_limits
        self._checks = body_checks
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> _Validated:
        body = None
        if operation.request_body:
            name = operation.operation_id
            body = Body(name, operation.body_schema(), limit=self._limits.get(name), check=self._checks.get(name))
        return _Validated(self.next_app, Parameters(operation.parameters), body)


class Validation(RoutedMiddleware):  # type: ignore[misc]
    """ASGI middleware that replaces the framework's validation, which looks up the rules again for each call.

    `body_limits` gives the size of the largest body in bytes, by operationId, where it is not the default.
    `body_checks` gives further checks of a body, by operationId.
    """

    api_cls = _ValidationOfApi

    def __init__(
        self, app: ASGIApp, *, body_limits: Mapping[str, int], body_checks: Mapping[str, BodyCheck] | None
    ) -> None:
        super().__init__(app)
        self._own_options = {"body_limits": body_limits, "body_checks": body_checks or {}}

    def add_api(self, specification: Any, **options: Any) -> Any:
        """Adds a document with these options. The framework calls it once per document."""
        return super().add_api(specification, **self._own_options, **options)
