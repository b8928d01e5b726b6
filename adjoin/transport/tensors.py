"""Torch tensors as a buffer: shape, type and kind of device beside plain memory.

A tensor cannot be made read-only, and writing to memory that is mapped for reading would end the
process. So a tensor of the host's memory arrives as a copy that belongs to who fetched it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from adjoin.errors import TransportError
from adjoin.transport.codec import DeviceBuffer

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
    )
}


def flatten(value: Any) -> tuple[list[Any], Any]:
    """Type, shape and device of a tensor, and its memory.

    Raises:
        TransportError: it is no dense tensor of plain numbers in the memory of a host or a GPU.
    """
    if type(value).__name__ not in ("Tensor", "Parameter") or not _is_dense(value):
        raise TransportError(
            f"a torch {type(value).__name__} cannot travel", hint="make a dense tensor of it"
        )
    name, device = str(value.dtype).removeprefix("torch."), value.device.type
    if name not in _DTYPES or device not in ("cpu", "cuda"):
        raise TransportError(f"a tensor of {name} on device {device!r} cannot travel")
    plain = value.detach().resolve_conj().resolve_neg()
    flat = plain.contiguous().reshape(-1).view(torch.uint8)
    buffer = DeviceBuffer(flat) if device == "cuda" else flat.numpy().data
    return [name, list(value.shape), device], buffer


def _is_dense(value: Any) -> bool:
    return bool(not value.is_quantized and value.layout == torch.strided)


def revive(buffer: Any, name: str, shape: list[Any], device: str) -> Any:
    """The inverse of :func:`flatten`."""
    dtype = _DTYPES[name]
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"bad shape {shape!r}")
    if isinstance(buffer, DeviceBuffer):
        flat = buffer.tensor
    else:
        flat = torch.from_numpy(np.frombuffer(buffer, np.uint8).copy())
    if flat.numel() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{flat.numel()} bytes for a tensor of {name} and shape {shape}")
    if not flat.numel():  # numpy's empty arrays have a stride that torch refuses to view
        flat = torch.empty(0, dtype=torch.uint8, device=flat.device)
    if device == "cuda" and not isinstance(buffer, DeviceBuffer):
        if not torch.cuda.is_available():
            raise TransportError("the value is a tensor of a GPU, and there is none here")
        flat = flat.to("cuda")
    return flat.view(dtype).reshape(shape)
