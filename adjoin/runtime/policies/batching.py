"""Which waiting requests enter an engine, and which are refused at the queue's door. Pure.

The backlog waits in the replica's queue, never inside the engine: there it can be withdrawn for
nothing, and every request sees the same few neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from adjoin.errors import Overloaded
from adjoin.functions.engines.base import GenerateRequest, Request

#: Two blocks of 32 tokens at four characters: for less, waiting for another gains nothing.
_SHARED_CHARACTERS = 256


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """``capacity``: sequences in the engine at once. ``queue``: requests that may wait."""

    capacity: int
    queue: int = 1024


class Waiting(NamedTuple):
    """A request in the queue: the sequences it occupies, and its :func:`shared_prompt`."""

    size: int
    prompt: bytes = b""


def weight(request: Request) -> int:
    """Sequences that a request occupies: its samples, or its texts."""
    if isinstance(request, GenerateRequest):
        return max(1, request.sampling.n)
    return max(1, len(request.texts))


def shared_prompt(request: Request) -> bytes:
    """Equal for requests whose prompts are the same tokens and may share their attention state.

    Empty where the prompt is too short for that to matter.
    """
    if not isinstance(request, GenerateRequest):
        return b""
    prompt = request.prompt
    texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    if sum(map(len, texts)) < _SHARED_CHARACTERS:
        return b""
    parts = [request.salt, request.raw, prompt, request.tools]
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()


def admit(
    waiting: Sequence[Waiting],
    running: int,
    limits: Limits,
    *,
    prefilling: Collection[bytes] = (),
    computed: Collection[bytes] = (),
) -> list[int]:
    """The positions in the queue of the requests that enter now, in order.

    First come, first served: a wide request is not overtaken for ever by narrow ones. One that is
    wider than the whole engine enters when it has the engine to itself. Of requests with the same
    prompt one computes it while the others wait for its first token, and are overtaken for so long:
    then they find the prompt computed.

    Args:
        waiting: in order of arrival.
        running: the size of all that is inside.
        prefilling: the prompts of those inside that have no token yet.
        computed: the prompts of those that have one.
    """
    entering: list[int] = []
    busy = set(prefilling) - set(computed)
    for at, (size, prompt) in enumerate(waiting):
        if prompt and prompt in busy:
            continue
        if running and running + size > limits.capacity:
            break
        running += size
        entering.append(at)
        if prompt and prompt not in computed:
            busy.add(prompt)
    return entering


def refusal(waiting: int, limits: Limits) -> Overloaded | None:
    """Why one more request may not wait, or None when it may."""
    if waiting < limits.queue:
        return None
    return Overloaded(
        f"{waiting} requests wait for this model, which is the most allowed",
        hint="try again later, or run fewer at once",
        waiting=waiting,
    )
