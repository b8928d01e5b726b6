"""Slabs: what is held is never given out again, and the budget holds whatever is asked for."""

from __future__ import annotations

import gc
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from adjoin.transport import pool as pools
from adjoin.transport.pool import SMALLEST, Pool, Slab, class_of

BUDGET = 16 * SMALLEST


class FakeSlab(Slab):
    """Has an address and no memory."""

    next_address = 0

    def __init__(self, id: int, size: int) -> None:
        self.id, self.size, self.holders = id, size, 0
        self.array = lambda: None
        self.address = FakeSlab.next_address
        FakeSlab.next_address += size + 4096


@given(st.integers(0, 2**44))
def test_a_class_has_room_for_its_bytes_and_wastes_little(nbytes: int) -> None:
    size = class_of(nbytes)
    assert size >= nbytes
    assert size % mmap.PAGESIZE == 0
    assert size == class_of(size)
    assert size <= max(SMALLEST, nbytes * 1.25)


@given(st.integers(0, 2**44), st.integers(0, 2**44))
def test_classes_grow_with_the_bytes(one: int, other: int) -> None:
    assert class_of(min(one, other)) <= class_of(max(one, other))


class PoolMachine(RuleBasedStateMachine):
    """Against a plain count of holders."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.evicted: set[int] = set()
        self.holders: dict[int, int] = {}
        self.slabs: dict[int, Slab] = {}
        self.pool = Pool(BUDGET, FakeSlab, lambda slab: self.evicted.add(slab.id))

    @rule(target=held, nbytes=st.integers(0, 20 * SMALLEST))
    def take(self, nbytes: int) -> Any:
        live = sum(self.slabs[id].size for id, count in self.holders.items() if count)
        slab = self.pool.take(nbytes)
        if slab is None:
            assert live + class_of(nbytes) > BUDGET, "there was room"
            return multiple()
        assert self.holders.get(slab.id, 0) == 0, "it is in use"
        assert slab.id not in self.evicted, "it is gone"
        assert slab.size >= nbytes
        self.holders[slab.id] = 1
        self.slabs[slab.id] = slab
        return slab.id

    @rule(target=held, id=held)
    def hold(self, id: int) -> int:
        self.pool.hold(self.slabs[id])
        self.holders[id] += 1
        return id

    @rule(target=held, id=held, share=st.floats(0, 1), nbytes=st.integers(1, SMALLEST))
    def find(self, id: int, share: float, nbytes: int) -> int:
        slab = self.slabs[id]
        address = slab.address + int(share * (slab.size - nbytes))
        assert self.pool.at(address, nbytes) is slab
        assert self.pool.at(address, slab.size + 1) is None
        self.holders[id] += 1
        return id

    @rule(id=consumes(held))
    def drop(self, id: int) -> None:
        self.pool.drop(self.slabs[id])
        self.holders[id] -= 1

    @invariant()
    def within_the_budget_and_nothing_in_use_gone(self) -> None:
        assert self.pool.nbytes <= BUDGET
        self.pool.settle()
        live = {id for id, count in self.holders.items() if count}
        assert self.pool.taken.keys() == live
        assert not live & self.evicted
        assert not live & self.pool.free.keys()


TestPool = PoolMachine.TestCase


def test_a_slab_is_used_again() -> None:
    pool = Pool(BUDGET)
    array = pool.empty((SMALLEST,), np.dtype("u1"))
    assert array is not None
    address = array.__array_interface__["data"][0]
    view = array[10:20]
    del array
    assert pool.at(address, 1) is not None  # the view holds it, and now this does
    pool.drop(next(iter(pool.taken.values())))
    del view
    again = pool.empty((SMALLEST,), np.dtype("u1"))
    assert again is not None
    assert again.__array_interface__["data"][0] == address
    pool.close()


def test_the_number_of_slabs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MOST_SLABS", 3)
    pool = Pool(2**30, FakeSlab, lambda slab: None)
    assert [pool.take(1) is None for _ in range(4)] == [False, False, False, True]


def test_no_memory_is_no_slab() -> None:
    def make(id: int, size: int) -> Slab:
        raise OSError(28, "no space")

    assert Pool(BUDGET, make).take(1) is None


def test_nobody_else_can_write_or_resize() -> None:
    slab = Slab(1, SMALLEST)
    with pytest.raises(PermissionError):
        mmap.mmap(slab.fd, SMALLEST)
    anew = os.open(f"/proc/self/fd/{slab.fd}", os.O_RDWR)
    with pytest.raises(OSError):  # it is sealed
        mmap.mmap(anew, SMALLEST)
    os.close(anew)
    with pytest.raises(OSError):
        os.truncate(f"/proc/self/fd/{slab.fd}", 0)
    slab.close()


def test_nothing_is_left_when_a_pool_closes() -> None:
    before = _slabs_open()
    pool = Pool(2**26)
    arrays = [pool.empty((SMALLEST * n,), np.dtype("u1")) for n in range(1, 9)]
    pool.close()
    del arrays
    gc.collect()
    assert _slabs_open() == before


def _slabs_open() -> int:
    """Descriptors of this process that are slabs; others may come and go with other tests."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found += str(descriptor.readlink()).startswith("/memfd:adjoin")
    return found
