"""What every channel must do. A suite subclasses this and says how two ends are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from adjoin.errors import TransportError
from adjoin.transport import codec
from adjoin.transport.channel import Published, ValueChannel
from adjoin.transport.codec import Encoded
from adjoin.types import Generation, Passage


@dataclass
class Ends:
    """An owner with its table, and a channel of somebody else's."""

    published: Published
    owner: str
    channel: ValueChannel

    def publish(self, value: Any) -> str:
        return self.published.publish(codec.encode(value))

    async def fetch(self, id: str) -> Any:
        return codec.decode(await self.channel.fetch(id, self.owner))


def finder(published: Published) -> Any:
    def find(id: str) -> Encoded:
        if (value := published.find(id)) is None:
            raise TransportError("the value is gone")
        return value

    return find


_RNG = np.random.default_rng(7)
VALUES = {
    "none": None,
    "text": "ein Text, ä 文" * 3,
    "long text": "x" * 200_000,
    "bytes": b"",
    "long bytes": bytes(range(256)) * 1000,
    "structures": [Passage(f"p{n}", "text", "source", 0.5) for n in range(2000)],
    "generation": Generation(text="x" * 5000),
    "nested": {"a": [(1, 2.5, None), {"b": b"x" * 9000}], "c": np.arange(5000)},
    "many arrays": [np.full(n, n, np.float32) for n in range(3000)],
    "empty array": np.empty((0, 3), np.float32),
    "zero-dimensional": np.array(4.5),
    "text array": np.array(["a", "bcd"] * 9000),
    "big-endian": np.arange(40_000, dtype=">i4"),
    "megabytes": _RNG.random((1000, 1001)),
    "strided": _RNG.random((400, 400))[::2, ::-3],
    "fortran": np.asfortranarray(_RNG.random((300, 200))),
}


def check_equal(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            check_equal(one, other)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            check_equal(found[key], expected[key])
    else:
        assert found == expected


class ChannelContract:
    @classmethod
    def make(cls) -> AbstractAsyncContextManager[Ends]:
        raise NotImplementedError

    @pytest.fixture
    async def ends(self) -> AsyncIterator[Ends]:
        async with self.make() as ends:
            yield ends

    @pytest.mark.parametrize("kind", VALUES)
    async def test_a_value_comes_as_it_was(self, ends: Ends, kind: str) -> None:
        check_equal(await ends.fetch(ends.publish(VALUES[kind])), VALUES[kind])

    async def test_64_megabytes(self, ends: Ends) -> None:
        big = np.arange(2**23, dtype=np.int64)
        found = await ends.fetch(ends.publish(big))
        assert np.array_equal(found, big)

    async def test_arrow(self, ends: Ends) -> None:
        table = pa.table({"n": list(range(9000)), "text": ["a", None, "c"] * 3000})
        batch = table.to_batches()[0]
        found = await ends.fetch(ends.publish({"table": table, "batch": batch}))
        assert found["table"].equals(table)
        assert found["batch"].equals(batch)

    async def test_a_tensor_stays_a_tensor(self, ends: Ends) -> None:
        torch = pytest.importorskip("torch")
        for tensor in (torch.rand(300, 200).T, torch.ones(5, dtype=torch.bfloat16)):
            found = await ends.fetch(ends.publish([tensor]))
            assert found[0].dtype == tensor.dtype
            assert torch.equal(found[0], tensor)

    async def test_what_came_cannot_be_changed(self, ends: Ends) -> None:
        found = await ends.fetch(ends.publish({"a": np.zeros(100_000)}))
        with pytest.raises(ValueError, match="read-only"):
            found["a"][0] = 1

    async def test_a_value_outlives_its_publication(self, ends: Ends) -> None:
        ids = [ends.publish(np.full(200_000, 7.0)) for _ in range(2)]
        whole, view = await ends.fetch(ids[0]), (await ends.fetch(ids[1]))[10:20]
        ends.published.withdraw_all()
        for n in range(20):  # whatever memory was freed is used again
            assert (await ends.fetch(ends.publish(np.full(200_000, float(n)))))[0] == n
            ends.published.withdraw_all()
        assert (whole == 7).all()
        assert (view == 7).all()

    async def test_an_unknown_id_is_an_error(self, ends: Ends) -> None:
        old = ends.publish(np.zeros(50_000))
        ends.published.withdraw_all()
        for id in ("", "forged", "../../etc/passwd", old):
            with pytest.raises(TransportError):
                await ends.fetch(id)
        assert await ends.fetch(ends.publish("still works")) == "still works"

    async def test_an_unknown_owner_is_an_error(self, ends: Ends) -> None:
        id = ends.publish("x")
        with pytest.raises(TransportError):
            await ends.channel.fetch(id, "tcp://127.0.0.1:1")

    async def test_many_at_once(self, ends: Ends) -> None:
        arrays = [np.full(30_000, float(n)) for n in range(8)]
        ids = [ends.publish(array) for array in arrays] * 4
        found = await asyncio.gather(*(ends.fetch(id) for id in ids))
        for array, expected in zip(found, arrays * 4, strict=True):
            assert np.array_equal(array, expected)
