"""Bytes of a document to sections of plain text, one function a format.

Runs in the parser's process: the libraries here read what strangers wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from adjoin.functions.ingest.documents import Section

if TYPE_CHECKING:
    from markdown_it.token import Token
    from selectolax.lexbor import LexborNode

_BLANKS = re.compile(r"(?<=\S)[ \t\f\v\u00a0]+")  # indentation stays, for code
_LINES = re.compile(r"\n{3,}")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n(---|\.\.\.)\n", re.DOTALL)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]{1,40})", re.IGNORECASE)


class Unreadable(Exception):
    """The document gives no text; ``skipped`` when it has none to give."""

    def __init__(self, reason: str, *, skipped: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.skipped = skipped


def parse_text(data: bytes) -> list[Section]:
    return [Section(_tidy(decode(data)))]


def parse_markdown(data: bytes) -> list[Section]:
    """Sections by heading; marks, link targets and HTML tags are dropped."""
    from markdown_it import MarkdownIt

    text = _FRONT_MATTER.sub("", decode(data).replace("\r\n", "\n"))
    outline = _Outline()
    heading = 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "heading_open":
            heading = int(token.tag[1:])
        elif token.type == "heading_close":
            heading = 0
        elif heading and token.type == "inline":
            outline.heading(heading, _inline(token))
        else:
            outline.text(_markdown_block(token))
    return outline.sections()


def parse_html(data: bytes) -> list[Section]:
    """Sections by heading, of the main content where the page marks it."""
    from selectolax.lexbor import LexborHTMLParser

    declared = _CHARSET.search(data[:4096])
    tree = LexborHTMLParser(decode(data, declared[1].decode("ascii") if declared else None))
    tree.strip_tags(["script", "style", "noscript", "template", "svg", "nav", "head", "iframe"])
    root = tree.css_first("main") or tree.css_first("article") or tree.body
    return _outline_of(root) if root is not None else []


def parse_pdf(data: bytes) -> list[Section]:
    """One section a page."""
    import pypdfium2 as pdfium

    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unreadable("the PDF is protected by a password") from None
        raise Unreadable(f"the PDF is damaged: {error}") from None
    sections = []
    with document:
        if len(document) == 0:
            raise Unreadable("the PDF is damaged: it has no pages")
        for number in range(len(document)):
            try:
                page = document[number]
                text = page.get_textpage().get_text_range()
                page.close()
            except pdfium.PdfiumError as error:
                raise Unreadable(f"the PDF is damaged at page {number + 1}: {error}") from None
            sections.append(Section(_tidy(_join_lines(text)), page=number + 1))
    if not any(section.text for section in sections):
        raise Unreadable("the PDF has no text; scanned pages need OCR first", skipped=True)
    return sections


PARSERS: Mapping[str, Callable[[bytes], list[Section]]] = MappingProxyType(
    {
        ".txt": parse_text,
        ".md": parse_markdown,
        ".html": parse_html,
        ".htm": parse_html,
        ".pdf": parse_pdf,
    }
)


def parse(data: bytes, suffix: str) -> list[Section]:
    """Sections with text in them.

    Raises:
        Unreadable: the file is empty, damaged, protected, or not of its suffix's format.
    """
    if not data.strip():
        raise Unreadable("the file is empty", skipped=True)
    sections = [section for section in PARSERS[suffix](data) if section.text]
    if not sections:
        raise Unreadable("the file has no text", skipped=True)
    return sections


def decode(data: bytes, declared: str | None = None) -> str:
    """Text of unknown encoding: byte order mark, the declared one, UTF-8, then the likeliest.

    Raises:
        Unreadable: it is not text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\0" in data:
        raise Unreadable("the file is not text: it holds zero bytes")
    for encoding in filter(None, ("utf-8", declared)):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    from charset_normalizer import from_bytes

    best = from_bytes(data, cp_isolation=_ENCODINGS).best()
    if best is None:
        raise Unreadable("the file is not text in any known encoding")
    return str(best)


_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
#: Of the web (https://encoding.spec.whatwg.org/); more candidates only make more mistakes.
_ENCODINGS = [
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r"),
    *("big5", "euc_jp", "euc_kr", "gb18030", "shift_jis"),
]
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
#: What a tag puts before and after its content.
_AROUND: Mapping[str, tuple[str, str]] = MappingProxyType(
    dict.fromkeys(
        ("p", "div", "section", "article", "blockquote", "pre", "table", "dl", "figure", "hr"),
        ("\n\n", "\n\n"),
    )
    | dict.fromkeys(("tr", "dt", "dd", "figcaption", "option"), ("\n", ""))
    | dict.fromkeys(("ul", "ol"), ("\n", "\n"))
    | {"br": ("", "\n"), "li": ("\n- ", ""), "td": ("| ", " "), "th": ("| ", " ")}
)


class _Outline:
    """Collects text under the headings above it."""

    def __init__(self) -> None:
        self._path: dict[int, str] = {}
        self._parts: list[str] = []
        self._done: list[Section] = []

    def heading(self, level: int, title: str) -> None:
        self._close()
        self._path = {above: text for above, text in self._path.items() if above < level}
        self._path[level] = " ".join(title.split())

    def text(self, text: str) -> None:
        self._parts.append(text)

    def sections(self) -> list[Section]:
        self._close()
        return self._done

    def _close(self) -> None:
        text = _tidy("".join(self._parts))
        self._parts = []
        if text:
            path = (self._path[level] for level in sorted(self._path))
            self._done.append(Section(text, heading=" > ".join(filter(None, path))))


def _outline_of(root: LexborNode) -> list[Section]:
    """Walks without recursion or looking upwards: pages may be nested as deep as they are long."""
    outline = _Outline()
    # What is still to do, last first: a node and whether it is preformatted, or text to close with.
    stack: list[tuple[LexborNode | str, bool]] = [(root, False)]
    while stack:
        node, raw = stack.pop()
        if isinstance(node, str):
            outline.text(node)
            continue
        tag = node.tag or ""
        if tag == "-text":
            content = node.text_content or ""
            outline.text(content if raw else re.sub(r"\s+", " ", content))
        elif tag in _HEADINGS:
            outline.heading(int(tag[1]), node.text(separator=" "))
        else:
            before, after = _AROUND.get(tag, ("", ""))
            outline.text(before)
            children = [(child, raw or tag == "pre") for child in node.iter(include_text=True)]
            stack += [(after, raw), *reversed(children)]
    return outline.sections()


def _markdown_block(token: Token) -> str:
    if token.type == "inline":
        return _inline(token)
    if token.type in {"fence", "code_block"}:
        return f"\n{token.content}\n"
    if token.type == "html_block":
        return "\n".join(section.text for section in parse_html(token.content.encode())) + "\n"
    if token.type == "paragraph_close" and token.hidden:
        return ""
    return _MARKDOWN.get(token.type, "")


_MARKDOWN = MappingProxyType(
    {"paragraph_close": "\n\n", "list_item_open": "\n- ", "tr_close": "\n", "table_open": "\n"}
    | dict.fromkeys(("bullet_list_close", "ordered_list_close"), "\n")
    | dict.fromkeys(("td_open", "th_open"), "| ")
    | dict.fromkeys(("td_close", "th_close"), " ")
)


def _inline(token: Token) -> str:
    return "".join(_texts(token.children or ()))


def _texts(tokens: Iterable[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type in {"text", "code_inline", "image"}:
            yield token.content
        elif token.type in {"softbreak", "hardbreak"}:
            yield "\n"


def _join_lines(text: str) -> str:
    """Undo what typesetting did: hyphens at line ends, which PDFium marks, and line breaks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"[\ufffe\x02\u00ad]\n?", "", text)


def _tidy(text: str) -> str:
    """Spaces and blank lines collapsed, control characters gone."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    lines = (_BLANKS.sub(" ", line).rstrip() for line in text.split("\n"))
    return _LINES.sub("\n\n", "\n".join(lines)).strip()
