"""Connexion's security handlers for the documents' schemes: API keys, and the presence of a signature."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from connexion.lifecycle import ConnexionRequest
from connexion.security import NO_VALUE, AbstractSecurityHandler

from handlers.access.callback_signatures import bad_signature
from handlers.access.callers import Callers
from handlers.access.rate_limiter import RateLimit
from handlers.middleware.dispatch import given
from outbound.webhook_signer import SIGNATURE
from specs.operations import Operation

_Verify = Callable[[ConnexionRequest], Awaitable[object]]
# Connexion's token information stays empty: methods take the caller as an argument.
_LET_IN: Mapping[str, object] = {}


def security_map(
    callers: Callers, rate_limit: RateLimit, operations: Mapping[str, Operation]
) -> Mapping[str, type[AbstractSecurityHandler]]:
    """Returns Connexion's `security_map`: the handler class by HTTP scheme or security scheme type."""

    async def check(request: ConnexionRequest, key: str) -> object:
        operation = operations[request.scope["extensions"]["connexion_routing"]["operation_id"]]
        caller = await callers.check(key, str(operation.scope))
        await rate_limit.count(caller)
        given(request.scope)["caller"] = caller
        return _LET_IN

    class Bearer(AbstractSecurityHandler):  # type: ignore[misc]
        """An API key in Authorization (RFC 6750)."""

        def get_fn(self, security_scheme: Mapping[str, Any], required_scopes: list[str]) -> _Verify:
            async def verify(request: ConnexionRequest) -> object:
                scheme, _, key = request.headers.get("Authorization", "").partition(" ")
                return await check(request, key.strip()) if scheme.lower() == "bearer" else NO_VALUE

            return verify

    class Header(AbstractSecurityHandler):  # type: ignore[misc]
        """An API key in its own header, or a signature, which is verified after the body is received."""

        def get_fn(self, security_scheme: Mapping[str, Any], required_scopes: list[str]) -> _Verify:
            name = security_scheme["name"]

            async def verify_key(request: ConnexionRequest) -> object:
                key = request.headers.get(name)
                return NO_VALUE if key is None else await check(request, key)

            async def verify_presence(request: ConnexionRequest) -> object:
                if name not in request.headers:
                    raise bad_signature()
                return _LET_IN

            return verify_presence if name == SIGNATURE else verify_key

    return {"bearer": Bearer, "apiKey": Header}
