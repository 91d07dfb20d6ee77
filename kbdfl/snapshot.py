"""The state of a run as bytes and back: plain containers, arrays, and objects of the classes that are asked for.

What pickle would do, without its power to run what it reads: an object is the name of its class, which must be among
those that the reader names, and its attributes. A snapshot begins with the sha256 of the rest, so one that was cut off
or changed is refused.
"""

import hashlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from kbdfl.errors import DataError

_MAGIC = b"kbdfl snapshot 1\n"
_ARRAY, _OBJECT, _INTEGER, _TUPLE, _SET, _DICT, _DEQUE = range(1, 8)
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}


def pack(state: Any, *, classes: Sequence[type] = ()) -> bytes:
    """`state` as bytes. Raises DataError for an object of a class that is not among `classes`."""
    body = _pack(state, {cls: cls.__qualname__ for cls in classes})
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes, *, classes: Sequence[type] = ()) -> Any:
    """What was packed. Raises DataError unless `data` is a whole snapshot of these `classes`."""
    start = len(_MAGIC) + 32
    body = data[start:]
    if data[: len(_MAGIC)] != _MAGIC or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise DataError("the snapshot is damaged: it does not have the sha256 that it names")
    return _unpack(body, {cls.__qualname__: cls for cls in classes})


def _pack(value: Any, names: dict[type, str]) -> bytes:
    def extended(code: int, *content: Any) -> msgpack.ExtType:
        return msgpack.ExtType(code, _pack(list(content), names))

    def special(value: Any) -> Any:
        kind = type(value)
        if isinstance(value, np.ndarray):
            dtype = value.dtype.descr if value.dtype.names else value.dtype.str
            fields = [list(field) for field in dtype] if isinstance(dtype, list) else dtype
            return extended(_ARRAY, fields, list(value.shape), value.flags.writeable, value.tobytes())
        if isinstance(value, np.generic):
            return value.item()
        if kind is tuple:
            return extended(_TUPLE, *value)
        if kind in (set, frozenset):
            return extended(_SET, *sorted(value))
        if kind is deque:
            return extended(_DEQUE, value.maxlen, list(value))
        if kind in (dict, OrderedDict, Counter, defaultdict):
            name = "dict" if kind is defaultdict else kind.__name__
            return extended(_DICT, name, [each for pair in value.items() for each in pair])
        if kind is int:
            return msgpack.ExtType(_INTEGER, str(value).encode())
        if kind in names:
            return extended(_OBJECT, names[kind], _attributes(value))
        raise DataError(f"a snapshot must not hold a {kind.__name__}")

    def plain(value: Any) -> Any:
        """Containers whose kind msgpack would not keep, and integers that it cannot hold."""
        kind = type(value)
        if kind is list:
            return [plain(each) for each in value]
        if value is None or kind in (bool, str, bytes, float):
            return value
        if kind is int and -(1 << 63) <= value < 1 << 64:
            return value
        return special(value)

    return msgpack.packb(plain(value), use_bin_type=True)


def _unpack(data: bytes, classes: dict[str, type]) -> Any:
    def special(code: int, content: bytes) -> Any:
        if code == _INTEGER:
            return int(content)
        parts = _unpack(content, classes)
        if code == _ARRAY:
            fields, shape, writeable, raw = parts
            dtype = np.dtype([tuple(field) for field in fields] if isinstance(fields, list) else fields)
            array = np.frombuffer(raw, dtype).reshape(shape).copy()
            array.setflags(write=writeable)
            return array
        if code == _TUPLE:
            return tuple(parts)
        if code == _SET:
            return set(parts)
        if code == _DEQUE:
            return deque(parts[1], maxlen=parts[0])
        if code == _DICT:
            pairs = iter(parts[1])
            return _MAPPINGS[parts[0]](dict(zip(pairs, pairs, strict=True)))
        name, attributes = parts
        if code != _OBJECT or name not in classes:
            raise DataError(f"the snapshot holds an unknown {name!r:.80}")
        return _object(classes[name], attributes)

    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=special)


def _attributes(value: Any) -> dict[str, Any]:
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    slots = [name for name in slots if name != "__weakref__"]
    return {name: getattr(value, name) for name in slots} if slots else dict(vars(value))


def _object(cls: type, attributes: dict[str, Any]) -> Any:
    value = cls.__new__(cls)
    for name, attribute in attributes.items():
        object.__setattr__(value, name, attribute)  # frozen ones too
    return value
