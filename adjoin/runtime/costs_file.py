"""What was learned about costs, from one Runtime to the next.

One small file in the home directory, ``costs``: a line that names form and checksum, then the costs
in msgpack. It is replaced in one step when a Runtime ends; of several that run at once, the last
one to end is remembered. A file that is damaged, too large or of another form is not read: costs
are then learned anew, which a warning says.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path

import msgspec

from adjoin.runtime.policies.costs import Costs

_log = logging.getLogger(__name__)
#: Raised with every change of the structures in it.
_FORM = b"adjoin-costs-1"
#: More than all that costs keep.
_MOST_BYTES = 32_000_000


def read_costs(home: Path) -> Costs:
    """The costs of earlier runs; none, with a warning, when the file cannot be used."""
    path = home / "costs"
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        return _decoded(content)
    except FileNotFoundError:
        return Costs()
    except (OSError, ValueError, msgspec.DecodeError) as error:
        _log.warning("costs are learned anew, since %s cannot be used: %s", path, error)
        return Costs()


def write_costs(home: Path, costs: Costs) -> None:
    """Keep the costs for the next Runtime; a warning when that is not possible."""
    body = msgspec.msgpack.encode(costs)
    head = b"%s %s\n" % (_FORM, hashlib.sha256(body).hexdigest().encode())
    temporary = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=home, prefix=".costs-")
        with os.fdopen(handle, "wb") as file:
            file.write(head + body)
        Path(temporary).replace(home / "costs")
    except OSError as error:
        _log.warning("what was learned about costs is lost: %s", error)
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _decoded(content: bytes) -> Costs:
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes")
    head, _, body = content.partition(b"\n")
    form, _, checksum = head.partition(b" ")
    if form != _FORM:
        raise ValueError("it is of another form")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError("its checksum differs")
    return msgspec.msgpack.decode(body, type=Costs)
