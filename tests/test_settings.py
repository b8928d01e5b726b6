from __future__ import annotations

from pathlib import Path

import pytest

from adjoin.errors import InputError, NotFound
from adjoin.settings import Settings


def named(monkeypatch: pytest.MonkeyPatch, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    monkeypatch.setenv("ADJOIN_CONFIG", str(path))


def test_arguments_win_over_variables_and_variables_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(monkeypatch, tmp_path / "a.yaml", b"workers: 3\nthreads_per_worker: 5\nmax_results: 7\n")
    monkeypatch.setenv("ADJOIN_THREADS_PER_WORKER", "6")
    monkeypatch.setenv("ADJOIN_MAX_RESULTS", "8")
    found = Settings.load(max_results=9)
    assert (found.workers, found.threads_per_worker, found.max_results) == (3, 6, 9)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"wrkers: 3\n", "wrkers"),
        (b"workers: many\n", "workers: "),
        (b"- workers\n", "cannot be read"),
        (b"workers: [\n", "cannot be read: .*line 2"),
        (b"home: \xe9\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, message: str
) -> None:
    path = tmp_path / "settings.yaml"
    named(monkeypatch, path, data)
    with pytest.raises(InputError, match=message) as caught:
        Settings.load()
    assert caught.value.where == str(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_asked_for_has_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADJOIN_CONFIG", str(tmp_path / "none.yaml"))
    with pytest.raises(NotFound, match="ADJOIN_CONFIG names it"):
        Settings.load()
