"""API keys: opaque, hashed, scoped, revocable."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from adjoin.errors import InputError, NotFound, StateError
from adjoin.runtime.database import open_file
from adjoin.runtime.gateway.keys import KeyStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "state.db"


def test_a_key_is_found_by_its_text_and_by_nothing_else(path: Path) -> None:
    keys = KeyStore(open_file(path))
    key, text = keys.create("acme", ("invoke", "deploy"), label="ci")
    assert keys.find(text) == key
    assert keys.find(text[:-1]) is None
    assert keys.find(key.id) is None
    assert keys.find("\udcff") is None, "what is no text is no key either"


def test_the_text_of_a_key_is_nowhere_in_the_file(path: Path) -> None:
    state = open_file(path)
    _, text = KeyStore(state).create()
    state.close()
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert text.encode() not in stored
    assert text.removeprefix("adj_").encode() not in stored


def test_only_the_owner_can_read_the_file(path: Path) -> None:
    open_file(path)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_file_is_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StateError):
        open_file(path)


def test_a_revoked_key_is_void_at_once_in_every_process(path: Path) -> None:
    ours, theirs = KeyStore(open_file(path)), KeyStore(open_file(path))
    key, text = ours.create()
    assert theirs.find(text) == key
    ours.revoke(key.id)
    assert theirs.find(text) is None
    with pytest.raises(NotFound):
        ours.revoke(key.id)


def test_a_key_expires(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyStore(open_file(path))
    key, text = keys.create(lifetime_s=60)
    assert keys.find(text) == key
    monkeypatch.setattr("time.time", lambda: key.created + 60.5)
    assert keys.find(text) is None


@pytest.mark.parametrize("tenant", ["", "A", "a.b", "-a", "a" * 32, "a/b"])
def test_names_of_tenants_cannot_be_mistaken_for_others(path: Path, tenant: str) -> None:
    with pytest.raises(InputError):
        KeyStore(open_file(path)).create(tenant)


def test_scopes_are_those_there_are(path: Path) -> None:
    keys = KeyStore(open_file(path))
    for wrong in ((), ("everything",)):
        with pytest.raises(InputError):
            keys.create("acme", wrong)
    assert keys.create("acme", ("admin",))[0].allows("deploy")
    assert not keys.create("acme", ("invoke",))[0].allows("deploy")
