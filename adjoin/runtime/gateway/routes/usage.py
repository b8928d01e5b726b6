"""What has been used, of which what is billed."""

from __future__ import annotations

import csv
import io
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from adjoin.runtime.gateway.access import Invoker
from adjoin.runtime.gateway.bodies import answer
from adjoin.runtime.gateway.ledger import Line, Period
from adjoin.runtime.gateway.service import service_of

router = APIRouter(prefix="/api/v1/usage", tags=["usage"])


@router.get("")
async def usage(
    request: Request,
    caller: Invoker,
    by: Annotated[str, Query(max_length=200, description="Keys, with commas.")] = "workflow",
    since: Annotated[float | None, Query(description="Seconds since the epoch.")] = None,
    until: Annotated[float | None, Query(description="Seconds since the epoch.")] = None,
    everyone: Annotated[bool, Query(description="Of all tenants; for the scope admin.")] = False,
) -> Response:
    """Tokens, seconds and money by `tenant`, `workflow`, `version`, `stage`, `model` or `day` (UTC,
    days since the epoch): billed, wasted on attempts that were not needed, and open while their run
    goes on. Only the caller's tenant's, unless its key may see all. `Accept: text/csv` is CSV."""
    keys = tuple(dict.fromkeys(key for key in by.split(",") if key))
    if everyone:
        caller.must("admin")
    service = service_of(request)
    period = Period(since, until, None if everyone else caller.tenant)
    await service.accounts.up_to_date()
    lines = await service.accounts.ledger.lines(keys, period)
    if "text/csv" in request.headers.get("accept", ""):
        return Response(_csv(lines), media_type="text/csv")
    return answer({"usage": [line.to_dict() for line in lines]})


def _csv(lines: list[Line]) -> str:
    rows = [_flat(line.to_dict()) for line in lines]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """One level; a text that a spreadsheet would run as a formula is quoted."""
    flat: dict[str, Any] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            flat |= {f"{key}_{kind}": number for kind, number in value.items()}
        elif isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
            flat[key] = f"'{value}"
        else:
            flat[key] = value
    return flat
