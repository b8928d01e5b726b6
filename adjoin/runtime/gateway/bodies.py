"""Bodies of requests, read strictly; bodies of answers."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adjoin.errors import InputError

MAX_DEPTH = 64
#: Whole numbers of a caller fit into 64 bits with a sign.
_MOST = 2**63 - 1
_LONG_NUMBER = re.compile(rb"\d{19}")
_decode = msgspec.json.Decoder().decode


async def read_json(request: Request) -> Any:
    """The body as JSON, as RFC 8259 has it: no NaN, no infinity, bounded in depth and numbers.

    Raises:
        InputError: it is something else.
    """
    return parse_json(await request.body())


def parse_json(data: bytes) -> Any:
    """As :func:`read_json`, of bytes."""
    try:
        value = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"the body is not JSON: {why}") from None
    # What has few brackets is not deep, what has no long number has no large one.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH or _LONG_NUMBER.search(data):
        _check(value)
    return value


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty one is ``{}``."""
    data = await request.body()
    value = parse_json(data) if data else {}
    if not isinstance(value, dict):
        raise InputError("the body must be a JSON object")
    return value


def _check(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(item.values())
            elif isinstance(item, list):
                following.extend(item)
            elif isinstance(item, int) and abs(item) > _MOST:
                raise InputError("a whole number in the body does not fit into 64 bits")
        if not following:
            return
        level = following
    raise InputError(f"the body is nested more than {MAX_DEPTH} levels deep")


def schema_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a flat structure, for the OpenAPI document."""
    _, found = msgspec.json.schema_components([kind])
    return dict(found[kind.__name__])


def encode(value: Any) -> bytes:
    """JSON of what runs return: passages, vectors and events included."""
    return _encoder.encode(value)


def _foreign(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy arrays and numbers, torch tensors
        return value.tolist()
    return str(value)


_encoder = msgspec.json.Encoder(enc_hook=_foreign)


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(value), status, headers, media_type="application/json")
