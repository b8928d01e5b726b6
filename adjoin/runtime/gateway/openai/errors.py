"""Errors in OpenAI's shape; the status is that of the one table."""

from __future__ import annotations

import re
from typing import Any

#: Paths whose answers have OpenAI's shape.
PREFIX = "/v1/"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ARGUMENT = re.compile(r"(?:argument|input) '([\w-]+)'")
_FIELD = re.compile(r"[A-Za-z_][\w.\[\]-]*")


def error_body(
    status: int, message: str, code: str, where: str = "", hint: str = ""
) -> dict[str, Any]:
    """``{"error": …}``; ``param`` is the request's field that is to blame, where it is one."""
    argument = _ARGUMENT.fullmatch(where)
    param = argument[1] if argument else where if _FIELD.fullmatch(where) else None
    if where and param is None:
        message = f"{where}: {message}"
    if status == 404 and param == "model":
        code = "model_not_found"
    return {
        "error": {
            "message": f"{message}; {hint}" if hint else message,
            "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
            "param": param,
            "code": code,
        }
    }
