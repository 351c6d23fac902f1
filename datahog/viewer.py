"""The spec viewer: Swagger UI over both OpenAPI documents, with nothing loaded from elsewhere."""

from collections.abc import Mapping
from pathlib import Path

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
  <script>
    SwaggerUIBundle({
      dom_id: "#swagger-ui",
      urls: {{ documents | tojson }},
      "urls.primaryName": {{ documents[0].name | tojson }},
      presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
      plugins: [SwaggerUIBundle.plugins.DownloadUrl],
      layout: "StandaloneLayout",
      deepLinking: true,
      displayRequestDuration: true,
    })
  </script>
</body>
</html>
"""


def create_app(specs: Mapping[str, Path], servers: Mapping[str, str]) -> Flask:
    """Shows the OpenAPI documents in `specs`; "Try it out" calls the URL in `servers` of the same name."""
    app = Flask(__name__, static_folder=None)
    documents = {name: _with_server(path, servers[name]) for name, path in specs.items()}

    @app.before_request
    def use_one_origin() -> ResponseReturnValue | None:
        # The APIs allow one origin; `localhost`, which people type, is another one than 127.0.0.1.
        if request.host.split(":")[0] == "localhost":
            return redirect(request.url.replace("localhost", "127.0.0.1", 1))
        return None

    @app.get("/")
    def show() -> str:
        return render_template_string(
            _PAGE, documents=[{"name": name, "url": f"/specs/{name}.yaml"} for name in documents]
        )

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


def _with_server(path: Path, url: str) -> str:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["servers"] = [{"url": url}]
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
