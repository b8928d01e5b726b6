"""Collections: made, filled, searched, deleted; each tenant has its own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from adjoin.errors import InputError
from adjoin.runtime.collection import CollectionHandle, new_passage
from adjoin.runtime.gateway.access import Librarian, Principal
from adjoin.runtime.gateway.bodies import answer, parse_json, read_object, schema_of
from adjoin.runtime.gateway.departure import unless_left
from adjoin.runtime.gateway.gate import Gate, place
from adjoin.runtime.gateway.service import service_of
from adjoin.runtime.gateway.tenancy import check_model, shown_name, stored_name
from adjoin.types import Passage, Scalar
from adjoin.vector_state.collections import CollectionInfo

router = APIRouter(prefix="/api/v1/collections", tags=["collections"])

_T = TypeVar("_T")
_MAX_DOCUMENTS = 10_000
_MAX_FILES = 16
_LONGEST_NAME = 300
_MAX_DIMENSION = 65_536


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller adds: one passage."""

    text: str
    source: str = ""
    id: str = ""
    metadata: dict[str, Scalar] = {}


class _Creation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    embedding: str | None = None


class _Search(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: str | None = None
    vector: list[float] | None = None
    k: int = 4


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


_ITEMS = {"type": "array", "items": schema_of(_Document), "minItems": 1, "maxItems": _MAX_DOCUMENTS}
_DOCUMENTS = _json(
    {"type": "object", "properties": {"documents": _ITEMS}, "required": ["documents"]}
)
_DOCUMENTS["requestBody"]["content"]["application/jsonl"] = {"schema": {"type": "string"}}
_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "properties": {"file": {"type": "array", "items": _FILE}},
    "required": ["file"],
}
_FILES = {"requestBody": {"content": {"multipart/form-data": {"schema": _FORM}}}}


@router.get("")
async def list_collections(request: Request, caller: Librarian) -> Response:
    """The tenant's collections."""
    found = await service_of(request).runtime.acollections()
    mine = [_shown(info, caller) for info in found if shown_name(caller.tenant, info.name)]
    return answer({"collections": mine})


@router.put("/{name}", openapi_extra=_json(schema_of(_Creation)))
async def create(request: Request, name: str, caller: Librarian) -> Response:
    """Make a collection for the `embedding` model; one that is there already stays as it is."""
    wanted = _converted(await read_object(request), _Creation)
    if wanted.embedding is not None:
        check_model(wanted.embedding, service_of(request).settings)
    handle = _handle(request, name, caller, wanted.embedding)
    return answer(_shown(await handle.acreate(), caller))


@router.get("/{name}")
async def get_collection(request: Request, name: str, caller: Librarian) -> Response:
    """What a collection holds."""
    return answer(_shown(await _handle(request, name, caller).ainfo(), caller))


@router.delete("/{name}")
async def delete(request: Request, name: str, caller: Librarian) -> Response:
    """Remove a collection and its files."""
    await _handle(request, name, caller).adelete()
    return answer({"deleted": name})


@router.post("/{name}/documents", openapi_extra=_DOCUMENTS)
async def add_documents(request: Request, name: str, caller: Librarian) -> Response:
    """Add passages: JSON, `{"documents": [{"text", "source", "id", "metadata"}]}`, or a JSON object
    a line. All become visible at once; one whose id is there already is replaced."""
    handle = _handle(request, name, caller)
    await handle.ainfo()
    passages = _passages(await request.body(), request.headers.get("content-type", ""))
    added = await _in_turn(request, service_of(request).additions, handle.aadd_passages(passages))
    return answer({**_shown(added, caller), "added": len(passages)})


@router.post("/{name}/files", openapi_extra=_FILES)
async def add_files(request: Request, name: str, caller: Librarian) -> Response:
    """Upload documents (Markdown, text, HTML, PDF) as fields `file` of a form. A file is known by
    its name: uploading it again replaces what it was."""
    handle = _handle(request, name, caller)
    await handle.ainfo()
    async with request.form(max_files=_MAX_FILES, max_fields=_MAX_FILES) as form:
        files = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
        if not files:
            raise InputError("there is no file", hint="send a form with a field 'file'")
        reports = await _in_turn(
            request, service_of(request).additions, _add_uploads(handle, files)
        )
    return answer({"files": reports})


@router.post("/{name}/search", openapi_extra=_json(schema_of(_Search)))
async def search(request: Request, name: str, caller: Librarian) -> Response:
    """The `k` passages nearest to a `query` or a `vector`, best first."""
    handle = _handle(request, name, caller)
    wanted = _converted(await read_object(request), _Search)
    if (wanted.query is None) == (wanted.vector is None):
        raise InputError("give either a query or a vector")
    found = handle.asearch(_target(wanted), wanted.k)
    passages = await _in_turn(request, service_of(request).searches, found)
    return answer({"passages": passages})


def _handle(
    request: Request, name: str, caller: Principal, embedding: str | None = None
) -> CollectionHandle:
    stored = stored_name(caller.tenant, name)
    return service_of(request).runtime.collection(stored, embedding=embedding)


async def _in_turn(request: Request, gate: Gate, work: Coroutine[Any, Any, _T]) -> _T:
    """Do it when there is room, unless the client leaves."""

    async def in_turn() -> _T:
        async with place(gate):
            return await work

    try:
        return await unless_left(request, in_turn())
    finally:
        work.close()  # it may never have begun


def _shown(info: CollectionInfo, caller: Principal) -> dict[str, Any]:
    """As its tenant knows it."""
    return {**msgspec.structs.asdict(info), "name": shown_name(caller.tenant, info.name)}


def _converted(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"the body does not fit: {error}") from None


def _target(wanted: _Search) -> Any:
    if wanted.vector is None:
        return wanted.query
    if not 0 < len(wanted.vector) <= _MAX_DIMENSION:
        raise InputError(f"a vector has 1 to {_MAX_DIMENSION} numbers")
    with np.errstate(over="ignore"):
        vector = np.asarray(wanted.vector, dtype=np.float32)
    if not np.isfinite(vector).all():
        raise InputError("a number of the vector does not fit into 32 bits")
    return vector


def _passages(data: bytes, kind: str) -> list[Passage]:
    if "json" in kind and "jsonl" not in kind and "ndjson" not in kind:
        whole = parse_json(data)
        items = whole.get("documents") if isinstance(whole, dict) and len(whole) == 1 else None
        if not isinstance(items, list):
            raise InputError("the body must be an object with a list: documents")
    else:
        items = [parse_json(line) for line in data.splitlines() if line.strip()]
    if not 0 < len(items) <= _MAX_DOCUMENTS:
        raise InputError(f"add 1 to {_MAX_DOCUMENTS} documents at a time, not {len(items)}")
    documents = [_converted(item, _Document) for item in items]
    for each in documents:
        _check_name(each.source)
        _check_name(each.id)
    return [
        new_passage(each.text, each.source, id=each.id, metadata=each.metadata)
        for each in documents
    ]


async def _add_uploads(handle: CollectionHandle, files: list[UploadFile]) -> list[dict[str, Any]]:
    reports = []
    for upload in files:
        name = upload.filename or ""
        if not name:
            raise InputError("an uploaded file has no name")
        _check_name(name)
        with tempfile.TemporaryDirectory(prefix="adjoin-upload-") as folder:
            # Of the caller's name only the suffix is used here, to tell what kind of file it is.
            file = Path(folder) / f"upload{Path(name).suffix[:10]}"
            await asyncio.to_thread(_copy, upload, file)
            report = msgspec.to_builtins(await handle.aadd_document(file, name))
        skipped = [reason for _, reason in report.pop("skipped")]
        reports.append({"source": name, **report, "problem": "; ".join(skipped)})
    return reports


def _copy(upload: UploadFile, file: Path) -> None:
    with file.open("wb") as target:
        shutil.copyfileobj(upload.file, target)


def _check_name(name: str) -> None:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InputError(f"a source or id is one line of at most {_LONGEST_NAME} characters")
