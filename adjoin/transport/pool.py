"""Shared memory of one process: slabs in size classes, reused, counted, within a budget.

A slab is a memfd, so it has no name: when the last process that maps it is gone, the kernel frees
it. It is allocated before it is mapped, so that lack of memory is an error and never a SIGBUS, and
sealed so that nobody can resize it and no process but its maker can ever map it for writing.
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

#: The smallest slab; anything smaller wastes more in descriptors than it saves in memory.
SMALLEST = 64 * 1024
#: Each slab costs two descriptors here and one in each process that maps it.
MOST_SLABS = 128
#: Linux 5.1: later mappings and writes are refused, the ones that exist go on. fcntl has no name.
_F_SEAL_FUTURE_WRITE = 0x0010
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Slab:
    """A piece of shared memory, mapped for writing here. ``holders`` is the pool's business."""

    def __init__(self, id: int, size: int) -> None:
        """Raises OSError when there is not enough memory."""
        self.id = id
        self.size = size
        self.holders = 0
        self.array: Callable[[], np.ndarray[Any, Any] | None] = _nothing
        writable = os.memfd_create("adjoin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(writable, 0, size)
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            self.memory = mmap.mmap(writable, size, flags=flags)
            _seal(writable)
            name = f"/proc/self/fd/{writable}"
            self.fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writable)
        self._close = weakref.finalize(self, os.close, self.fd)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def close(self) -> None:
        """Give back the descriptor. The memory goes when nothing here views it any more."""
        self._close()


def _seal(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS | _F_SEAL_FUTURE_WRITE)
    except OSError:  # an older kernel; what is sent is open for reading only in any case
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def _nothing() -> None:
    return None


class Pool:
    """Slabs that are held, and free ones for reuse, together never more than ``budget`` bytes.

    ``take``, ``hold`` and ``at`` may be called from any thread, ``drop`` also from a finalizer.

    Args:
        make: makes a slab from its id and size; raises OSError when there is no memory.
        evicted: told of each slab that is freed for good; called under the pool's lock.
    """

    def __init__(
        self,
        budget: int,
        make: Callable[[int, int], Slab] = Slab,
        evicted: Callable[[Slab], None] = Slab.close,
    ) -> None:
        self.budget = budget
        self.evicted = evicted
        self.taken: dict[int, Slab] = {}
        self.free: dict[int, Slab] = {}  # the longest unused first
        self._make = make
        self._made = 0
        self._closed = False
        self._lock = threading.Lock()
        # A finalizer can run anywhere, even inside of the lock: it only appends here.
        self._dropped: deque[Slab] = deque()

    @property
    def nbytes(self) -> int:
        """Of all slabs, held and free."""
        return sum(slab.size for slab in (*self.taken.values(), *self.free.values()))

    def take(self, nbytes: int) -> Slab | None:
        """A slab of at least ``nbytes``, held once; None when the budget or memory is used up."""
        size = class_of(nbytes)
        with self._lock:
            self._settle()
            if (slab := self._reusable(size)) is None:
                slab = self._new(size)
            if slab is not None:
                slab.holders = 1
                self.taken[slab.id] = slab
            return slab

    def hold(self, slab: Slab) -> None:
        """Count another holder of a slab that is held already."""
        with self._lock:
            slab.holders += 1

    def drop(self, slab: Slab) -> None:
        """One holder less; takes effect with the next call of another method."""
        if not self._closed:
            self._dropped.append(slab)

    def settle(self) -> None:
        """Make what was dropped free."""
        with self._lock:
            self._settle()

    def at(self, address: int, nbytes: int) -> Slab | None:
        """The slab that the memory lies wholly in, held once more; None if it lies in no slab."""
        with self._lock:
            for slab in self.taken.values():
                if slab.address <= address and address + nbytes <= slab.address + slab.size:
                    slab.holders += 1
                    return slab
        return None

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | None:
        """An uninitialised array in a slab that is held as long as a view of it lives.

        None when there is no room.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if (slab := self.take(nbytes)) is None:
            return None
        whole = np.frombuffer(slab.memory, np.uint8)
        when_unused(whole, self.drop, slab)
        array: np.ndarray[Any, Any] = whole[:nbytes].view(dtype).reshape(shape)
        slab.array = weakref.ref(array)
        return array

    def close(self) -> None:
        """Free everything; views that still live keep their own memory."""
        with self._lock:
            self._closed, self.budget = True, 0
            self._dropped.clear()
            for slab in (*self.taken.values(), *self.free.values()):
                self.evicted(slab)
            self.taken.clear()
            self.free.clear()

    def _settle(self) -> None:
        while self._dropped:
            slab = self._dropped.popleft()
            slab.holders -= 1
            if slab.holders == 0 and self.taken.pop(slab.id, None) is not None:
                slab.array = _nothing
                self.free[slab.id] = slab

    def _reusable(self, size: int) -> Slab | None:
        """The free slab of this size that was used last: its pages are likeliest in a cache."""
        for slab in reversed(self.free.values()):
            if slab.size == size:
                return self.free.pop(slab.id)
        return None

    def _new(self, size: int) -> Slab | None:
        while self.free and not self._fits(size):
            self._evict()
        if not self._fits(size):
            return None
        self._made += 1
        try:
            return self._make(self._made, size)
        except OSError:
            return None

    def _fits(self, size: int) -> bool:
        count = len(self.taken) + len(self.free)
        return self.nbytes + size <= self.budget and count < MOST_SLABS

    def _evict(self) -> None:
        self.evicted(self.free.pop(next(iter(self.free))))


def class_of(nbytes: int) -> int:
    """The size of the slab for so many bytes: four classes between powers of two, as jemalloc has,
    so that at most a fifth of a slab is unused. All are whole pages."""
    if nbytes <= SMALLEST:
        return SMALLEST
    step = 1 << ((nbytes - 1).bit_length() - 3)
    return -(-nbytes // step) * step


def when_unused(base: np.ndarray[Any, Any], call: Callable[..., Any], *args: Any) -> None:
    """Call when the last view of an array over foreign memory is gone.

    ``base`` must come from ``numpy.frombuffer``: numpy gives each view of it that very array as its
    base, so it lives as long as any of them. At the end of the process the kernel does the rest.
    """
    weakref.finalize(base, call, *args).atexit = False
