"""The parser's process: outcomes by file, limits, and life after death."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pdf_library import pdf

from adjoin.functions.ingest import (
    Document,
    Limits,
    ParseFailure,
    Parser,
    Section,
    parse_files,
    scan,
)


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser() as parser:
        yield parser


def outcome(parser: Parser, path: Path, data: bytes) -> Document | ParseFailure:
    path.write_bytes(data)
    ((source, found),) = scan(path).items()
    return parser.parse(source, found)


def test_each_file_has_its_own_outcome(tmp_path: Path) -> None:
    for name, data in {
        "a.md": b"# H\n\nfine",
        "b.pdf": b"%PDF-1.7 broken",
        "c.pdf": pdf("secret", encrypted=True),
        "d.txt": b"",
        "e.txt": b"\0\1\2",
        "f.txt": b"x" * 3000,
        "g.pdf": pdf("fine too"),
    }.items():
        (tmp_path / name).write_bytes(data)
    limits = Limits(max_file_bytes=2000)
    found = scan(tmp_path, limits=limits)
    results = {Path(r.source).name: r for r in parse_files(found, limits)}
    assert results["a.md"] == Document(
        str(tmp_path / "a.md"), found[str(tmp_path / "a.md")].digest, (Section("fine", "H"),)
    )
    assert isinstance(results["g.pdf"], Document)
    failures = {name: r for name, r in results.items() if isinstance(r, ParseFailure)}
    assert "damaged" in failures["b.pdf"].reason
    assert "password" in failures["c.pdf"].reason
    assert "not text" in failures["e.txt"].reason
    assert "larger than 2000 bytes" in failures["f.txt"].reason
    assert [name for name, r in failures.items() if r.skipped] == ["d.txt"]
    assert str(failures["d.txt"]).endswith("d.txt: the file is empty")


def test_one_child_serves_many_files(tmp_path: Path, parser: Parser) -> None:
    outcome(parser, tmp_path / "a.txt", b"one")
    child = parser._child
    outcome(parser, tmp_path / "a.txt", b"%PDF")
    assert child is not None
    assert parser._child is child


def test_a_file_that_went_away(tmp_path: Path, parser: Parser) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    ((source, found),) = scan(path).items()
    path.unlink()
    failure = parser.parse(source, found)
    assert isinstance(failure, ParseFailure)
    assert "cannot be read" in failure.reason


def test_a_child_that_died_between_files_is_replaced(tmp_path: Path, parser: Parser) -> None:
    outcome(parser, tmp_path / "a.txt", b"one")
    assert parser._child is not None
    os.kill(parser._child.pid, signal.SIGKILL)
    parser._child.wait()
    assert isinstance(outcome(parser, tmp_path / "a.txt", b"two"), Document)


def test_a_file_that_takes_too_long_and_the_next(tmp_path: Path) -> None:
    with Parser(Limits(timeout_s=1)) as parser:
        outcome(parser, tmp_path / "a.txt", b"the child is up")
        slow = outcome(parser, tmp_path / "slow.html", b"<div>" * 200_000)
        assert isinstance(slow, ParseFailure)
        assert "longer than 1 s" in slow.reason
        assert isinstance(outcome(parser, tmp_path / "a.txt", b"next"), Document)


def test_a_child_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    with Parser(Limits(timeout_s=1)) as parser:
        outcome(parser, tmp_path / "a.txt", b"the child is up")
        child = parser._child
        assert child is not None
        os.kill(child.pid, signal.SIGSTOP)
        stuck = outcome(parser, tmp_path / "b.txt", b"x")
        assert isinstance(stuck, ParseFailure)
        assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("name", "data"), [("a.txt", b"text" * 10_000_000), ("a.html", b"<p>text" * 1_000_000)]
)
def test_a_file_that_takes_too_much_memory(tmp_path: Path, name: str, data: bytes) -> None:
    with Parser(Limits(memory_mb=32)) as parser:
        hungry = outcome(parser, tmp_path / name, data)
        assert isinstance(hungry, ParseFailure)
        assert not hungry.skipped
        assert isinstance(outcome(parser, tmp_path / "b.txt", b"next"), Document)


def test_the_system_limits_the_child(tmp_path: Path) -> None:
    with Parser(Limits(memory_mb=512, timeout_s=7)) as parser:
        outcome(parser, tmp_path / "a.txt", b"text")
        assert parser._child is not None
        pid = parser._child.pid
        memory, _ = resource.prlimit(pid, resource.RLIMIT_AS)
        assert 512 * 2**20 <= memory < 2**33
        assert 7 <= resource.prlimit(pid, resource.RLIMIT_CPU)[0] <= 7 + 5
        assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)


def test_too_much_text(tmp_path: Path) -> None:
    with Parser(Limits(max_text_bytes=10)) as parser:
        long = outcome(parser, tmp_path / "a.txt", b"more than ten bytes")
        assert isinstance(long, ParseFailure)
        assert "longer than 10" in long.reason


def test_the_child_ends_with_the_iterator(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    before = _children()
    results = parse_files(scan(tmp_path))
    next(results)
    assert len(_children() - before) == 1
    results.close()  # type: ignore[attr-defined]
    assert _children() == before


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
