"""The page for people, and the reference. Each of their files is a route: there is no path to a
file that is not one."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from adjoin.runtime.gateway import page, reference
from adjoin.runtime.gateway.page import File

router = APIRouter(include_in_schema=False)


def _serve(path: str, file: File, policy: str) -> None:
    headers = {
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",  # kept, but asked about each time
        "ETag": file.etag,
    }

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers, media_type=file.media_type)

    router.add_api_route(path, answer, methods=["GET"])


for _of in (page, reference):
    for _path, _file in _of.FILES.items():
        _serve(_path, _file, _of.POLICY)
