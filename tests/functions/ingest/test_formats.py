"""Sections of each format."""

from __future__ import annotations

import pytest
from pdf_library import pdf

from adjoin.functions.ingest import Section
from adjoin.functions.ingest.formats import Unreadable, parse

MARKDOWN = b"""---
title: front matter
---
# Top *level*

Intro with [a link](http://example.org) and `code`.
Second line.

## Sub

- one
- two

| a | b |
|---|---|
| 1 | 2 |

```python
def f():
    return 1
```

<div>raw <b>html</b></div>

# Other
text
"""

HTML = b"""<html><head><title>T</title><style>x{}</style></head><body><nav>menu</nav>
<h1>Top</h1><p>Hello <b>bold</b>
 world</p><ul><li>one</li><li>two</li></ul>
<h2>Sub <i>title</i></h2><pre>a
  b</pre><table><tr><th>x</th><td>1</td></tr><tr><th>y</th><td>2</td></tr></table>
<script>evil()</script></body></html>"""


def test_markdown_by_heading() -> None:
    assert parse(MARKDOWN, ".md") == [
        Section("Intro with a link and code.\nSecond line.", "Top level"),
        Section(
            "- one\n- two\n\n| a | b\n| 1 | 2\n\ndef f():\n    return 1\n\nraw html",
            "Top level > Sub",
        ),
        Section("text", "Other"),
    ]


def test_html_by_heading() -> None:
    assert parse(HTML, ".html") == [
        Section("Hello bold world\n\n- one\n- two", "Top"),
        Section("a\n  b\n\n| x | 1\n| y | 2", "Top > Sub title"),
    ]


def test_html_takes_the_main_content() -> None:
    page = b"<body><div>cookies</div><main><p>text</p></main><footer>imprint</footer></body>"
    assert parse(page, ".htm") == [Section("text")]


def test_a_heading_of_a_higher_level_ends_those_below() -> None:
    text = b"# A\n\n### C\n\n1\n\n## B\n\n2\n\n# D\n\n3"
    assert [s.heading for s in parse(text, ".md")] == ["A > C", "A > B", "D"]


def test_pdf_by_page() -> None:
    assert parse(pdf("Hello world", "", "Third"), ".pdf") == [
        Section("Hello world", page=1),
        Section("Third", page=3),
    ]


@pytest.mark.parametrize(
    ("data", "reason", "skipped"),
    [
        (pdf("x", encrypted=True), "password", False),
        (b"%PDF-1.4 rubbish", "damaged", False),
        (pdf("hello")[:200], "damaged", False),
        (b"no PDF at all", "damaged", False),
        (pdf(""), "no text.*OCR", True),
        (b" \n", "empty", True),
    ],
)
def test_pdfs_without_text_say_why(data: bytes, reason: str, skipped: bool) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        parse(data, ".pdf")
    assert caught.value.skipped is skipped


def test_a_page_without_text_is_skipped() -> None:
    with pytest.raises(Unreadable, match="no text") as caught:
        parse(b"<body><script>x</script></body>", ".html")
    assert caught.value.skipped


GERMAN = "Größe der Straße über München, schön für Ärger und Übermut"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_encodings_of_text(encoding: str) -> None:
    assert parse(GERMAN.encode(encoding), ".txt") == [Section(GERMAN)]


def test_html_declares_its_encoding() -> None:
    page = "<meta charset=koi8-r><p>привет</p>".encode("koi8-r")
    assert parse(page, ".html") == [Section("привет")]


def test_binary_is_not_text() -> None:
    with pytest.raises(Unreadable, match="not text"):
        parse(b"\x89PNG\r\n\0\0\0", ".txt")
