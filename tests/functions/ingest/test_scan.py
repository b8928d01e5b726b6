"""Which files a folder gives, and what a sync then does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.errors import InputError, NotFound
from adjoin.functions.ingest import Chunking, Limits, belongs, plan_sync, scan


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")


def test_supported_files_sorted_by_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "docs/b.md", "docs/a/c.TXT", "docs/x.py", "docs/.hidden.md", "docs/.git/d.md")
    expected = ["docs/a/c.TXT", "docs/b.md"]
    assert list(scan("docs")) == list(scan("docs/")) == list(scan("./docs")) == expected
    assert list(scan(tmp_path / "docs")) == [f"{tmp_path}/{source}" for source in expected]
    assert list(scan("docs/b.md")) == ["docs/b.md"]


def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.md")
    assert list(scan(".")) == ["./a.md"]
    assert belongs("./a.md", ".")
    assert not belongs("a title", ".")


def test_what_belongs_to_a_folder() -> None:
    assert belongs("docs/a.md", "docs/")
    assert belongs("docs/a.md", "docs/a.md")
    assert not belongs("docs2/a.md", "docs")
    assert belongs("/a.md", "/")


def test_links_out_of_the_folder_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "secret.md", "outside/d.md", "docs/a.md")
    (tmp_path / "docs" / "out.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "docs" / "dir").symlink_to(tmp_path / "outside")
    (tmp_path / "docs" / "dangling.md").symlink_to(tmp_path / "nowhere.md")
    (tmp_path / "docs" / "in.md").symlink_to("a.md")
    os.mkfifo(tmp_path / "docs" / "pipe.md")
    names = [Path(source).name for source in scan(tmp_path / "docs")]
    assert names == ["a.md", "in.md"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        scan(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no documents.*\.md.*\.pdf"):
        scan(tmp_path)
    write(tmp_path, "a.docx")
    with pytest.raises(InputError, match=r"\.html"):
        scan(tmp_path)
    with pytest.raises(InputError, match="not a document"):
        scan(tmp_path / "a.docx")


def test_too_many(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md", "c.md")
    with pytest.raises(InputError, match="more than 2"):
        scan(tmp_path, limits=Limits(max_files=2))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_folder_that_cannot_be_read_is_no_empty_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "sub/b.md")
    (tmp_path / "sub").chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be read"):
            scan(tmp_path)
    finally:
        (tmp_path / "sub").chmod(0o700)


def test_the_digest_covers_content_and_chunking(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    (source,) = scan(tmp_path)
    first = scan(tmp_path)[source].digest
    assert scan(tmp_path)[source].digest == first
    assert scan(tmp_path, chunking=Chunking(100))[source].digest != first
    (tmp_path / "a.md").write_text("changed")
    assert scan(tmp_path)[source].digest != first


def test_a_large_file_is_not_read_and_not_missing(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x" * 100)
    (found,) = scan(tmp_path, limits=Limits(max_file_bytes=10)).values()
    assert found.digest.startswith("too large")


digests = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("123"))


@given(current=digests, found=digests)
def test_a_plan_makes_the_collection_equal_to_the_folder(
    current: dict[str, str], found: dict[str, str]
) -> None:
    plan = plan_sync(current, found)
    assert not set(plan.add) & set(current)
    assert set(plan.change) <= set(current) & set(found)
    after = {source: digest for source, digest in current.items() if source not in plan.remove}
    after |= {source: found[source] for source in (*plan.add, *plan.change)}
    assert after == found
    untouched = set(found) - set(plan.add) - set(plan.change)
    assert all(current[source] == found[source] for source in untouched)
    for part in (plan.add, plan.change, plan.remove):
        assert list(part) == sorted(part)
