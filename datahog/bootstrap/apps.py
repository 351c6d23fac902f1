"""Builds the Connexion application of an API from its document, its handlers and the table of error responses."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from connexion import AsyncApp
from connexion.exceptions import OAuthProblem, ProblemException
from connexion.lifecycle import ConnexionRequest, ConnexionResponse
from connexion.middleware import MiddlewarePosition
from connexion.middleware.context import ContextMiddleware
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.routing import RoutingMiddleware
from connexion.middleware.security import SecurityMiddleware
from connexion.middleware.server_error import ServerErrorMiddleware
from connexion.resolver import Resolver
from inflection import underscore
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

import specs
from handlers.access.callers import Callers, no_key
from handlers.access.rate_limiter import RateLimit
from handlers.access.security_schemes import security_map
from handlers.middleware.dispatch import Calls
from handlers.middleware.page_headers import ApiPage
from handlers.middleware.request_body import BodyCheck
from handlers.middleware.routing import KnownPaths
from handlers.middleware.validation import Validation
from handlers.problems import Problem, problem_of_status
from persistence.errors import Conflict, NotFound, ResultLost, Unavailable
from specs.operations import operations

log = logging.getLogger(__name__)


def build_app(
    name: str,
    handlers: object,
    *,
    callers: Callers,
    rate_limit: RateLimit,
    body_limits: Mapping[str, int],
    body_checks: Mapping[str, BodyCheck] | None = None,
    cors_origin: str | None = None,
) -> AsyncApp:
    """Returns the application that serves the document `name` with the methods of `handlers`.

    A method has the name of its operationId in snake_case. `callers` authenticates, `rate_limit` limits the calls of
    each caller. `body_limits` (bytes) and `body_checks` go to `handlers.middleware.validation`, by operationId.
    `cors_origin` is the browser origin that may call the API. The application does not start
    (connexion.exceptions.ResolverError) while an operation of the document has no method.
    """

    def method(operation_id: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(handlers, underscore(operation_id))
        return found

    declared = operations(name)
    app = AsyncApp(
        f"datahog.{name}",
        middlewares=[
            ServerErrorMiddleware,
            ExceptionMiddleware,
            partial(KnownPaths, operations=declared.values(), base_path=specs.base_path(name)),
            partial(ApiPage, name=name),
            RoutingMiddleware,
            SecurityMiddleware,
            partial(Validation, body_limits=body_limits, body_checks=body_checks),
            ContextMiddleware,
            Calls,
        ],
        pythonic_params=True,
        resolver=Resolver(method),
        security_map=security_map(callers, rate_limit, declared),
    )
    if cors_origin:
        app.add_middleware(
            CORSMiddleware,
            MiddlewarePosition.BEFORE_EXCEPTION,
            allow_origins=[cors_origin],
            allow_methods=["GET", "POST", "PUT"],
            allow_headers=["*"],
            expose_headers=["Location", "Retry-After", "Allow", "WWW-Authenticate"],
        )
    for error, handler in _ERROR_HANDLERS.items():
        app.add_error_handler(error, handler)
    app.add_api(str(specs.path(name)))
    app.add_url_rule(specs.base_path(name) + specs.DOCUMENT_PATH, "document", _serve(specs.read(name)))
    return app


def _serve(document: Mapping[str, Any]) -> Callable[[Request], JSONResponse]:
    # Connexion replaces the references of the document that it serves, and repeats a path's parameters per middleware.
    return lambda _: JSONResponse(document)


def _problem(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    assert isinstance(error, Problem)  # noqa: S101 -- narrows the type; the table below guarantees it
    return error.response


def _not_found(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    return Problem("not-found", str(error)).response


def _conflict(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    return Problem("conflict", str(error)).response


def _unavailable(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    detail = "the database does not answer; nothing is known to be lost, try again soon"
    return Problem("unavailable", detail, headers={"Retry-After": "2"}).response


def _no_key(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    return no_key().response


def _refused_by_framework(request: ConnexionRequest, error: Exception) -> ConnexionResponse:
    status: int = getattr(error, "status_code", 500)
    # The framework appends a dump of the schema to some messages; the first line states the error.
    reason = (str(getattr(error, "detail", None) or "") or "refused").splitlines()[0]
    headers = getattr(error, "headers", None) or {}
    return problem_of_status(status, f"{request.method} {request.url.path[:100]}: {reason}", dict(headers)).response


def _internal_error(_: ConnexionRequest, error: Exception) -> ConnexionResponse:
    log.error("unexpected error: %r", error, exc_info=error)
    detail = "something went wrong that nobody has thought of; it is logged, and safe to send the request again"
    return Problem("internal-error", detail).response


_ERROR_HANDLERS: dict[type[Exception], Callable[[ConnexionRequest, Exception], ConnexionResponse]] = {
    Problem: _problem,
    NotFound: _not_found,
    ResultLost: _not_found,
    Conflict: _conflict,
    Unavailable: _unavailable,
    OAuthProblem: _no_key,
    ProblemException: _refused_by_framework,
    HTTPException: _refused_by_framework,
    Exception: _internal_error,
}
