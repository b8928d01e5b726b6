"""Whether this process can speak UCX, and what has to be set before it does.

Nothing here imports Dask or UCX; :mod:`.ucx_comm` is the comm itself.
"""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, version

import msgspec

from adjoin.errors import InputError

INSTALL = "pip install 'adjoin[ucx]'"
_PACKAGES = ("distributed-ucxx-cu12", "distributed-ucxx-cu13", "distributed-ucxx")
#: Machines for which the wheels are built.
_MACHINES = ("x86_64", "aarch64")

#: What UCX reads from the environment; what is there already wins.
_ALWAYS = {
    # Its warnings would go to standard output, among a program's results.
    "UCX_LOG_FILE": "stderr",
    "UCX_WARN_UNUSED_ENV_VARS": "n",
    # It warns of itself at each start, and of each lost connection, which is an error already.
    "UCXX_LOG_LEVEL": "fatal",
    # Without these, each connection that waits for a message polls, and a process with nothing to
    # do takes a whole core. A thread waits for UCX's events, and wakes Python's futures.
    "UCXPY_PROGRESS_MODE": "thread",
    "UCXPY_ENABLE_PYTHON_FUTURE": "1",
}
#: For processes that only talk to others of their machine: no socket on a network's device.
_ALONE = {"UCX_NET_DEVICES": "lo"}


class Found(msgspec.Struct, frozen=True):
    """What there is of UCX. ``error`` is why it cannot be loaded, empty when it can."""

    system: str
    machine: str
    packages: tuple[str, ...] = ()
    error: str = ""


def find() -> Found:
    """Look, and load the libraries when they are there."""
    packages = tuple(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    error = ""
    if packages:
        try:
            importlib.import_module("distributed_ucxx")
            importlib.import_module("ucxx")
        except Exception as failed:  # noqa: BLE001 - of native libraries: OSError, or whatever
            error = f"{type(failed).__name__}: {' '.join(str(failed).split())}"
    return Found(platform.system(), platform.machine(), packages, error)


def refusal(found: Found) -> InputError | None:
    """Why UCX cannot be spoken with what was found."""
    if found.system != "Linux" or found.machine not in _MACHINES:
        return InputError(
            f"UCX is built for Linux on {' and '.join(_MACHINES)}, this is {found.system} on "
            f"{found.machine}",
            where="protocol 'ucx'",
            hint="use protocol 'tcp'",
        )
    if not found.packages:
        return InputError(
            "the package that lets Dask speak UCX is not installed",
            where="protocol 'ucx'",
            hint=f"{INSTALL}, or use protocol 'tcp'",
        )
    if found.error:
        return InputError(
            f"UCX does not load: {found.error}",
            where=", ".join(found.packages),
            hint=f"{INSTALL} in an environment of its own, or use protocol 'tcp'",
        )
    return None


def set_variables(environ: MutableMapping[str, str], *, alone: bool = False) -> None:
    """Set what UCX reads when it is loaded; ``alone``: to talk to this machine's processes only."""
    for name, value in (_ALWAYS | (_ALONE if alone else {})).items():
        environ.setdefault(name, value)


def current_refusal() -> InputError | None:
    """Why this process cannot speak UCX; loads it."""
    set_variables(os.environ)
    return refusal(find())


def prepare(*, alone: bool = False) -> None:
    """Make this process able to speak UCX, before it opens the first connection.

    Raises:
        InputError: UCX is not installed, or does not work on this machine.
    """
    set_variables(os.environ, alone=alone)
    if (error := refusal(find())) is not None:
        raise error
    from adjoin.transport.ucx_comm import install

    install()


def is_ucx(address: str) -> bool:
    """Whether an address, or the name of a protocol, is UCX's."""
    return address.partition("://")[0] in ("ucx", "ucxx")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
