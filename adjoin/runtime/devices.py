"""The CUDA devices of this process, as the driver tells them; none where there is no driver."""

from __future__ import annotations

import importlib
import os
from typing import Any

from adjoin.runtime.protocol import Device


def devices() -> tuple[Device, ...]:
    """Those that ``CUDA_VISIBLE_DEVICES`` names (dask-cuda gives each worker its own first), or
    all of the machine, if ``pynvml`` is installed. Starts no CUDA in this process."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        every = ",".join(str(at) for at in range(nvml.nvmlDeviceGetCount()))
        ids = (every if named is None else named).split(",")
        return tuple(Device(id, _memory(nvml, id)) for id in ids if id not in ("", "-1"))
    finally:
        nvml.nvmlShutdown()


def _memory(nvml: Any, id: str) -> int:
    try:
        if id.isdigit():
            handle = nvml.nvmlDeviceGetHandleByIndex(int(id))
        else:
            handle = nvml.nvmlDeviceGetHandleByUUID(id)
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        return 0
