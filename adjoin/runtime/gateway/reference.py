"""The reference at ``/docs``: Swagger UI, as the package ``fastapi-offline`` ships it.

All of it is from this service: it is there without a network, and loads nobody else's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from adjoin.runtime.gateway.page import File

#: Its own files and its own service, nothing else; the style sheet has pictures in it.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_HTML = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>adjoin: reference</title>
<link rel="icon" href="/page/icon.svg">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<div id="reference"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  // A key stays in the page, as nothing of it is sent anywhere but here.
  persistAuthorization: false,
  validatorUrl: null,
});
"""


def _shipped(name: str, media_type: str) -> File:
    return File.of((files("fastapi_offline") / "static" / name).read_bytes(), media_type)


#: By the path at which each is served.
FILES: Mapping[str, File] = {
    "/docs": File.of(_HTML, "text/html; charset=utf-8"),
    "/docs/start.js": File.of(_START, "text/javascript; charset=utf-8"),
    "/docs/swagger-ui-bundle.js": _shipped(
        "swagger-ui-bundle.js", "text/javascript; charset=utf-8"
    ),
    "/docs/swagger-ui.css": _shipped("swagger-ui.css", "text/css; charset=utf-8"),
}
