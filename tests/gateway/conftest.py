"""One service for all tests here: a real cluster, a real socket, the fake engine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from adjoin import Settings
from adjoin.runtime.database import open_file, state_path
from adjoin.runtime.gateway import create_app
from adjoin.runtime.gateway.keys import SCOPES, KeyStore
from adjoin.runtime.gateway.server import uvicorn_config
from adjoin.settings import TenantBounds


@dataclass(frozen=True)
class Served:
    """A running service; ``key`` makes a key of a tenant with some scopes."""

    url: str
    app: FastAPI
    settings: Settings
    key: Callable[..., str]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def client(self, tenant: str = "default", *scopes: str) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.key(tenant, *scopes)}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30)


@pytest.fixture(scope="session")
def gateway_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home: Path = tmp_path_factory.mktemp("gateway-home")
    return Settings(
        home=home,
        host_linger_s=1.0,
        allowed_modules=("gateway_flows",),
        allowed_models=("fake:",),
        header_timeout_s=1.0,
        body_timeout_s=1.0,
        send_timeout_s=1.0,
        tenant_runs=8,
        tenants={
            "few-requests": TenantBounds(requests_per_minute=5),
            "few-tokens": TenantBounds(tokens_per_minute=100),
            "one-run": TenantBounds(runs=1),
        },
        kept_runs=50,
        drain_timeout_s=2,
    )


@pytest.fixture(scope="session")
def served(gateway_settings: Settings) -> Iterator[Served]:
    app = create_app(gateway_settings)
    listening = socket.create_server(("127.0.0.1", 0))
    # The kernel's own buffers hold megabytes for a client that does not read; here they need not.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    server = uvicorn.Server(uvicorn_config(app, gateway_settings))
    started = threading.Event()
    app.state.service.on_started = started.set
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    keys = KeyStore(open_file(state_path(gateway_settings)))
    known: dict[tuple[str, ...], str] = {}

    def key(tenant: str = "default", *scopes: str) -> str:
        if (tenant, *scopes) not in known:
            known[tenant, *scopes] = keys.create(tenant, scopes or SCOPES[:-1])[1]
        return known[tenant, *scopes]

    try:
        assert started.wait(50)
        host, port = listening.getsockname()
        yield Served(f"http://{host}:{port}", app, gateway_settings, key)
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with served.client() as client:
        yield client
