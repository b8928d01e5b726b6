"""The routes of the OpenAPI document that the documentation does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def documented(paths: Iterable[str]) -> list[str]:
    """Paths that are missing. In a table, ``…/NAME`` goes on from the page's last whole path."""
    found, base = set(), ""
    for path in re.findall(r"(?:/[a-z]|…/)[\w/.-]*", PAGE.read_text(encoding="utf-8")):
        if path.startswith("/api/v1/"):
            base = "/".join(path.split("/")[:4])
            found.add(path)
        else:
            found.add(path.replace("…", base))
    shown = {re.sub(r"\{(\w+)\}", lambda m: m[1].upper(), path): path for path in paths}
    return [path for text, path in shown.items() if text not in found]
