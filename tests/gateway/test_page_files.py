"""The page's files as the service answers them; what a browser makes of them is in test_page.py."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest

from adjoin.runtime.gateway import reference
from adjoin.runtime.gateway.access import PUBLIC
from adjoin.runtime.gateway.page import FILES


@pytest.mark.parametrize("path", sorted((*FILES, *reference.FILES)))
def test_a_file_is_for_everyone_and_strict(served: Any, path: str) -> None:
    answer = httpx2.get(f"{served.url}{path}")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
    again = httpx2.get(f"{served.url}{path}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_names_only_files_that_there_are_and_has_no_inline_code() -> None:
    html = FILES["/"].content.decode()
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', html)
    assert {f"/{name}" for name in named} <= FILES.keys()
    for path, file in FILES.items():
        for name in re.findall(r'from "\./(\w+\.js)"', file.content.decode()):
            assert f"/page/{name}" in FILES, path
    assert re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=", html) is None


def test_no_script_makes_markup_of_text() -> None:
    for path, file in FILES.items():
        if path.endswith(".js"):
            found = re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(",
                file.content.decode(),
            )
            assert found is None, path


@pytest.mark.parametrize("path", ["/page", "/page/", "/page/__init__.py", "/page/..%2fkeys.py"])
def test_nothing_else_is_a_file(served: Any, path: str) -> None:
    assert httpx2.get(f"{served.url}{path}").status_code == 401


def test_the_page_is_answered_under_a_known_name_only(served: Any) -> None:
    assert "/" in PUBLIC
    answer = httpx2.get(served.url, headers={"Host": "evil.example"})
    assert answer.status_code == 421
    answer = httpx2.get(served.url, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert httpx2.post(served.url).status_code == 405
