"""Values as bytes, without pickle.

A value becomes a msgpack header and raw buffers. Arrays and long byte strings go into the buffers
uncopied; everything else is in the header, so that decoding needs no type from the sender and gives
back what was encoded: a tuple stays a tuple, a :class:`~adjoin.types.Passage` a passage. Types of
the user (dataclasses, structures, pydantic models, named tuples, enumerations) travel as plain data
and are restored with the producing function's annotation (:func:`restore`).

Arrow tables travel in Arrow's own format, torch tensors as arrays with a mark; their libraries are
imported only where a value of theirs is.

The decoder knows these forms and no others; it never falls back to a more powerful format.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
from typing import Any

import msgspec
import numpy as np

from adjoin import types
from adjoin.errors import TransportError

_ARRAY, _STRUCT, _TUPLE, _BYTES = 1, 2, 3, 4
#: Forms of libraries that may not be there: the number, the library, and the module that knows it.
_TABLE, _TENSOR = 5, 6
#: A scalar of numpy, as an array without dimensions.
_SCALAR = 7
_ADAPTERS = {"pyarrow": "adjoin.transport.tables", "torch": "adjoin.transport.tensors"}
#: Byte strings from this size on travel as buffers.
_OUT_OF_BAND = 4096
_MAX_DEPTH = 64
#: Kinds of arrays that are plain memory: bool, integers, floats, complex, fixed-width text.
PLAIN_DTYPES = frozenset("biufcSU")

_STRUCTS: dict[str, type[msgspec.Struct]] = {
    kind.__name__: kind
    for kind in (
        types.Passage,
        types.Message,
        types.Token,
        types.Alternative,
        types.Usage,
        types.Generation,
        types.ToolCall,
        types.Reply,
    )
}
_BASES: tuple[type[Any], ...] = (int, float, str, list, dict)
_SCALARS = (str, int, float, bool, type(None))


class DeviceBuffer:
    """A flat ``uint8`` tensor in a GPU's memory that takes the place of a buffer."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    @property
    def nbytes(self) -> int:
        return int(self.tensor.numel())

    def __bytes__(self) -> bytes:
        return bytes(self.tensor.cpu().numpy())


class Encoded(msgspec.Struct, frozen=True, tag=True, weakref=True):
    """An encoded value: the header, and the buffers it refers to by position."""

    header: bytes
    buffers: tuple[Any, ...] = ()

    @property
    def nbytes(self) -> int:
        return len(self.header) + sum(_nbytes(buffer) for buffer in self.buffers)


def on_host(buffers: tuple[Any, ...]) -> tuple[Any, ...]:
    """The buffers, those of a GPU copied into this process."""
    return tuple(bytes(each) if isinstance(each, DeviceBuffer) else each for each in buffers)


def _nbytes(buffer: Any) -> int:
    return buffer.nbytes if isinstance(buffer, DeviceBuffer) else memoryview(buffer).nbytes


def encode(value: Any) -> Encoded:
    """Encode a value.

    Raises:
        TransportError: the value, or something in it, has a type that cannot travel.
    """
    buffers: list[bytes | bytearray | memoryview | DeviceBuffer] = []
    try:
        header = msgspec.msgpack.encode(_flatten(value, buffers, 0))
    except (OverflowError, TypeError, UnicodeEncodeError) as error:
        raise TransportError(f"a value cannot be encoded: {error}") from None
    return Encoded(header, tuple(buffers))


def decode(encoded: Encoded) -> Any:
    """The inverse of :func:`encode`; arrays are read-only views of the buffers.

    Raises:
        TransportError: the bytes are not an encoded value.
    """
    try:
        return _Reviver(encoded.buffers).decode(encoded.header)
    except (msgspec.DecodeError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise TransportError(f"damaged value: {error}") from None


def restore(value: Any, annotation: Any) -> Any:
    """Give a decoded value the type of ``annotation`` where plain data lost it.

    Only annotations that are dataclasses, structures or typed dictionaries, or containers of them,
    change anything; an annotation that msgspec does not know leaves the value as it is.
    """
    if annotation is None or not _has_user_type(annotation):
        return value
    if hasattr(annotation, "model_validate"):
        return annotation.model_validate(value)
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise TransportError(f"a value does not fit its declared type: {error}") from None
    except TypeError:
        return value


def _flatten(value: Any, buffers: list[Any], depth: int) -> Any:
    """The msgpack form of a value, its arrays moved to ``buffers``."""
    if depth > _MAX_DEPTH:
        raise TransportError(f"a value is nested more than {_MAX_DEPTH} levels deep")
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is list:
        return [_flatten(item, buffers, depth + 1) for item in value]
    if kind is dict:
        return {_key(key): _flatten(item, buffers, depth + 1) for key, item in value.items()}
    if isinstance(value, tuple):
        return _extension(_TUPLE, [_flatten(item, buffers, depth + 1) for item in value])
    if isinstance(value, np.ndarray):
        return _flatten_array(value, buffers)
    if isinstance(value, np.generic):
        return _extension(_SCALAR, _flatten_array(np.asarray(value), buffers))
    if isinstance(value, bytes | bytearray | memoryview):
        return _flatten_bytes(value, buffers)
    if kind.__name__ in _STRUCTS and kind is _STRUCTS[kind.__name__]:
        fields = {
            name: _flatten(field, buffers, depth + 1)
            for name in value.__struct_fields__
            if (field := getattr(value, name)) is not msgspec.UNSET
        }
        return _extension(_STRUCT, [kind.__name__, fields])
    if (library := kind.__module__.partition(".")[0]) in _ADAPTERS:
        return _flatten_foreign(library, value, buffers)
    return _flatten(_plain(value), buffers, depth + 1)


def _flatten_foreign(library: str, value: Any, buffers: list[Any]) -> msgspec.msgpack.Ext:
    adapter = importlib.import_module(_ADAPTERS[library])
    description, buffer = adapter.flatten(value)
    buffers.append(buffer)
    code = _TABLE if library == "pyarrow" else _TENSOR
    return _extension(code, [*description, len(buffers) - 1])


def _plain(value: Any) -> Any:
    """A user-defined structure as a dictionary, one level deep."""
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, enum.Enum):
        return value.value
    for base in _BASES:
        if isinstance(value, base):
            return base(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TransportError(
        f"a value of type {kind} cannot travel between stages",
        hint="return text, numbers, lists, dictionaries, dataclasses, msgspec structures or arrays",
    )


def _key(key: Any) -> str | int:
    if type(key) in (str, int):
        return key  # type: ignore[no-any-return]
    raise TransportError(f"a dictionary key of type {type(key).__name__} cannot travel; use text")


def _flatten_array(array: np.ndarray[Any, Any], buffers: list[Any]) -> msgspec.msgpack.Ext:
    if array.dtype.kind not in PLAIN_DTYPES:
        raise TransportError(f"an array of dtype {array.dtype} cannot travel; use numbers or text")
    contiguous = np.ascontiguousarray(array)
    buffers.append(contiguous.reshape(-1).view(np.uint8).data)
    return _extension(_ARRAY, [array.dtype.str, list(array.shape), len(buffers) - 1])


def _flatten_bytes(value: bytes | bytearray | memoryview, buffers: list[Any]) -> Any:
    if len(value) < _OUT_OF_BAND:
        return bytes(value)
    buffers.append(value)
    return _extension(_BYTES, len(buffers) - 1)


def _extension(code: int, data: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(code, msgspec.msgpack.encode(data))


class _Reviver:
    """The hook for extensions. A closure that calls itself would be a cycle, which keeps buffers,
    and with them memory that others wait for, until the garbage is collected."""

    def __init__(self, buffers: tuple[Any, ...]) -> None:
        self._buffers = buffers

    def decode(self, data: bytes) -> Any:
        return msgspec.msgpack.Decoder(ext_hook=self).decode(data)

    def __call__(self, code: int, data: memoryview) -> Any:
        content = self.decode(bytes(data))
        match code:
            case 1:
                dtype, shape, index = content
                return _array(str(dtype), [_index(n) for n in shape], self._buffers[_index(index)])
            case 2:
                name, fields = content
                kind = _STRUCTS[str(name)]
                return msgspec.convert(fields, kind)
            case 3:
                return tuple(content)
            case 4:
                return bytes(self._buffers[_index(content)])
            case 5 | 6:
                *description, index = content
                return _adapter(code).revive(self._buffers[_index(index)], *description)
            case 7 if isinstance(content, np.ndarray) and content.ndim == 0:
                return content[()]
        raise ValueError(f"unknown form {code}")


def _adapter(code: int) -> Any:
    library = "pyarrow" if code == _TABLE else "torch"
    try:
        importlib.import_module(library)
        return importlib.import_module(_ADAPTERS[library])
    except ImportError as error:
        raise TransportError(
            f"the value needs {library}, which is not installed here", hint=f"install {library}"
        ) from error


def _index(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"bad size or position {value!r}")
    return value


def _array(dtype: str, shape: list[int], buffer: Any) -> np.ndarray[Any, Any]:
    kind = np.dtype(dtype)
    if kind.kind not in PLAIN_DTYPES:
        raise ValueError(f"dtype {dtype} is refused")
    array = np.frombuffer(buffer, dtype=np.uint8).view(kind).reshape(shape)
    array.flags.writeable = False
    return array


def _has_user_type(annotation: Any) -> bool:
    arguments = getattr(annotation, "__args__", ())
    if arguments:
        return any(_has_user_type(argument) for argument in arguments)
    if not isinstance(annotation, type) or annotation in _STRUCTS.values():
        return False
    return (
        issubclass(annotation, msgspec.Struct | enum.Enum)
        or dataclasses.is_dataclass(annotation)
        or hasattr(annotation, "model_validate")
        or (issubclass(annotation, tuple) and hasattr(annotation, "_fields"))
    )
