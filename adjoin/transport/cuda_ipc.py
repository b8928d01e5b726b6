"""The channel ``cuda_ipc``: memory of a GPU, read by another process of the machine where it lies.

It rides on the connection of ``shm``: instead of a position in a slab comes a handle, plain numbers
and bytes as torch makes them (``UntypedStorage._share_cuda_``), never a pickle. Torch counts who
has opened a handle, in shared memory of its own, and keeps the storage until all have closed it.

This was written against torch's source and has never been run: no machine with a GPU was there.
"""

from __future__ import annotations

import importlib
from typing import Any

import msgspec

from adjoin.errors import TransportError
from adjoin.transport.codec import DeviceBuffer


class Handle(msgspec.Struct, frozen=True):
    """What ``torch.UntypedStorage._new_shared_cuda`` takes, and which bytes of it are meant."""

    device: int
    handle: bytes
    size: int
    offset: int
    counter: bytes
    counter_offset: int
    event: bytes
    wait: bool
    start: int
    length: int


def share(buffer: DeviceBuffer) -> Handle:
    """A handle of a buffer that lies in a GPU's memory. Waits for what computes it."""
    tensor = buffer.tensor
    torch = importlib.import_module("torch")
    torch.cuda.current_stream(tensor.device).synchronize()
    device, handle, size, offset, counter, counter_offset, event, wait = (
        tensor.untyped_storage()._share_cuda_()
    )
    return Handle(
        device=device,
        handle=handle,
        size=size,
        offset=offset,
        counter=counter,
        counter_offset=counter_offset,
        event=event,
        wait=wait,
        start=tensor.storage_offset(),
        length=buffer.nbytes,
    )


def opened(handle: Handle) -> DeviceBuffer:
    """The buffer behind a handle.

    Raises:
        TransportError: this process sees no such GPU, or the handle makes no sense.
    """
    torch = importlib.import_module("torch")
    if handle.start < 0 or handle.length < 0 or handle.start + handle.length > handle.size:
        raise TransportError("a position outside of a GPU's storage")
    try:
        torch.cuda._lazy_init()
        storage = torch.UntypedStorage._new_shared_cuda(
            handle.device,
            handle.handle,
            handle.size,
            handle.offset,
            handle.counter,
            handle.counter_offset,
            handle.event,
            handle.wait,
        )
    except (RuntimeError, AssertionError) as error:
        raise TransportError(f"a GPU's memory cannot be opened: {error}") from None
    whole: Any = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return DeviceBuffer(whole.set_(storage, handle.start, (handle.length,)))
