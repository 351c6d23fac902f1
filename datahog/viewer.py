"""The spec viewer: shows both OpenAPI documents in Swagger UI, on one page."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import waitress
import yaml
from flask import Flask, Response, abort, redirect, request, send_from_directory
from flask.typing import ResponseReturnValue

from specs import swagger_ui

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def create_app(specs: Mapping[str, Path], servers: Mapping[str, str], origin: str) -> Flask:
    """Returns the app that shows the OpenAPI documents in `specs`, by name.

    "Try it out" calls the URL of the same name in `servers`. `origin` is the browser origin that both APIs allow.
    """
    app = Flask(__name__, static_folder=None)
    page_headers = swagger_ui.page_headers(_origin(url) for url in servers.values())
    page = swagger_ui.page("Datahog APIs", {name: f"specs/{name}.yaml" for name in specs}, files="ui/")
    documents = {name: _with_server(path, servers[name]) for name, path in specs.items()}

    @app.before_request
    def use_one_origin() -> ResponseReturnValue | None:
        # Both APIs refuse calls from this page under another name of this machine, such as `localhost` instead of
        # 127.0.0.1.
        url, own = urlsplit(request.url), urlsplit(origin).hostname
        if url.hostname == own or url.hostname not in _LOOPBACK or own not in _LOOPBACK:
            return None
        host = f"[{own}]" if ":" in own else own
        return redirect(url._replace(netloc=f"{host}:{url.port}" if url.port else host).geturl())

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(swagger_ui.FILE_HEADERS)
        return response

    @app.get("/")
    def show() -> Response:
        return Response(page, headers=page_headers, mimetype="text/html")

    @app.get("/specs/<name>.yaml")
    def get_document(name: str) -> Response:
        if name not in documents:
            abort(404)
        return Response(documents[name], mimetype="application/yaml")

    @app.get("/ui/<path:file>")
    def get_file(file: str) -> Response:
        return send_from_directory(swagger_ui.FILES, file)

    return app


def serve(app: Flask, host: str, port: int) -> None:
    """Serves the app until a signal ends the process."""
    waitress.serve(app, host=host, port=port)


def _origin(url: str) -> str:
    return urlsplit(url)._replace(path="", query="", fragment="").geturl()


def _with_server(path: Path, url: str) -> str:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["servers"] = [{"url": url}]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
