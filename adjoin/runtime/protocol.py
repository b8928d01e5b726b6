"""What drivers and agents say to each other.

Three kinds of conversation, each over one connection:

* a segment: the driver opens it, feeds it values made elsewhere, and closes it when the run ends;
  whatever the agent holds for the segment lives exactly as long as the connection;
* a draft: changes to a collection, staged until they are committed, dropped with the connection;
* a call: one request, one reply.
"""

from __future__ import annotations

from typing import Any

import msgspec

from adjoin.dag import ModelSpec
from adjoin.functions.engines.base import Account
from adjoin.runtime.policies.budget import Budget
from adjoin.transport.codec import Encoded
from adjoin.types import Body, Passage, Usage


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all messages."""


class Ref(msgspec.Struct, frozen=True, tag=True):
    """Where a value is that did not fit into a message: opaque, valid while its segment is open.

    It is bound to its run: the owner looks it up by the name that it has for whoever asks, and a
    run that got hold of another one's reference gets nothing.

    Attributes:
        id: random; resolved by the owner in a table bound to the segment.
        owner: address of the agent that holds the value.
        nbytes: size of the encoded value.
        kept: the value cannot leave its process; segments of the run there get it as it is.
    """

    id: str
    owner: str
    nbytes: int
    kept: bool = False

    def seen_by(self, run: str) -> str:
        """The name under which a run asks the owner for the value."""
        return f"{run}/{self.id}"


class StreamRef(msgspec.Struct, frozen=True, tag=True):
    """Where a value is that is still being made; its pieces are taken from there one by one.

    Attributes:
        id: random; resolved by the owner in a table bound to the segment.
        owner: address of the agent whose stage makes them.
    """

    id: str
    owner: str


#: A recorded result: the value itself when it is small, or where it is.
Value = Encoded | Ref


class Open(Message, frozen=True, kw_only=True):
    """Run these stages. ``attempts`` gives the attempt number of each, ``exports`` the stages whose
    results are needed outside, ``readers`` the stages that will read one's result while it is made,
    ``graph`` the version of a graph that the agent may already know, ``account`` whom the run is
    counted for, and ``budgets`` what is left for it."""

    run: str
    graph: str
    attempts: dict[str, int]
    exports: list[str]
    inputs: Encoded
    readers: dict[str, list[str]] = {}
    streaming: bool = False
    account: Account = Account()
    budgets: tuple[Budget, ...] = ()


class Define(Message, frozen=True, kw_only=True):
    """The graph that the agent asked for. ``functions`` maps refs to cloudpickled functions."""

    graph: bytes
    functions: dict[str, bytes]


class Feed(Message, frozen=True, kw_only=True):
    """The result of a stage that ran elsewhere, or where it is being made."""

    stage: str
    value: Value | StreamRef
    skipped: bool = False


class Retry(Message, frozen=True, kw_only=True):
    """Run a stage again, as this attempt; if it is running, stop that first."""

    stage: str
    attempt: int
    readers: list[str] = []


class Close(Message, frozen=True, kw_only=True):
    """Abort what runs and free what is held."""


class NeedGraph(Message, frozen=True, kw_only=True):
    """The agent does not know the graph yet."""


class Happened(Message, frozen=True, kw_only=True):
    """Something to show: a stage started, tokens, progress.

    ``place`` is the stage, or a call below it such as ``solve[3]``, and ``tries`` that call's
    attempt. ``at`` is when, in seconds since the agent was told to open the segment: messages may
    linger on their way.
    """

    stage: str
    attempt: int
    place: str
    tries: int
    body: Body
    at: float = 0.0


class Streaming(Message, frozen=True, kw_only=True):
    """A stage has started to make its result piece by piece."""

    stage: str
    attempt: int
    ref: StreamRef


class Done(Message, frozen=True, kw_only=True):
    """A stage ended well; ``value`` is absent when only its own segment needs it.

    ``nbytes`` is about the size of its result; ``at`` as in :class:`Happened`.
    """

    stage: str
    attempt: int
    usage: Usage
    value: Value | None = None
    skipped: bool = False
    nbytes: int = 0
    at: float = 0.0


class Failed(Message, frozen=True, kw_only=True):
    stage: str
    attempt: int
    error: dict[str, Any]


class Pulled(Message, frozen=True, kw_only=True):
    """The result of a stage was fetched from where it was made, in this many seconds."""

    stage: str
    nbytes: int
    seconds: float


class PullFailed(Message, frozen=True, kw_only=True):
    """A reference could not be resolved, or a stream not be read from its beginning to its end:
    its owner is gone, or has dropped it. What needs it waits for another one."""

    stage: str
    ref: str


class Closed(Message, frozen=True, kw_only=True):
    """Everything of the segment is freed: the driver said so, or all stages are done and nothing
    is held. The connection is there for the next :class:`Open`."""


# --- drafts ---


class Begin(Message, frozen=True, kw_only=True):
    """Change a collection, made with this embedding model if it is new.

    The reply is :class:`Begun`.
    """

    collection: str
    embedding: str
    spec: ModelSpec


class Begun(Message, frozen=True, kw_only=True):
    """``sources`` maps each source in the collection to the digest of its content."""

    embedding: str
    sources: dict[str, str]


class Add(Message, frozen=True, kw_only=True):
    """Embed and stage these; the reply is :class:`Staged`."""

    passages: list[Passage]


class Staged(Message, frozen=True, kw_only=True):
    passages: int
    usage: Usage


class Commit(Message, frozen=True, kw_only=True):
    """Drop ``remove``, apply what is staged, note ``sources``, store; the reply is a ``Reply``."""

    sources: dict[str, str]
    remove: list[str]


# --- calls ---


class Pull(Message, frozen=True, kw_only=True):
    """The value behind a reference, as :meth:`Ref.seen_by` the run that asks; the reply's buffers
    are the value's."""

    ref: str


class Take(Message, frozen=True, kw_only=True):
    """The pieces of a stream from this position on, as soon as there are some; those before it
    have arrived. The reply is :class:`Taken`."""

    run: str
    ref: str
    reader: str
    position: int


class Taken(Message, frozen=True, kw_only=True):
    """Pieces of a stream. ``ended``: there are no others."""

    pieces: list[Value]
    ended: bool


class Leave(Message, frozen=True, kw_only=True):
    """A reader needs no more of a stream."""

    run: str
    ref: str
    reader: str


class Search(Message, frozen=True, kw_only=True):
    """The nearest passages to a text or a vector (an encoded array)."""

    collection: str
    k: int
    text: str = ""
    vector: Encoded | None = None


class Probe(Message, frozen=True, kw_only=True):
    """Fetch values of so many bytes from another agent, and say how long that took."""

    peer: str
    sizes: tuple[int, ...]
    repeats: int


class Describe(Message, frozen=True, kw_only=True):
    """Collections that are stored: one, or all when the name is empty."""

    collection: str = ""


class Drop(Message, frozen=True, kw_only=True):
    collection: str


class Prepare(Message, frozen=True, kw_only=True):
    """Start loading these models."""

    models: dict[str, ModelSpec]


class HostStatus(Message, frozen=True, kw_only=True):
    """Ask the host what it runs; with ``figures``, what its engines tell Prometheus too."""

    figures: bool = False


class FetchUsage(Message, frozen=True, kw_only=True):
    """What is new in the usage logs of the agent's machine; ``acknowledged`` says, by file, up to
    which offset they are kept. The reply is the pieces, as msgpack."""

    acknowledged: dict[str, int]


class ShutDownHost(Message, frozen=True, kw_only=True):
    """End the host, its templates and its replicas."""


class Watch(Message, frozen=True, kw_only=True):
    """Tell me about yourself, and again whenever it changes, and a sign of life each ``beat_s``
    seconds; 0 for none. The answers are :class:`About` and :class:`Alive`."""

    beat_s: float = 0.0


class Alive(Message, frozen=True, kw_only=True):
    """The worker's event loop turns."""


class Device(msgspec.Struct, frozen=True):
    """A CUDA device of a worker; ``memory`` in bytes, 0 when it is not known."""

    id: str
    memory: int = 0


class About(Message, frozen=True, kw_only=True):
    """A worker: ``collections`` it has open with their bytes on the disk, ``models`` loaded for it,
    ``memory`` in bytes (0 when it has no limit), Dask's abstract ``resources``."""

    name: str
    host: str
    pid: int
    threads: int
    collections: dict[str, int]
    memory: int = 0
    resources: dict[str, float] = {}
    devices: tuple[Device, ...] = ()
    models: tuple[str, ...] = ()


class Reply(Message, frozen=True, kw_only=True):
    """The answer to a call. ``value`` is plain data or an encoded value."""

    value: Encoded


class Refused(Message, frozen=True, kw_only=True):
    """The call failed."""

    error: dict[str, Any]


FromDriver = Open | Define | Feed | Retry | Close
FromAgent = NeedGraph | Happened | Streaming | Done | Failed | Pulled | PullFailed | Closed
FromWatched = About | Alive
Call = (
    Pull
    | Take
    | Leave
    | Search
    | Probe
    | Describe
    | Drop
    | HostStatus
    | FetchUsage
    | ShutDownHost
    | Watch
)
OfDraft = Begin | Add | Commit | Close
ToDraft = Begun | Staged | Reply | Refused
Answer = Reply | Refused
AnswerToTake = Taken | Refused

_encoder = msgspec.msgpack.Encoder()


def pack(message: Message) -> bytes:
    return _encoder.encode(message)
