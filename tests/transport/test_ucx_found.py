"""What is said where UCX cannot be spoken, and what a process sets before it speaks it."""

from __future__ import annotations

import platform
import socket
from importlib.util import find_spec
from pathlib import Path

import pytest

from adjoin import Runtime, Settings
from adjoin.errors import InputError
from adjoin.transport.loopback import keep_to_loopback
from adjoin.transport.ucx import Found, find, is_ucx, refusal, set_variables

PACKAGES = ("distributed-ucxx-cu12 0.52.0",)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found("Linux", "x86_64"), ("not installed", "adjoin[ucx]")),
        (Found("Darwin", "arm64"), ("Darwin on arm64", "use protocol 'tcp'")),
        (Found("Linux", "riscv64", PACKAGES), ("Linux on riscv64", "use protocol 'tcp'")),
        (
            Found("Linux", "x86_64", PACKAGES, "OSError: libucp.so.0: cannot open"),
            ("libucp.so.0", "distributed-ucxx-cu12 0.52.0", "adjoin[ucx]"),
        ),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(found: Found, said: tuple[str, ...]) -> None:
    error = refusal(found)
    assert error is not None
    assert all(part in str(error) for part in said), str(error)


def test_what_is_there_is_not_refused() -> None:
    assert refusal(Found("Linux", "aarch64", PACKAGES)) is None


def test_what_is_looked_at_is_this_machine() -> None:
    found = find()
    assert (found.system, found.machine) == (platform.system(), platform.machine())
    assert bool(found.packages) == (find_spec("distributed_ucxx") is not None)


@pytest.mark.skipif(find_spec("distributed_ucxx") is not None, reason="it is installed")
@pytest.mark.parametrize("cluster", [None, "ucx://127.0.0.1:1"])
def test_a_runtime_without_the_package_says_so(cluster: str | None) -> None:
    protocol = "ucx" if cluster is None else None
    with pytest.raises(InputError, match=r"not installed; pip install 'adjoin\[ucx\]'"):
        Runtime(cluster, protocol=protocol)


def test_protocols_that_are_refused() -> None:
    with pytest.raises(InputError, match=r"no protocol 'udp'.*tcp, ucx"):
        Runtime(protocol="udp")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1: a running cluster has its protocol"):
        Runtime("tcp://127.0.0.1:1", protocol="ucx")
    with pytest.raises(InputError, match="protocol"):
        Settings.load(protocol="udp")


def test_what_a_user_has_set_stays() -> None:
    environ = {"UCX_NET_DEVICES": "mlx5_0:1"}
    set_variables(environ, alone=True)
    assert environ["UCX_NET_DEVICES"] == "mlx5_0:1"
    assert environ["UCXPY_PROGRESS_MODE"] == "thread"
    driver: dict[str, str] = {}
    set_variables(driver)
    assert "UCX_NET_DEVICES" not in driver, "it may talk to other machines, too"


def test_names_and_addresses() -> None:
    assert all(map(is_ucx, ("ucx", "ucx://127.0.0.1:1", "ucxx://[::1]:1")))
    assert not any(map(is_ucx, ("", "tcp", "tcp://ucx:1", "tls://h:1")))


def test_a_socket_on_all_addresses_is_kept_to_this_machine() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server, socket.create_server(("", 0)) as other:
        port = server.getsockname()[1]
        keep_to_loopback(port)
        assert device(server) == b"lo"
        assert device(other) == b""
        socket.create_connection(("127.0.0.1", port)).close()


def test_nothing_that_listens_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(OSError, match="nothing of this process"):
            keep_to_loopback(port + 1 if port < 65535 else port - 1)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def device(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0")
