"""What agent, host, template and replica say to each other on one machine.

agent    ── AgentMessage ──▶    host       ── HostMessage ──▶     agent
host     ── Fork ──▶            template   ── TemplateMessage ──▶ host
host     ── AskStats ──▶        replica    ── ReplicaMessage ──▶  host
agent    ── CallMessage ──▶     replica    ── Step ──▶            agent
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from adjoin.functions.engines.base import (
    EmbedRequest,
    GenerateRequest,
    LoadSpec,
    Output,
    ScoreRequest,
)
from adjoin.types import Scalar


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is started with; times in seconds. ``threads`` is what a replica gets,
    ``sequences`` the most that it takes at once, 0 for as many as its engine does. ``beat`` is
    between two looks at a replica, ``stall`` the shortest deadline of a step of its engine."""

    home: str
    threads: int
    sequences: int = 0
    prefix_caching: bool = True
    kv_cache_bytes: int
    load_timeout: float
    linger: float
    usage_log_bytes: int = 256_000_000
    beat: float = 0.5
    stall: float = 30.0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A model as a workflow names it."""

    name: str
    source: str
    engine: str = "auto"
    args: dict[str, Scalar] = {}

    @property
    def key(self) -> bytes:
        """Equal for specifications that mean the same; the name does not matter."""
        return msgspec.msgpack.encode([self.source, self.engine, sorted(self.args.items())])


# --- agent and host -------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A replica of this model, please; answered by Loading and then Started or StartFailed.

    ``gone`` is a replica that hung up on the caller, who may know before the host that it died.
    """

    call: int
    wanted: Wanted
    gone: str = ""


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """These models will be wanted soon; not answered."""

    wanted: list[Wanted]


class AskStatus(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """``figures`` asks for those of the engines too, and not to wait long for any of them."""

    call: int
    figures: bool = False


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End everything now; answered by the end of the connection."""


class Ping(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answered at once by Pong."""


AgentMessage: TypeAlias = Start | Prepare | AskStatus | Shutdown | Ping


class Attached(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pid: int


class Loading(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    call: int
    phase: str


class Started(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A replica that is ready: its socket's name in the host's directory, and what it can do."""

    call: int
    replica: str
    socket: str
    engine: str
    pid: int
    capabilities: list[str]
    dimension: int
    log: str


class StartFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    call: int
    error: dict[str, Any]


class Status(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    call: int
    status: dict[str, Any]


class Pong(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The host's loop turns."""


HostMessage: TypeAlias = Attached | Loading | Started | StartFailed | Status | Pong


# --- host and template ----------------------------------------------------------------------------


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Fork a replica. The replica's end of its connection to the host comes with the message.

    ``usage`` is the directory of usage logs.
    """

    replica: str
    spec: LoadSpec
    socket: str
    log: str
    usage: str


class Warm(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    seconds: float


class WarmFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    error: dict[str, Any]


class Forked(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    replica: str
    pid: int


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """``code`` as in :mod:`subprocess`: negative for a signal."""

    replica: str
    code: int


TemplateMessage: TypeAlias = Warm | WarmFailed | Forked | Exited


# --- host and replica -----------------------------------------------------------------------------


class AskStats(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    figures: bool = False


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    capabilities: list[str]
    context: int
    dimension: int
    seconds: float


class LoadFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    error: dict[str, Any]


class Stats(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Requests in the queue and in the engine, the engine's totals, and seconds: of the step that
    it is in (0 for none), and of the longest of the last ones. ``figures`` are the engine's own, if
    they were asked for: msgpack of :class:`~adjoin.functions.engines.families.Family`, which the
    host passes on as it is."""

    queued: int
    running: int
    totals: dict[str, int]
    step_s: float = 0.0
    longest_s: float = 0.0
    figures: bytes = b""


ReplicaMessage: TypeAlias = Ready | LoadFailed | Stats


# --- agent and replica ----------------------------------------------------------------------------


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Acknowledged by the request's last output."""

    id: str


CallMessage: TypeAlias = GenerateRequest | EmbedRequest | ScoreRequest | Abort


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one step of the engine made for one connection.

    ``last`` says that the engine is lost: the replica ends and takes no more calls.
    """

    outputs: list[Output]
    last: bool = False
