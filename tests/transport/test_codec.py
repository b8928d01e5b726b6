"""What is encoded comes back as it was; what cannot travel says so; damage is detected."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from adjoin.errors import TransportError
from adjoin.transport.codec import Encoded, decode, encode, restore
from adjoin.types import Alternative, Generation, Message, Passage, Token, Usage

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=10_000)
)
STRUCTS = (
    st.builds(Passage, st.text(), st.text(), st.text(), st.floats(allow_nan=False))
    | st.builds(Message, st.text(), st.text())
    | st.builds(Token, st.text(), st.tuples(st.integers(0, 9), st.integers(0, 9)))
    | st.builds(
        Token,
        st.text(),
        top=st.lists(st.builds(Alternative, st.text(), st.floats(-9, 0)), max_size=2).map(tuple),
    )
    | st.builds(Usage, prompt=st.integers(0, 99))
    | st.builds(Generation, text=st.text())
)
VALUES = st.recursive(
    SCALARS | STRUCTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=20,
)
DTYPES = st.sampled_from(["f4", "f8", "i8", "u1", "?", "c8", "<U3", "S2"])


@given(VALUES)
def test_values_come_back_with_their_types(value: Any) -> None:
    found = decode(encode(value))
    assert found == value
    assert repr(found) == repr(value)


@given(DTYPES.flatmap(lambda d: arrays.arrays(d, arrays.array_shapes(min_dims=0, min_side=0))))
def test_arrays_come_back_in_shape_and_cannot_be_changed(array: np.ndarray[Any, Any]) -> None:
    found = decode(encode({"a": [array]}))["a"][0]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable


def test_arrays_travel_uncopied() -> None:
    array = np.arange(10_000, dtype=np.float32)
    encoded = encode(array)
    assert np.shares_memory(np.frombuffer(encoded.buffers[0], np.float32), array)
    assert np.shares_memory(decode(encoded), array)
    assert encoded.nbytes >= array.nbytes


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Inner:
    value: int


@dataclasses.dataclass
class Outer:
    inner: Inner
    many: list[Inner]


class Record(msgspec.Struct):
    name: str
    inner: Inner


class Pair(NamedTuple):
    left: int
    right: Inner


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Outer(Inner(1), [Inner(2)]), Outer),
        ([Record("a", Inner(3))], list[Record]),
        ({"x": Inner(4)}, dict[str, Inner]),
        ([Pair(1, Inner(2))], list[Pair]),
        ({"c": Colour.RED}, dict[str, Colour]),
        ("plain", str),
        ([1, 2], None),
    ],
)
def test_types_of_the_user_are_restored_by_annotation(value: Any, annotation: Any) -> None:
    found = restore(decode(encode(value)), annotation)
    assert found == value
    assert repr(found) == repr(value)


@pytest.mark.parametrize("value", [np.float32(1.5), np.int64(3), np.True_, np.str_("a")], ids=repr)
def test_scalars_of_numpy_stay_scalars(value: Any) -> None:
    (found,) = decode(encode([value]))
    assert type(found) is type(value)
    assert found == value


def test_an_enumerations_member_travels_as_its_value() -> None:
    assert decode(encode([Colour.RED])) == ["red"]


class Opaque:
    pass


@pytest.mark.parametrize(
    "value",
    [Opaque(), {1, 2}, 2**70, {(1, 2): 3}, np.array([object()]), "\ud800", lambda: None],
    ids=repr,
)
def test_what_cannot_travel_says_so(value: Any) -> None:
    with pytest.raises(TransportError):
        encode({"key": [value]})


def test_depth_is_bounded() -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    with pytest.raises(TransportError, match="levels deep"):
        encode(value)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(TransportError):
        decode(Encoded(data, (b"abcd",)))


@pytest.mark.parametrize("dtype", ["O", "V8", "M8[s]", "nonsense"])
def test_a_dtype_that_is_not_plain_memory_is_refused(dtype: str) -> None:
    form = msgspec.msgpack.encode([dtype, [1], 0])
    header = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, form))
    with pytest.raises(TransportError):
        decode(Encoded(header, (b"\0" * 8,)))


@pytest.mark.parametrize("shape", [[2], [-1], [2**62, 2**62], [1, 1, 1, 5]])
def test_a_shape_that_does_not_fit_is_refused(shape: list[int]) -> None:
    form = msgspec.msgpack.encode(["<f4", shape, 0])
    header = msgspec.msgpack.encode(msgspec.msgpack.Ext(1, form))
    with pytest.raises(TransportError):
        decode(Encoded(header, (b"\0" * 4,)))
