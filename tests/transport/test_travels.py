"""What the graph says can travel is what the codec encodes: the two do not know each other."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import io
import pathlib
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NewType, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from pydantic import BaseModel

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import from_annotation
from adjoin.errors import TransportError
from adjoin.transport import codec
from adjoin.types import Generation, Message, Passage, ToolCall

torch: Any = pytest.importorskip("torch")


@dataclass
class Point:
    x: int


@dataclass
class Tree:
    label: str
    children: list[Tree]


@dataclass
class Dated:
    at: datetime.datetime


class Struct(msgspec.Struct):
    point: Point


class Model(BaseModel):
    x: int


class Pair(NamedTuple):
    left: int
    right: Point


class Record(TypedDict):
    x: float


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Text(str):
    pass


class Connection:
    pass


class Holds(msgspec.Struct):
    connection: Connection


UserId = NewType("UserId", int)
Objects = np.ndarray[Any, np.dtype[np.object_]]
Days = np.ndarray[Any, np.dtype[np.datetime64]]

TRAVEL: list[tuple[Any, Any]] = [
    *((str, "a"), (int, 1), (float, 1.5), (bool, True), (bytes, b"x"), (None, None)),
    *((bytearray, bytearray(b"x")), (memoryview, memoryview(b"x" * 5000))),
    *((list[int], [1]), (list[Point], [Point(1)]), (tuple[int, str], (1, "a"))),
    *((Sequence[str], ["a"]), (Mapping[str, int], {"a": 1}), (dict[int, str], {1: "a"})),
    *((str | None, None), (int | Point, Point(1)), (Literal["a", 1], "a"), (UserId, UserId(1))),
    *((Point, Point(1)), (Tree, Tree("a", [Tree("b", [])])), (Struct, Struct(Point(1)))),
    *((Model, Model(x=1)), (Pair, Pair(1, Point(2))), (Record, {"x": 1.0})),
    *((Level, Level.LOW), (Word, Word.YES), (Colour, Colour.RED), (Text, Text("a"))),
    (collections.OrderedDict, collections.OrderedDict(a=1)),
    (collections.Counter, collections.Counter("aab")),
    *((Passage, Passage("p", "t")), (Message, Message("user", "hi"))),
    *((list[Generation], [Generation(text="a")]), (ToolCall, ToolCall("f", {"a": 1}))),
    *((np.float32, np.float32(1)), (np.bool_, np.bool_(1)), (np.int64, np.int64(1))),
    (np.str_, np.str_("a")),
    (np.ndarray, np.zeros(3)),
    *((npt.NDArray[np.float16], np.zeros(3, "f2")), (npt.NDArray[np.uint8], np.zeros(3, "u1"))),
    (npt.NDArray[np.complex64], np.zeros(3, "c8")),
    *((npt.NDArray[np.str_], np.array(["a"])), (npt.NDArray[np.bytes_], np.array([b"a"]))),
    (pa.Table, pa.table({"a": [1]})),
    (pa.RecordBatch, pa.record_batch({"a": [1]})),
    (dict[str, torch.Tensor], {"t": torch.zeros(3)}),
]
STAY: list[tuple[Any, Any]] = [
    *((Connection, Connection()), (list[Connection], [Connection()])),
    *((Holds, Holds(Connection())), (dict[str, Connection], {"a": Connection()})),
    *((Connection | None, Connection()), (tuple[int, Connection], (1, Connection()))),
    *((set[int], {1}), (frozenset[str], frozenset("a")), (AbstractSet[int], {1})),
    *((complex, 1j), (decimal.Decimal, decimal.Decimal(1)), (fractions.Fraction, None)),
    *((datetime.datetime, datetime.datetime(2020, 1, 1)), (Dated, None)),
    *((pathlib.Path, pathlib.Path("a")), (uuid.UUID, uuid.UUID(int=1))),
    *((re.Pattern[str], re.compile("a")), (io.BytesIO, io.BytesIO())),
    *((Callable[[int], int], abs), (type[int], int), (threading.Event, threading.Event())),
    *((range, range(3)), (Exception, ValueError("a")), (collections.deque[int], None)),
    *((dict[float, str], {1.5: "a"}), (dict[bool, str], {True: "a"})),
    *((dict[Word, str], {Word.YES: "a"}), (dict[tuple[int, int], str], {(1, 2): "a"})),
    (dict[str | bytes, int], {b"a": 1}),
    *((Objects, np.array([object()])), (Days, np.array(["2020-01-01"], "M8[D]"))),
    (np.datetime64, np.datetime64("2020-01-01")),
    (npt.NDArray[np.void], np.zeros(2, [("a", int)])),
    *((pa.Array, pa.array([1])), (pa.Schema, pa.schema([])), (torch.nn.Module, torch.nn.ReLU())),
]
_MADE = {
    fractions.Fraction: fractions.Fraction(1, 2),
    Dated: Dated(datetime.datetime(2020, 1, 1)),
    collections.deque[int]: collections.deque([1]),
}


@pytest.mark.parametrize(("annotation", "value"), TRAVEL, ids=repr)
def test_what_may_be_on_an_edge_is_encoded(annotation: Any, value: Any) -> None:
    assert dt.confined(from_annotation(annotation)) is None
    codec.decode(codec.encode(value))


@pytest.mark.parametrize(("annotation", "value"), STAY, ids=repr)
def test_what_is_refused_on_an_edge_is_not_encoded(annotation: Any, value: Any) -> None:
    assert dt.confined(from_annotation(annotation)) is not None
    with pytest.raises(TransportError):
        codec.encode(_MADE.get(annotation, value) if value is None else value)


def test_a_named_tuple_comes_back_as_one() -> None:
    pair = Pair(1, Point(2))
    assert codec.restore(codec.decode(codec.encode(pair)), Pair) == pair
    assert codec.restore(codec.decode(codec.encode([pair])), list[Pair])[0].right == Point(2)
