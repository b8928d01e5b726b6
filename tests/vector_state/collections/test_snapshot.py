"""What is on the disk: old or new version, never half of one, never a damaged one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adjoin.errors import Conflict, InputError, NotFound, StateError
from adjoin.types import Passage
from adjoin.vector_state.collections import Collection, disk, list_collections, remove

OPERATIONS = ("make_directory", "write", "sync", "replace", "remove_tree")


def stored(root: Path, text: str = "old") -> Collection:
    c = Collection.create(root, "c", embedding="minilm", embedding_digest="d1")
    c.upsert([Passage(id="a", text=text, source="s", metadata={"page": 1})], _vectors(), {"s": "1"})
    c.save()
    return c


def _vectors() -> Any:
    return np.ones((1, 3), np.float32)


def files(root: Path) -> list[Path]:
    return sorted(p for p in (root / "c").rglob("*") if p.is_file() and p.name != "LOCK")


def test_round_trip(tmp_path: Path) -> None:
    before = stored(tmp_path)
    after = Collection.open(tmp_path, "c")
    assert after.info == before.info
    assert after.get("a") == Passage(id="a", text="old", source="s", metadata={"page": 1})
    assert after.sources() == {"s": "1"}
    assert after.embedding == "minilm"
    assert list_collections(tmp_path) == [before.info]
    assert before.info.version == 2
    assert before.info.embedding_digest == "d1"


def test_old_versions_are_removed(tmp_path: Path) -> None:
    c = stored(tmp_path)
    for _ in range(3):
        c.save()
    assert [p.name for p in (tmp_path / "c").glob("v*")] == ["v00000005"]


class Crash(BaseException):
    """The process ends here: nothing catches this."""


def crash_at(
    monkeypatch: pytest.MonkeyPatch, when: int, error: Callable[[], BaseException]
) -> list[str]:
    """Make the ``when``-th file operation fail, half done where it can be; returns those done."""
    done: list[str] = []

    def failing(name: str) -> Callable[..., None]:
        real = getattr(disk, name)

        def operation(*args: Any) -> None:
            if len(done) == when:
                if name == "write":
                    path, writer = args
                    writer(path)
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                raise error()
            done.append(name)
            real(*args)

        return operation

    for name in OPERATIONS:
        monkeypatch.setattr(disk, name, failing(name))
    return done


def saves_new(root: Path) -> None:
    c = Collection.open(root, "c")
    c.upsert([Passage(id="a", text="new", source="s")], _vectors(), {"s": "2"})
    c.save()


def operations_of_a_save(tmp_path: Path) -> int:
    stored(tmp_path / "count")
    with pytest.MonkeyPatch.context() as patch:
        done = crash_at(patch, -1, Crash)
        saves_new(tmp_path / "count")
    return len(done)


@pytest.mark.parametrize("error", [Crash, lambda: OSError(errno.ENOSPC, "No space left")])
def test_a_crash_anywhere_in_a_save_leaves_the_old_or_the_new(
    tmp_path: Path, error: Callable[[], BaseException]
) -> None:
    count = operations_of_a_save(tmp_path)
    assert count >= 8
    seen = set()
    for when in range(count):
        root = tmp_path / f"at{when}"
        stored(root)
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, when, error)
            with pytest.raises((Crash, StateError)):
                saves_new(root)
        survivor = Collection.open(root, "c")
        text = survivor.search(_vectors()[0], 1)[0].text
        assert (text, survivor.sources()["s"]) in {("old", "1"), ("new", "2")}
        seen.add(text)
        saves_new(root)  # what the crash left is no obstacle
        reopened = Collection.open(root, "c")
        assert reopened.search(_vectors()[0], 1)[0].text == "new"
        assert len(list((root / "c").glob("v*"))) == 1
    assert seen == {"old", "new"}


def test_a_crash_while_creating_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, 2, Crash)
        with pytest.raises(Crash):
            stored(tmp_path)
    assert list_collections(tmp_path) == []
    assert len(stored(tmp_path)) == 1


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    stored(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, 1, lambda: OSError(errno.ENOSPC, "No space left"))
        with pytest.raises(StateError, match=r"disk is full.*untouched"):
            saves_new(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "extend"])
def test_damage_to_any_file_is_found_and_the_file_named(tmp_path: Path, damage: str) -> None:
    stored(tmp_path)
    originals = {path: path.read_bytes() for path in files(tmp_path)}
    assert len(originals) == 4
    for path, data in originals.items():
        for position in {0, len(data) // 2, len(data) - 1} if damage == "flip" else {0}:
            _damage(path, data, damage, position)
            if damage == "remove" and path.name == "CURRENT":
                with pytest.raises(NotFound):
                    Collection.open(tmp_path, "c")
            else:
                with pytest.raises(StateError) as caught:
                    Collection.open(tmp_path, "c")
                assert caught.value.hint
                assert str(tmp_path) in caught.value.where
            path.write_bytes(data)
    assert len(Collection.open(tmp_path, "c")) == 1


def _damage(path: Path, data: bytes, damage: str, position: int) -> None:
    changed = bytearray(data)
    if damage == "flip":
        changed[position] ^= 1
    elif damage == "truncate":
        changed = changed[: len(data) // 2]
    elif damage == "empty":
        changed.clear()
    elif damage == "extend":
        changed += b"x"
    path.write_bytes(changed)
    if damage == "remove":
        path.unlink()


def test_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    first = stored(tmp_path)
    second = Collection.open(tmp_path, "c")
    first.save()
    with pytest.raises(Conflict, match="another process"):
        second.save()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../c", "a/b", "/etc", ".hidden", "a" * 65, "a\0", "ä", "a\n"]
)
def test_names_stay_inside_the_root(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        Collection.create(tmp_path / "root", name, embedding="minilm")
    with pytest.raises(InputError):
        Collection.open(tmp_path / "root", name)
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    stored(tmp_path / "elsewhere")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "c").symlink_to(tmp_path / "elsewhere" / "c")
    with pytest.raises(StateError, match="link"):
        Collection.open(tmp_path / "root", "c")


def test_remove(tmp_path: Path) -> None:
    stored(tmp_path)
    remove(tmp_path, "c")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotFound):
        remove(tmp_path, "c")
