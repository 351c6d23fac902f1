"""Dispatch: calls an operation's method with the validated arguments, and sends its response."""

import inspect
from collections.abc import Callable
from typing import Any

from connexion.lifecycle import ConnexionResponse
from connexion.middleware.abstract import RoutedAPI, RoutedMiddleware
from connexion.operations import AbstractOperation
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class _Call:
    """The ASGI application of one operation."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._waits = inspect.iscoroutinefunction(method)
        self._names = frozenset(inspect.signature(method).parameters)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arguments = {name: value for name, value in given(scope).items() if name in self._names}
        call = self._method(**arguments) if self._waits else run_in_threadpool(self._method, **arguments)
        answer: ConnexionResponse = await call
        await Response(answer.body, answer.status_code, answer.headers)(scope, receive, send)


class _CallsOfApi(RoutedAPI):  # type: ignore[misc]
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_paths()

    def make_operation(self, operation: AbstractOperation) -> _Call:
        return _Call(operation.function)


class Calls(RoutedMiddleware):  # type: ignore[misc]
    """The last ASGI middleware: it handles the operations, and passes all other calls on to the application.

    It replaces the framework's dispatch, which would parse parameters and body again and inspect the method for each
    call; that takes longer than all of the validation.
    """

    api_cls = _CallsOfApi


def given(scope: Scope) -> dict[str, Any]:
    """Returns the arguments of the operation's method, by name, to read and add to; the ASGI scope holds them."""
    found: dict[str, Any] = scope["extensions"].setdefault("connexion_context", {})
    return found
