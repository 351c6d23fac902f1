"""The spec viewer: Swagger UI over both OpenAPI documents, with nothing loaded from elsewhere."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import waitress
import yaml
from flask import Flask, Response, abort, redirect, render_template_string, request, send_from_directory
from flask.typing import ResponseReturnValue
from swagger_ui_bundle import swagger_ui_path

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Datahog APIs</title>
  <link rel="icon" href="/ui/favicon-32x32.png">
  <link rel="stylesheet" href="/ui/swagger-ui.css">
  <style>body { margin: 0 }</style>
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/ui/swagger-ui-bundle.js"></script>
  <script src="/ui/swagger-ui-standalone-preset.js"></script>
  <script nonce="{{ nonce }}">
    // One key opens both documents. Choosing the other one forgets it, unless it is kept in the browser's storage,
    // where whatever is served on this port another day could read it.
    const keepKey = {
      statePlugins: {
        auth: {
          wrapActions: {
            restoreAuthorization: (original) => (payload) =>
              Object.keys(payload.authorized).length ? original(payload) : { type: "key_kept" },
          },
        },
      },
    }
    SwaggerUIBundle({
      dom_id: "#swagger-ui",
      urls: {{ documents | tojson }},
      "urls.primaryName": {{ documents[0].name | tojson }},
      presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
      plugins: [SwaggerUIBundle.plugins.DownloadUrl, keepKey],
      layout: "StandaloneLayout",
      // By default a validator on the internet is told of every document that is not on localhost.
      validatorUrl: null,
      deepLinking: true,
      displayRequestDuration: true,
    })
  </script>
</body>
</html>
"""


_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def create_app(specs: Mapping[str, Path], servers: Mapping[str, str], origin: str) -> Flask:
    """Shows the OpenAPI documents in `specs`; "Try it out" calls the URL in `servers` of the same name.

    `origin` is the one that the APIs let call them from a browser.
    """
    app = Flask(__name__, static_folder=None)
    callable_origins = " ".join(sorted({_origin(url) for url in servers.values()}))
    documents = {name: _with_server(path, servers[name]) for name, path in specs.items()}

    @app.before_request
    def use_one_origin() -> ResponseReturnValue | None:
        # The same page under another of this machine's names, such as the `localhost` that people type, would have
        # all its calls refused.
        url, own = urlsplit(request.url), urlsplit(origin).hostname
        if url.hostname == own or url.hostname not in _LOOPBACK or own not in _LOOPBACK:
            return None
        host = f"[{own}]" if ":" in own else own
        return redirect(url._replace(netloc=f"{host}:{url.port}" if url.port else host).geturl())

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    @app.get("/")
    def show() -> Response:
        nonce = secrets.token_urlsafe(16)
        shown = [{"name": name, "url": f"/specs/{name}.yaml"} for name in documents]
        page = Response(render_template_string(_PAGE, documents=shown, nonce=nonce))
        # Swagger UI sets styles inline, and draws with data: images.
        page.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
            f"img-src 'self' data:; connect-src 'self' {callable_origins}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return page

    @app.get("/specs/<name>.yaml")
    def get_document(name: str) -> Response:
        if name not in documents:
            abort(404)
        return Response(documents[name], mimetype="application/yaml")

    @app.get("/ui/<path:file>")
    def get_file(file: str) -> Response:
        return send_from_directory(str(swagger_ui_path), file, max_age=86_400)

    return app


def serve(app: Flask, host: str, port: int) -> None:
    """Serve the app until the process is told to end."""
    waitress.serve(app, host=host, port=port)


def _origin(url: str) -> str:
    return urlsplit(url)._replace(path="", query="", fragment="").geturl()


def _with_server(path: Path, url: str) -> str:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["servers"] = [{"url": url}]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
