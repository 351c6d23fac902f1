"""Serves Swagger UI beside an API's operations, over the API's own document, with the headers that guard it."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import specs
from specs import swagger_ui


class ApiPage:
    """ASGI middleware that serves Swagger UI at `specs.UI_PATH` under the base path, and passes on all other calls.

    All URLs in the page are relative, so it works behind a proxy that adds a prefix.
    """

    def __init__(self, app: ASGIApp, *, name: str) -> None:
        self._path = specs.base_path(name) + specs.UI_PATH
        page = swagger_ui.page(f"Datahog {name}", {name: f"..{specs.DOCUMENT_PATH}"})

        async def show(_: Request) -> Response:
            return HTMLResponse(page, headers=swagger_ui.page_headers())

        async def add_slash(_: Request) -> Response:
            return RedirectResponse(f".{specs.UI_PATH}/")

        self._app = app
        self._pages = Router(
            [
                Route(self._path, add_slash),
                Route(self._path + "/", show),
                Mount(self._path, StaticFiles(directory=swagger_ui.FILES)),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["path"] + "/").startswith(self._path + "/"):
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(swagger_ui.FILE_HEADERS)
            await send(message)

        await self._pages(scope, receive, send_guarded)
